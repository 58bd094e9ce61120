"""The two sides of the ingest benchmark: cotray's stage, and a plain pool with an OpenCV loop.

    python -m benchmarks.ingest_sides FOLDER OUT WORKERS [png|bmp]

runs the plain side in a process of its own, where nothing else lives, and prints its wall and CPU seconds.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.processes import cpu_seconds

KERNEL = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], np.float32)
SUFFIXES = {".jpg", ".bmp", ".png", ".tif"}
BATCH = 16
"""Files that a process of the plain side takes at once."""


def plain(root: Path, out: Path, workers: int, kind: str = "png") -> dict[str, float]:
    """Wall and CPU seconds to decode, equalise (CLAHE on L of Lab), sharpen and write all images: as PNG, or
    as bitmaps, which nothing compresses."""
    begun, spent = time.perf_counter(), cpu_seconds()
    out.mkdir(parents=True)
    files = sorted(str(path) for path in root.rglob("*") if path.suffix in SUFFIXES)
    work = [(path, str(out / f"{number}.{kind}")) for number, path in enumerate(files)]
    with multiprocessing.Pool(workers, cv2.setNumThreads, (1,)) as pool:
        assert sum(pool.imap_unordered(_one, work, BATCH)) == len(files)
        used = cpu_seconds() - spent
    return {"plain": time.perf_counter() - begun, "plain CPU": used}


def _one(paths: tuple[str, str]) -> bool:
    return bool(cv2.imwrite(paths[1], enhanced(cv2.imread(paths[0], cv2.IMREAD_COLOR))))


def enhanced(bgr: Any) -> Any:
    """The paper's enhancement of an image as OpenCV reads it, as a plain loop would write it."""
    lightness, a, b = cv2.split(cv2.cvtColor(bgr, cv2.COLOR_BGR2Lab))
    lightness = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(lightness)
    bgr = cv2.cvtColor(cv2.merge([lightness, a, b]), cv2.COLOR_Lab2BGR)
    return cv2.filter2D(bgr, -1, KERNEL)


def ours(root: Path, run: Path, *sets: str) -> dict[str, float]:
    """Seconds of the whole stage, Ray being there: `all`, and of it `listing`, `images` and `split`.

    `CPU` is that of the driver, of Ray's workers, and of Ray's own processes.
    """
    from cotray.config import load_config
    from cotray.stages.base import Voice
    from cotray.stages.pipeline import Request, run_pipeline

    stamps, spent = [time.perf_counter()], cpu_seconds()

    class Clock(Voice):
        def say(self, text: str) -> None:
            if text.startswith("ingest: read"):
                stamps.append(time.perf_counter())

        def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
            if done == total:
                stamps.append(time.perf_counter())

    named = ("dataset.name=folder", f"dataset.root={root}", "tracking.enabled=false", *sets)
    config = load_config("tiny", overrides=named)
    run_pipeline(Request(str(run), config, until="ingest", voice=Clock()))
    stamps.append(time.perf_counter())
    begun, stage, images, end = stamps
    parts = {"listing": stage - begun, "images": images - stage, "split": end - images}
    return {"all": end - begun, "CPU": cpu_seconds() - spent, **parts}


if __name__ == "__main__":
    print(json.dumps(plain(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])))
