"""Ingest against a plain multiprocessing + OpenCV loop, and its memory as the data grow.

    python -m benchmarks.ingest speed --taleqani /data/taleqani/Original [--repeats 5] [--phantoms 600]
    python -m benchmarks.ingest costs --taleqani /data/taleqani/Original
    python -m benchmarks.ingest memory [--counts 2000 20000]

`speed`: both sides decode, equalise, sharpen and write the same images on the same cores, in turn: the plain
one as PNG files (`--plain bmp`: uncompressed), cotray as bitmaps in compressed Parquet; cotray also checks
every file, takes a digest and a perceptual hash, groups, splits and writes its manifest. `costs`: what each
step takes on one core. `memory`: peak resident memory of the driver and of Ray's workers. Images that are
made lie in temporary folders, which are removed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import ingest_memory
from benchmarks.ingest_sides import enhanced, ours
from benchmarks.real_sets import machine
from benchmarks.selection_tables import markdown

TALEQANI = ("dataset.class_map={Benign: 0, Early: 1, Pre: 1, Pro: 1}",)
PHANTOM = ("dataset.class_map={hem: 0, all: 1}",)
SAMPLE, PASSES = 40, 9
"""Images of a set that single steps are timed on, and how often."""


def main() -> None:
    """Measure and print."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("what", choices=("speed", "costs", "memory"))
    parser.add_argument("--taleqani", type=Path, help="class folders of 224 x 224 jpg; left out if not given")
    parser.add_argument("--phantoms", type=int, default=600, help="drawn cells on black, 450 x 450 bmp")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plain", choices=("png", "bmp"), default="png", help="what the plain side writes")
    parser.add_argument("--counts", type=int, nargs="+", default=[2000, 20000])
    given = parser.parse_args()
    print(f"Machine: {machine()}.\n")
    if given.what == "memory":
        print(ingest_memory.table(given.counts))
        return
    with tempfile.TemporaryDirectory(prefix="cotray-bench-") as place:
        sets = images(given.taleqani, given.phantoms, Path(place) / "phantoms")
        print(speed(sets, given.repeats, given.plain) if given.what == "speed" else costs(sets))


def images(taleqani: Path | None, phantoms: int, place: Path) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """Name -> (folder, settings) of the sets measured on; phantoms are drawn into ``place``."""
    sets = {"Taleqani, 224 x 224 jpg": (taleqani, TALEQANI)} if taleqani else {}
    if phantoms:
        from cotray.data.phantom import phantom_files, phantom_index

        for path, data in phantom_files(phantom_index("c-nmc", max(4, phantoms // 20), 20, 0)):
            file = place / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        sets["phantoms, 450 x 450 bmp"] = (place, PHANTOM)
    return sets


# -- speed ------------------------------------------------------------------------------------------------


def speed(sets: dict[str, tuple[Path, tuple[str, ...]]], repeats: int, plain: str = "png") -> str:
    """A line for each set: images per second of both sides, their ratio, and cotray's seconds by part."""
    from cotray.stages.cluster import connect

    begun = time.perf_counter()
    connect()
    told = [f"Starting Ray took {time.perf_counter() - begun:.1f} s, which is in no figure of the table."]
    head = ["images", "number", "plain images/s", "cotray images/s", "ratio", "single rounds"]
    head += ["plain CPU ms/image", "cotray CPU ms/image", "ratio of CPU"]
    lines = [[*head, "cotray, s: listing", "images", "split", "first round, images/s"]]
    for name, (root, more) in sets.items():
        rounds = [one_round(root, more, turn, plain) for turn in range(repeats + 1)]
        count = sum(1 for path in root.rglob("*") if path.is_file())
        lines.append([name, str(count), *shown(rounds[0], rounds[1:], count)])
    told.append(f"Medians of {repeats} rounds, the sides in turn, {os.cpu_count()} processes each. ")
    told[-1] += "The first round, in which Ray's workers start and import, is not among them."
    return f"{markdown(lines)}\n\n{' '.join(told)}\n"


def one_round(root: Path, more: tuple[str, ...], turn: int, plain: str = "png") -> dict[str, float]:
    """Seconds of both sides, one after the other; which is first changes from round to round."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="cotray-bench-") as place:
        for side in ("plain", "ours") if turn % 2 else ("ours", "plain"):
            if side == "ours":
                found |= ours(root, Path(place) / "run", *more)
            else:
                args = [str(root), str(Path(place) / "plain"), str(os.cpu_count()), plain]
                command = [sys.executable, "-m", "benchmarks.ingest_sides", *args]
                found |= json.loads(subprocess.check_output(command, text=True))
    return found


def shown(first: dict[str, float], rounds: list[dict[str, float]], count: int) -> list[str]:
    """Cells of a line."""
    of = {name: median(one[name] for one in rounds) for name in first}
    ratios = sorted(one["plain"] / one["all"] for one in rounds)
    rates = [f"{count / of['plain']:.0f}", f"{count / of['all']:.0f}", f"{of['plain'] / of['all']:.2f}"]
    cpu = [f"{1000 * of[name] / count:.2f}" for name in ("plain CPU", "CPU")]
    cpu.append(f"{of['plain CPU'] / of['CPU']:.2f}")
    parts = [f"{of[name]:.1f}" for name in ("listing", "images", "split")]
    return [*rates, f"{ratios[0]:.2f} to {ratios[-1]:.2f}", *cpu, *parts, f"{count / first['all']:.0f}"]


# -- costs ------------------------------------------------------------------------------------------------


def costs(sets: dict[str, tuple[Path, tuple[str, ...]]]) -> str:
    """Milliseconds of CPU per image of each step."""
    import cv2

    cv2.setNumThreads(1)
    lines = [["step", *sets]]
    columns = [steps(sorted(p for p in root.rglob("*") if p.is_file())) for root, _ in sets.values()]
    lines += [[name, *(f"{column[name]:.2f}" for column in columns)] for name in columns[0]]
    told = f"Milliseconds of CPU per image; the fastest of {PASSES} passes, which take the steps in turn."
    return f"{markdown(lines)}\n\n{told}\n"


def steps(files: list[Path]) -> dict[str, float]:
    """The steps of both sides on a sample of files."""
    import cv2
    import numpy as np
    import pyarrow as pa

    from cotray.config import load_config
    from cotray.data.decode import encode_bmp, encode_png
    from cotray.data.hashing import perceptual_hash, pixel_digest
    from cotray.predictor import decode
    from cotray.preparation import prepare

    config, zstd = load_config("tiny"), pa.Codec("zstd", 1)
    data = [path.read_bytes() for path in files[:: max(1, len(files) // SAMPLE)]]
    bgr = [cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR) for one in data]
    rgb = [decode(one, config) for one in data]
    ready = [prepare(one, config) for one in rgb]
    return fastest(
        {
            "plain: PNG": (encode_png, ready),
            "cotray: bitmap, zstd": (lambda one: zstd.compress(encode_bmp(one)), ready),
            "plain: decode": (lambda one: cv2.imdecode(np.frombuffer(one, np.uint8), 1), data),
            "plain: CLAHE and sharpen": (enhanced, bgr),
            "cotray: decode, checked": (lambda one: decode(one, config), data),
            "cotray: CLAHE and sharpen": (lambda one: prepare(one, config), rgb),
            "cotray: digest": (pixel_digest, rgb),
            "cotray: perceptual hash": (perceptual_hash, rgb),
        }
    )


def fastest(steps: dict[str, tuple[Callable[[Any], Any], list[Any]]]) -> dict[str, float]:
    """Milliseconds of CPU per item in the fastest of several passes, which take the steps in turn."""
    least: dict[str, float] = {}
    for _ in range(PASSES):
        for name, (step, items) in steps.items():
            begun = time.process_time()
            for item in items:
                step(item)
            spent = 1000 * (time.process_time() - begun) / len(items)
            least[name] = min(spent, least.get(name, spent))
    return least


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:  # the memory of one size, in a process of its own
        print(json.dumps(ingest_memory.measure(Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main()
