"""The ingest benchmark at toy size: both sides write the same images, and tables tell what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cotray.config import load_config
from cotray.data.decode import encode_png
from cotray.data.phantom import phantom_files, phantom_index
from cotray.predictor import decode
from cotray.preparation import prepare

REPO = Path(__file__).resolve().parents[1]


def run(module: str, *args: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{module}", *args]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def line(printed: str) -> dict[str, str]:
    """The first line of a Markdown table, by the heads of its columns."""
    head, _, first = [row.strip("| ").split(" | ") for row in printed.splitlines() if row.startswith("|")][:3]
    return dict(zip(head, first, strict=True))


def test_both_sides_write_the_same_images(tmp_path: Path) -> None:
    for path, data in phantom_files(phantom_index("c-nmc", 4, 3, 0)):
        (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / path).write_bytes(data)
    took = json.loads(run("ingest_sides", str(tmp_path / "data"), str(tmp_path / "plain"), "2"))
    assert took["plain"] > 0 and took["plain CPU"] > 0
    files, config = sorted((tmp_path / "data").rglob("*.bmp")), load_config("tiny")
    assert len(files) == len(list((tmp_path / "plain").iterdir())) == 12
    for number, path in enumerate(files):
        ours = encode_png(prepare(decode(path.read_bytes(), config), config))
        assert (tmp_path / "plain" / f"{number}.png").read_bytes() == ours


@pytest.mark.long
@pytest.mark.slow
def test_the_ratio_is_that_of_the_rates() -> None:
    row = line(run("ingest", "speed", "--phantoms", "80", "--repeats", "1"))
    assert row["number"] == "80"
    ours, plain = float(row["cotray images/s"]), float(row["plain images/s"])
    assert float(row["ratio"]) == pytest.approx(ours / plain, abs=0.03)
    parts = sum(float(row[name]) for name in ("cotray, s: listing", "images", "split"))
    assert parts == pytest.approx(80 / ours, rel=0.1, abs=0.2)


@pytest.mark.long
@pytest.mark.slow
def test_memory_is_that_of_driver_and_workers() -> None:
    row = line(run("ingest", "memory", "--counts", "60"))
    before, driver = float(row["driver before, MiB"]), float(row["driver, peak MiB"])
    worker, workers = float(row["largest worker, peak MiB"]), float(row["all workers, peak MiB"])
    assert 30 < before <= driver
    assert 30 < worker <= workers
