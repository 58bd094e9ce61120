"""What a user sees when something is wrong: one line that names the cure, exit code 2, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from quick import cotray


def files(tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "sam.pth").write_text("<html>No such page.</html>")


VIT_B = ("run", "--run", "r", "--set", "segment.variant=vit_b", "--set")
CASES = {
    "unknown preset": (("run", "--preset", "tinny"), "Did you mean 'tiny'"),
    "unknown dataset": (("run", "--dataset", "all-idb3", "--root", "void"), "Did you mean 'all-idb"),
    "unknown setting": (("run", "--set", "backbone.layer=2"), "Did you mean 'layers'"),
    "bad value": (("run", "--set", "backbone.layers=many"), "backbone.layers"),
    "no such root": (("run", "--dataset", "all-idb2", "--root", "nowhere"), "Check --root"),
    "no root": (("run", "--dataset", "all-idb2"), "--root"),
    "empty folder": (("run", "--dataset", "all-idb2", "--root", "void", "--run", "r"), "image"),
    "unwritable run": (("run", "--run", "file/run"), "--run"),
    "unknown stage": (("run", "--until", "segmnt"), "Did you mean 'segment'"),
    "no run": (("status", "nowhere"), "There is no run here"),
    "no checkpoint": (("run", "--set", "segment.variant=vit_b", "--run", "r"), "segment.checkpoint"),
    "checkpoint not there": ((*VIT_B, "segment.checkpoint=gone.pth"), "no such checkpoint"),
    "no checkpoint at all": ((*VIT_B, "segment.checkpoint=sam.pth"), "sam.pth"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_line(case: str, tmp_path: Path) -> None:
    files(tmp_path)
    args, cure = CASES[case]
    done = cotray(*args, cwd=tmp_path, code=2)
    assert cure in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len([line for line in done.stderr.splitlines() if line.strip()]) <= 3
