"""The house's rules, applied to the house; each rule is also shown able to fail."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import rules

REPO = Path(__file__).resolve().parents[1]
Rule = Callable[[str, str], list[str]]


def files(folder: str) -> list[str]:
    return sorted(str(path.relative_to(REPO)) for path in (REPO / folder).rglob("*.py"))


COTRAY = files("cotray")
PURE = [path for path in COTRAY if rules.room(path) in rules.WAY]


def obey(rule: Rule, paths: Iterable[str]) -> None:
    sources = {path: (REPO / path).read_text(encoding="utf-8") for path in paths}
    assert sources, "no files found"
    faults = [fault for path, source in sources.items() for fault in rule(path, source)]
    assert not faults, "\n" + "\n".join(faults)


def test_every_pure_room_is_there() -> None:
    assert {rules.room(path) for path in PURE} == set(rules.WAY)


def test_pure_rooms_know_no_services() -> None:
    obey(partial(rules.foreign_imports, foreign=rules.SERVICES), PURE)


def test_pure_rooms_import_along_the_datas_way() -> None:
    obey(rules.against_the_way, PURE)


def test_ray_meets_the_algorithms_in_stages_only() -> None:
    elsewhere = [path for path in COTRAY + files("jobs") if rules.room(path) != "stages"]
    obey(partial(rules.foreign_imports, foreign=("ray",)), elsewhere)


def test_the_command_line_imports_nothing_heavy_on_top() -> None:
    obey(rules.heavy_at_import, ["cotray/cli.py", "cotray/console.py", "cotray/__main__.py", *files("jobs")])


def test_doors_hold_no_logic() -> None:
    obey(rules.logic, files("jobs") + files("serve"))


def test_files_and_functions_are_short() -> None:
    obey(rules.too_long, COTRAY)


def test_nine_functions_of_ten_have_at_most_25_lines() -> None:
    lengths = sorted(n for path in COTRAY for _, _, n in rules.functions((REPO / path).read_text()))
    assert len(lengths) > 100
    ninth = lengths[int(0.9 * len(lengths))]
    assert ninth <= 25, f"one function of ten is longer than {ninth} lines"


def test_nothing_is_pickled() -> None:
    obey(rules.pickles, COTRAY + files("serve"))


def test_every_module_says_what_it_is() -> None:
    obey(rules.undocumented, COTRAY + files("jobs") + files("serve"))


def imported(modules: list[str], watched: tuple[str, ...], folder: Path = REPO) -> dict[str, Any]:
    """What importing these in a fresh Python brought along: watched modules, and threads."""
    code = (
        "import importlib, json, sys, threading\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"watched = [name for name in {watched!r} if name in sys.modules]\n"
        "print(json.dumps({'watched': watched, 'threads': [t.name for t in threading.enumerate()]}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)  # an import that prints breaks this line
    return found


def test_importing_the_command_line_is_light() -> None:
    found = imported(["cotray.cli", "cotray.config"], ("torch", "ray", "mlflow", "cv2"))
    assert found == {"watched": [], "threads": ["MainThread"]}


def test_importing_pure_rooms_starts_nothing() -> None:
    modules = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in PURE]
    found = imported(modules, (*rules.SERVICES, "cotray.stages", "cotray.runs", "cotray.tracking"))
    assert found == {"watched": [], "threads": ["MainThread"]}


def test_importing_all_stages_leaves_slow_libraries_alone() -> None:
    """Every worker of Ray and every command imports them; each of these takes up to a second."""
    slow = ("sklearn", "matplotlib", "kornia", "scipy.stats", "scipy.optimize", "timm", "monai", "captum")
    assert imported(["cotray.stages.pipeline"], (*slow, "mlflow"))["watched"] == []


def test_what_cotray_imports_is_declared() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    declared = {plain(re.split(r"[\[<>=~ ]", line)[0]) for line in project["dependencies"]}
    declared.add("pydantic-core")  # pydantic names its exact version
    providers = packages_distributions()
    undeclared = {
        package
        for path in COTRAY + files("serve")
        for package in rules.packages(path, (REPO / path).read_text())
        if package not in {"cotray", *sys.stdlib_module_names}
        and not declared & {plain(name) for name in providers.get(package, ())}
    }
    assert undeclared == set()


def plain(name: str) -> str:
    return name.lower().replace("_", "-")


# -- each rule can fail ---------------------------------------------------------------------------------

SERVICES = partial(rules.foreign_imports, foreign=rules.SERVICES)
LONG = "def f():\n" + "    x = 1\n" * 61
BROKEN: list[tuple[Rule, str, str, int]] = [
    (SERVICES, "cotray/data/a.py", "import os\nimport ray.data\n", 2),
    (SERVICES, "cotray/data/a.py", "def f():\n    from mlflow.tracking import MlflowClient\n", 2),
    (SERVICES, "cotray/data/a.py", "if TYPE_CHECKING:\n    from ray.data import Dataset\n", 2),
    (SERVICES, "cotray/data/a.py", "import importlib\nr = importlib.import_module('ray')\n", 2),
    (rules.against_the_way, "cotray/data/a.py", "from cotray.imaging.roi import find_cells\n", 1),
    (rules.against_the_way, "cotray/data/a.py", "import os\nfrom cotray import runs\n", 2),
    (rules.against_the_way, "cotray/data/a.py", "from ..storage import Folder\n", 1),
    (rules.against_the_way, "cotray/learning.py", "from cotray.data.records import ImageRecord\n", 1),
    (rules.against_the_way, "cotray/evaluation/a.py", "import cotray.predictor\n", 1),
    (rules.heavy_at_import, "cotray/cli.py", "import sys\nimport torch\n", 2),
    (rules.heavy_at_import, "cotray/cli.py", "try:\n    from ray import serve\nexcept ImportError: ...\n", 2),
    (rules.logic, "jobs/a.py", "import sys\ndef f(): ...\n", 2),
    (rules.logic, "jobs/a.py", "for x in range(3): print(x)\n", 1),
    (rules.too_long, "cotray/a.py", "x = 1\n" * 401, 1),
    (rules.too_long, "cotray/a.py", f"x = 1\n{LONG}", 2),
    (rules.pickles, "cotray/a.py", "from pickle import loads\n", 1),
    (rules.pickles, "cotray/a.py", "import torch\ntorch.load('x')\n", 2),
    (rules.pickles, "cotray/a.py", "torch.load('x', weights_only=False)\n", 1),
    (rules.pickles, "cotray/a.py", "np.load('x', allow_pickle=True)\n", 1),
    (rules.pickles, "cotray/a.py", "np.load('x', allow_pickle=flag)\n", 1),
    (rules.pickles, "cotray/a.py", "pd.read_pickle('x')\n", 1),
    (rules.undocumented, "cotray/a.py", "import os\n", 1),
]


@pytest.mark.parametrize(("rule", "path", "source", "line"), BROKEN)
def test_a_broken_rule_is_named_by_file_and_line(rule: Rule, path: str, source: str, line: int) -> None:
    faults = rule(path, source)
    assert len(faults) == 1
    assert faults[0].startswith(f"{path}:{line}: ")


KEPT: list[tuple[Rule, str, str]] = [
    (SERVICES, "cotray/data/a.py", "import rayleigh\nimport numpy as np\n"),
    (rules.against_the_way, "cotray/imaging/a.py", "from cotray.data import decode\nfrom . import roi\n"),
    (rules.against_the_way, "cotray/data/a.py", "from cotray import __version__\nimport cotray\n"),
    (rules.heavy_at_import, "cotray/cli.py", "def f():\n    import torch\n"),
    (rules.heavy_at_import, "cotray/cli.py", "if TYPE_CHECKING:\n    import torch\n"),
    (rules.logic, "jobs/a.py", "import sys\nif __name__ == '__main__':\n    main(sys.argv)\n"),
    (rules.too_long, "cotray/a.py", 'def f():\n    """' + "long\n" * 80 + '    """\n    return 1\n'),
    (rules.pickles, "cotray/a.py", "torch.load('x', weights_only=True)\nnp.load('x')\njson.load(f)\n"),
]


@pytest.mark.parametrize(("rule", "path", "source"), KEPT)
def test_what_keeps_a_rule_is_no_fault(rule: Rule, path: str, source: str) -> None:
    assert rule(path, source) == []


def test_a_thread_and_a_module_brought_along_are_seen(tmp_path: Path) -> None:
    noisy = (
        "import json, threading as t\nt.Thread(target=t.Event().wait, name='noisy', daemon=True).start()\n"
    )
    (tmp_path / "noisy.py").write_text(noisy)
    found = imported(["noisy"], ("json", "ray"), tmp_path)
    assert found == {"watched": ["json"], "threads": ["MainThread", "noisy"]}
