"""Parts survive workers that are killed, are done once, and errors of workers arrive as they were raised."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from squares import bad_labels, squares

from cotray.config import ComputeConfig
from cotray.errors import LabelFileError
from cotray.runs import Run
from cotray.stages.base import StageRun
from cotray.stages.parts import Plan, Work, part_name, run_parts
from cotray.storage import Folder

pytestmark = pytest.mark.usefixtures("ray_local")


def run(home: Path, build: functools.partial[Work], actors: bool = False, parts: int = 6) -> list[int]:
    """The squares of 0, 1, 2 ... by parts of three."""
    out = Folder(str(home / "parts"))
    items = [[3 * part, 3 * part + 1, 3 * part + 2] for part in range(parts)]
    at = StageRun("toy", Run(str(home)), "print")
    run_parts(Plan("numbers", build, items, out, actors), ComputeConfig(), at)
    return [row["square"] for part in range(parts) for row in out.read_parquet(part_name(part)).to_pylist()]


@pytest.mark.parametrize("actors", [False, True])
def test_a_killed_worker_costs_nothing_but_time(tmp_path: Path, actors: bool) -> None:
    found = run(tmp_path, functools.partial(squares, str(tmp_path), fatal=3), actors)
    assert (tmp_path / "killed").exists()
    assert found == [number**2 for number in range(18)]


def test_what_a_killed_worker_had_done_is_kept(tmp_path: Path) -> None:
    found = run(tmp_path, functools.partial(squares, str(tmp_path), fatal=3), parts=20)
    assert (tmp_path / "killed").exists()
    assert found == [number**2 for number in range(60)]
    calls = [len((tmp_path / f"calls-{part}").read_text()) for part in range(20)]
    assert sum(calls) <= 21 and max(calls) <= 2  # but for one part at most, that was on its way to the disk


def test_parts_that_are_there_are_not_done_again(tmp_path: Path) -> None:
    build = functools.partial(squares, str(tmp_path))
    first = run(tmp_path, build)
    for part in (1, 4):
        (tmp_path / "parts" / part_name(part)).unlink()
    assert run(tmp_path, build) == first
    calls = [len((tmp_path / f"calls-{part}").read_text()) for part in range(6)]
    assert calls == [1, 2, 1, 1, 2, 1]


@pytest.mark.parametrize("actors", [False, True])
def test_what_a_worker_raises_is_raised_here(tmp_path: Path, actors: bool) -> None:
    with pytest.raises(LabelFileError) as caught:
        run(tmp_path, functools.partial(bad_labels, str(tmp_path)), actors)
    assert str(caught.value) == "The CSV lacks a column. [labels.csv] Add it."
