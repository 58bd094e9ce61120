from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cotray.cli import STAGE_SUMMARIES, main
from cotray.config import Config, describe, load_config

Captured = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("plain_and_elsewhere")


def call(capsys: Captured, *args: str, code: int = 0) -> tuple[str, str]:
    """Output and errors of a command, which must end with ``code``."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(list(args))
    out, err = capsys.readouterr()
    assert (left.value.code or 0) == code, out + err
    return out, err


# ---- help ------------------------------------------------------------------------------------------


def test_help_lists_every_command_and_stage(capsys: Captured) -> None:
    text, _ = call(capsys, "--help")
    commands = ["run", "status", "predict", "serve", "datasets", "config"]
    stages = [name.replace("_", "-") for name in STAGE_SUMMARIES]
    assert [name for name in [*commands, *stages] if not re.search(rf"^\W*{name}\s", text, re.M)] == []
    assert "Research use only" in text


@pytest.mark.parametrize("name", [name.replace("_", "-") for name in STAGE_SUMMARIES])
def test_a_stage_command_says_what_it_does(name: str, capsys: Captured) -> None:
    text, _ = call(capsys, name, "-h")
    words = " ".join(re.sub(r"[^\w\s;,+-]", " ", text).split())
    assert STAGE_SUMMARIES[name.replace("-", "_")].lower() in words.lower()
    assert "--run" in text and "--force" in text


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom cotray.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(','.join({'ray', 'torch', 'mlflow', 'cv2', 'sklearn'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_stages_are_named_as_the_pipeline_names_them() -> None:
    from cotray.stages.pipeline import STAGES

    assert {name: stage.summary for name, stage in STAGES.items()} == STAGE_SUMMARIES
    assert list(STAGES) == list(STAGE_SUMMARIES), "in the pipeline's order"


# ---- errors ----------------------------------------------------------------------------------------

WRONG = {
    "preset": (["config", "show", "--preset", "tinny"], "Did you mean 'tiny'?"),
    "setting": (["config", "show", "--set", "backbone.layrs=4"], "Did you mean 'layers'?"),
    "setting elsewhere": (["config", "show", "--set", "backbone.lr=1"], "Did you mean 'backbone.train.lr'?"),
    "value": (["config", "show", "--set", "split.mode=random"], "'disjoint' or 'leaky'"),
    "override": (["config", "show", "--set", "backbone"], "section.key=value"),
    "dataset": (["datasets", "describe", "all-idb3"], "Did you mean 'all-idb2'?"),
    "dataset to check": (["datasets", "check", ".", "--dataset", "c-nmcc"], "Did you mean 'c-nmc'?"),
    "layout": (["datasets", "phantom", "new", "--layout", "fieds"], "Did you mean 'fields'?"),
    "root": (["datasets", "check", "nowhere", "--dataset", "all-idb2"], "There is no such folder."),
    "config file": (["config", "show", "--config", "absent.yaml"], "[absent.yaml] Check --config."),
    "run": (["status", "nowhere"], "There is no run here."),
    "run of a stage": (["segment", "--run", "nowhere"], "There is no run here."),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_what_is_wrong_is_said_in_one_line(what: str, capsys: Captured) -> None:
    args, words = WRONG[what]
    out, err = call(capsys, *args, code=2)
    assert words in err and err.startswith("cotray: ")
    assert err.count("\n") == 1 and "Traceback" not in out + err
    assert list(Path().iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize(
    "args", [["run", "--preset", "tinny"], ["run", "--dataset", "c-nmcc"], ["run", "--set", "gan.latnt=1"]]
)
def test_a_run_that_cannot_begin_leaves_nothing_behind(args: list[str], capsys: Captured) -> None:
    out, err = call(capsys, *args, code=2)
    assert "Did you mean" in err and err.count("\n") == 1 and out == ""
    assert list(Path().iterdir()) == []


def test_a_broken_config_file_is_one_line_too(capsys: Captured) -> None:
    Path("broken.yaml").write_text("a: [\n  b: {\n")
    _, err = call(capsys, "config", "show", "--config", "broken.yaml", code=2)
    assert "not YAML" in err and err.count("\n") == 1
    Path("broken.yaml").write_bytes(b"\xff\xfe\x00")
    _, err = call(capsys, "config", "show", "--config", "broken.yaml", code=2)
    assert "broken.yaml" in err and err.count("\n") == 1


@pytest.mark.parametrize("args", [["runn"], ["run", "--nonsense"], ["datasets", "describe"]])
def test_wrong_usage_ends_with_2(args: list[str], capsys: Captured) -> None:
    _, err = call(capsys, *args, code=2)
    assert "Usage" in err and "Traceback" not in err


def test_being_interrupted_is_said_and_ends_with_130() -> None:
    code = (
        "import os, signal\nfrom cotray import cli\n"
        "cli.app.command('wait')(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "cli.main(['wait'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "cotray: stopped; the same command continues.\n"


# ---- config ----------------------------------------------------------------------------------------


def test_config_show_prints_what_loads_back(capsys: Captured) -> None:
    text, _ = call(capsys, "config", "show")
    assert load_config(yaml_text=text) == Config()
    Path("mine.yaml").write_text("backbone: {layers: 3}\n")
    text, _ = call(capsys, "config", "show", "--preset", "small", "--config", "mine.yaml", "--set", "seed=7")
    shown = load_config(yaml_text=text)
    assert shown == load_config("small", "backbone: {layers: 3}", ["seed=7"])
    assert (shown.preset, shown.backbone.layers, shown.seed) == ("small", 3, 7)


def test_config_help_covers_every_setting(capsys: Captured) -> None:
    text, _ = call(capsys, "config", "show", "--help-text")
    found = dict(re.findall(r"^(\S+) \(default .*\)\n    (.+)$", text, re.M))
    assert found == {key: help_ for key, help_, _ in describe()}
    assert all(found.values()) and len(found) > 80
    assert "segment.train.epochs (default 8)" in text
