"""How much memory ingest takes as the data grow: the driver's, and that of Ray's workers.

Each size has a process and a Ray of its own. Resident memory is read ten times a second from /proc; pages
of Ray's object store count for every process that looked at them.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import cv2
import numpy as np

from benchmarks.ingest_sides import ours
from benchmarks.processes import is_ray_worker, resident, tree
from benchmarks.selection_tables import markdown

SIDE = 128
CLASSES = ("normal", "sick")


def table(counts: list[int]) -> str:
    """A line for each number of images."""
    head = ["images", "driver before, MiB", "driver, peak MiB", "largest worker, peak MiB"]
    lines = [[*head, "all workers, peak MiB", "s"]]
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="cotray-bench-") as place:
            make(Path(place) / "images", count)
            command = [sys.executable, "-m", "benchmarks.ingest", "one", f"{place}/images", f"{place}/run"]
            found = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
        names = ("before", "driver", "worker", "workers", "seconds")
        lines.append([str(count), *(f"{found[name]:.0f}" for name in names)])
    return f"{markdown(lines)}\n"


def make(root: Path, count: int) -> None:
    """Write images that no perceptual hash takes for one another: clouds of colour under one grain."""
    for name in CLASSES:
        (root / name).mkdir(parents=True)
    paths = [(str(root / CLASSES[number % 2] / f"{number:06d}.jpg"), number) for number in range(count)]
    with multiprocessing.Pool() as pool:
        pool.map(_draw, paths, 64)


def _draw(what: tuple[str, int]) -> None:
    path, number = what
    coarse = np.random.default_rng(number).integers(0, 200, (8, 8, 3), dtype=np.uint8)
    grain = np.random.default_rng(0).integers(0, 40, (SIDE, SIDE, 3), dtype=np.uint8)
    cv2.imwrite(path, cv2.add(cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), grain))


def measure(root: Path, run: Path) -> dict[str, float]:
    """MiB and seconds of one ingest in this process, which starts Ray."""
    from cotray.stages.cluster import connect

    connect()
    importlib.import_module("cotray.stages.pipeline")  # the code is there before the data come

    watch = Watch()
    before = watch.look()
    watch.start()
    spent = ours(root, run, "dataset.class_map={normal: 0, sick: 1}")
    return {"before": before, **watch.stop(), "seconds": spent["all"]}


class Watch(threading.Thread):
    """Peaks of resident memory, MiB, of this process and of Ray's workers below it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over, self.peaks = threading.Event(), {"driver": 0.0, "worker": 0.0, "workers": 0.0}

    def run(self) -> None:
        while not self.over.wait(0.1):
            self.look()

    def look(self) -> float:
        """Take the present figures into account; the driver's is returned."""
        driver = resident(str(os.getpid()))
        workers = [resident(pid) for pid in tree() if is_ray_worker(pid)]
        now = {"driver": driver, "worker": max(workers, default=0.0), "workers": sum(workers)}
        self.peaks = {name: max(value, now[name]) for name, value in self.peaks.items()}
        return driver

    def stop(self) -> dict[str, float]:
        """The peaks."""
        self.over.set()
        self.join()
        return self.peaks
