"""The README's commands do what it says: every ```sh block, line by line, as a new user would type them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from quick import environment, quick_sets

REPO = Path(__file__).resolve().parents[2]
README = (REPO / "README.md").read_text()


def shell_lines() -> list[str]:
    """Commands of the blocks marked sh."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def make_targets() -> list[str]:
    """Targets of the blocks without a language that begin with make."""
    return re.findall(r"^make ([a-z]+)", README, re.MULTILINE)


def test_the_readme_has_commands() -> None:
    assert len(shell_lines()) >= 7
    assert make_targets() == ["demo", "test"]


@pytest.mark.parametrize("target", make_targets())
def test_make_knows_the_targets(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith("http"):
            assert (REPO / target).exists(), target


@pytest.mark.slow
def test_the_commands_work(tmp_path: Path) -> None:
    env = environment() | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for line in shell_lines():
        words = shlex.split(line)
        if words[:2] == ["cotray", "run"]:  # at the smallest sizes: the words are the README's own
            words[2:2] = quick_sets("backbone.name=smod")  # the default, where other runs here have both
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert (tmp_path / "runs" / "first" / "evaluate" / "index.html").exists()
