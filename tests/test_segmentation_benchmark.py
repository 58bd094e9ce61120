"""The segmentation benchmark: its halves, its truth, and a toy run whose figures are computed again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.segmentation_data import Sets, consensus, held_out, load, phantoms, true_boxes, windows
from cotray.config import Config
from cotray.data.hashing import hamming, perceptual_hash

REPO = Path(__file__).resolve().parents[1]
Mask = NDArray[np.bool_]


def disc(x: float, y: float, r: float) -> Mask:
    rows, columns = np.mgrid[:60, :60]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= r * r)


# ---- parts that need no images -------------------------------------------------------------------------


def test_the_consensus_lies_half_way_between_two_masks() -> None:
    both = consensus(disc(30, 30, 10), disc(30, 30, 20))
    assert both.sum() == pytest.approx(disc(30, 30, 15).sum(), rel=0.03)
    assert np.array_equal(consensus(disc(25, 30, 9), disc(25, 30, 9)), disc(25, 30, 9))
    a, b = disc(25, 30, 12), disc(32, 30, 12)
    assert (consensus(a, b) >= (a & b)).all() and (consensus(a, b) <= (a | b)).all()


def test_whole_groups_are_held_out() -> None:
    groups = [f"g{i // 7}" for i in range(100)]
    apart = held_out(groups, 0.15, seed=0)
    assert 0.15 <= np.mean([name in apart for name in groups]) <= 0.15 + 0.07
    assert held_out(groups, 0.15, seed=0) == apart != held_out(groups, 0.15, seed=1)


def test_phantoms_are_half_single_cells_half_fields_and_become_windows() -> None:
    drawn = phantoms(24, Config())
    single = sum(len(photo.cells) for photo in drawn if photo.single)
    fields = sum(len(photo.cells) for photo in drawn if not photo.single)
    assert single == 12 and fields >= 12
    arrays = windows(drawn, Config())
    assert arrays["image"].shape == (single + fields, 256, 256, 3)
    share = arrays["mask"].mean(axis=(1, 2))
    assert ((share > 0.1) & (share < 0.8)).all(), "each window shows its cell, not filled by it"


# ---- real images ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(shared_data: Callable[[str], Path]) -> Path:
    return shared_data("all-idb2").parent


@pytest.fixture(scope="module")
def sets(root: Path) -> Sets:
    return load(root, Config(), limit=60)


@pytest.mark.data
def test_nobody_is_tested_on_what_he_learned_or_its_near_duplicate(sets: Sets) -> None:
    learned = [photo for photo in (*sets.train, *sets.valid) if photo.name.startswith("Im")]
    tested = sets.tests["all-idb2"]
    assert {p.name for p in learned}.isdisjoint(p.name for p in tested)
    assert {p.group for p in learned}.isdisjoint(p.group for p in tested)
    hashes = [np.array([perceptual_hash(p.rgb) for p in side], np.uint64) for side in (learned, tested)]
    assert hamming(hashes[0][:, None], hashes[1]).min() > 0
    assert {photo.name for photo in sets.train}.isdisjoint(photo.name for photo in sets.valid)
    assert not any("Blood" in photo.name for photo in (*sets.train, *sets.valid)), "nobody learns from BCCD"
    assert 0.3 < len(tested) / (len(learned) + len(tested)) < 0.7


@pytest.mark.data
def test_every_image_has_its_cell_and_two_annotators_agree_on_which(sets: Sets) -> None:
    for photo in (*sets.train, *sets.valid, *(p for part in sets.tests.values() for p in part)):
        assert photo.cells and all(cell.shape == photo.rgb.shape[:2] and cell.any() for cell in photo.cells)
        assert len(true_boxes(photo, Config())) == len(photo.cells)
        if photo.second is not None:
            assert (photo.second & photo.cells[0]).sum() > 0.5 * photo.cells[0].sum()
            assert cv2.connectedComponents(photo.second.astype(np.uint8))[0] == 2, "one piece"


@pytest.fixture(scope="module")
def done(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What a toy run of some sides prints, and what it writes."""
    out = tmp_path_factory.mktemp("bench") / "rows.json"
    command = [sys.executable, "-m", "benchmarks.segmentation", "--data", str(root), "--out", str(out)]
    command += ["--quick", "--sides", "LeuSAM;Otsu"]
    run = subprocess.run(command, cwd=REPO, env=os.environ, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout, json.loads(out.read_text())


@pytest.mark.data
@pytest.mark.slow
def test_the_human_ceiling_is_that_of_the_files(done: tuple[str, dict[str, Any]], root: Path) -> None:
    rows = [row for row in done[1]["human"] if row["truth"] == "first"]
    tested = {row["image"] for row in done[1]["sides"][0]["rows"] if row["set"] == "all-idb2"}
    assert {row["image"] for row in rows} == tested
    checked = 0
    for row in rows:
        putzu = (
            np.asarray(cv2.imread(str(root / "all-idb2/masks-putzu" / f"{row['image']}.tif"))).min(axis=2)
            <= 200
        )
        grey = cv2.imread(str(root / "all-idb2/masks-banik" / f"{row['image']}.png"), cv2.IMREAD_GRAYSCALE)
        banik = np.asarray(grey) > 20
        if cv2.connectedComponents(banik.astype(np.uint8))[0] == 2:  # elsewhere one piece of his counts
            assert row["iou"] == pytest.approx((putzu & banik).sum() / (putzu | banik).sum())
            checked += 1
    assert checked > 5


@pytest.mark.long
@pytest.mark.data
@pytest.mark.slow
def test_tables_show_the_means_of_the_rows(done: tuple[str, dict[str, Any]]) -> None:
    text, known = done
    titles = [side["side"]["title"] for side in known["sides"]]
    assert titles == ["Otsu, watershed", "LeuSAM", "LeuSAM, phantoms only"]
    assert known["sides"][1]["facts"]["steps"] == known["sides"][2]["facts"]["steps"] == 6
    assert known["sides"][0]["facts"] == {}
    tested = text.split("**BCCD")[1].split("**Whose")[0]
    for side in known["sides"]:
        own = [r for r in side["rows"] if r["set"] == "bccd" and r["prompt"] == "automatic"]
        (line,) = [line for line in tested.splitlines() if line.startswith(f"| {side['side']['title']} |")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[2].split()[0] == f"{np.mean([row['iou'] for row in own]):.3f}"
        assert cells[3].split()[0] == f"{np.median([row['iou'] for row in own]):.3f}"
        none = np.mean([row["missed"] == row["cells"] for row in own])
        assert cells[6] == f"{100 * none:.1f}%"
