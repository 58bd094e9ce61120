"""Work for the tests of parts, in a file of its own: Ray's workers import it by name."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pyarrow as pa

from cotray.errors import LabelFileError
from cotray.stages.parts import Work


def squares(home: str, fatal: int = -1) -> Work:
    """Squares of a part's numbers; the first worker that meets part ``fatal`` is killed there."""

    def work(part: int, items: list[int]) -> pa.Table:
        done = Path(home) / "killed"
        if part == fatal and not done.exists():
            done.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        with (Path(home) / f"calls-{part}").open("a") as file:
            file.write("x")
        return pa.table({"square": [item**2 for item in items]})

    return work


def bad_labels(home: str) -> Work:
    def work(part: int, items: list[int]) -> pa.Table:
        if part == 2:
            raise LabelFileError("The CSV lacks a column.", where="labels.csv", cure="Add it.")
        return pa.table({"square": items})

    return work
