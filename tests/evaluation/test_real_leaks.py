"""What the audits find in a published set with known faults: copies, and a scale bar that tells the class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cotray.config import SplitConfig
from cotray.data.decode import decode_image
from cotray.data.hashing import find_near, perceptual_hash, pixel_digest
from cotray.data.layouts import natural
from cotray.data.splits import group_records, make_split
from cotray.evaluation.leaks import AuditImage, LeakAudit, audit_leaks
from cotray.evaluation.probes import CORNER, GRID, beside_the_rest, grid_stats
from cotray.evaluation.shortcuts import ShortcutAudit, audit_shortcuts

pytestmark = [pytest.mark.data, pytest.mark.slow]
CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")


@dataclass(frozen=True)
class Seen:
    """All images of the set, as its own folders name them."""

    ids: list[str]
    digests: list[str]
    hash_N: NDArray[np.uint64]
    grid_NGGF: NDArray[np.float32]

    @property
    def label_N(self) -> NDArray[np.int64]:
        return np.asarray([not name.startswith("Benign") for name in self.ids], np.int64)


@pytest.fixture(scope="module")
def seen(shared_data: Callable[[str], Path]) -> Seen:
    root = shared_data("taleqani") / "Original"
    ids = sorted((str(file.relative_to(root)) for file in root.rglob("*.jpg")), key=natural)
    rows = []
    for name in ids:
        rgb = decode_image((root / name).read_bytes(), max_pixels=10**7, min_side=16)
        rows.append((pixel_digest(rgb), perceptual_hash(rgb), grid_stats(rgb)))
    digests, hashes, grids = zip(*rows, strict=True)
    return Seen(ids, list(digests), np.asarray(hashes, np.uint64), np.stack(grids))


def audit(seen: Seen, bits: int) -> LeakAudit:
    classes = [name.split("/")[0] for name in seen.ids]
    rows = zip(seen.ids, seen.digests, seen.hash_N.tolist(), classes, seen.label_N.tolist(), strict=True)
    return audit_leaks([AuditImage(*row) for row in rows], bits)


def test_the_forty_groups_of_exact_copies_are_found(seen: Seen) -> None:
    found = audit(seen, 6)
    assert (found.images, found.exact_groups, found.exact_images) == (3256, 40, 80)


@pytest.mark.long
def test_near_pairs_are_found_and_hardly_grow_with_the_bits(seen: Seen) -> None:
    """Copies included there are 86 pairs and more from 2 bits on, and few more at three times as many."""
    pairs = {bits: find_near(seen.hash_N, bits).count for bits in (2, 6)}
    assert pairs[2] >= 86 and pairs[6] < 1.3 * pairs[2]
    found = audit(seen, 6)
    assert found.near_pairs + 40 == pairs[6]
    assert max(len(cluster.images) for cluster in found.clusters) <= 3, "no chain joins half of the set"
    assert found.count("conflict") == 0


def shortcuts(seen: Seen, grid_NGGF: NDArray[np.float32]) -> ShortcutAudit:
    config, labels = SplitConfig(), seen.label_N.tolist()
    groups = group_records(seen.ids, labels, [None] * len(labels), seen.hash_N, config)
    test_N = np.asarray(make_split(groups, labels, config, 0)) == "test"
    apart = np.stack([beside_the_rest(grid, grid) for grid in grid_NGGF])
    ends = (slice(0, CORNER), slice(GRID - CORNER, GRID))
    corners = dict(zip(CORNERS, (apart[:, y, x] for y in ends for x in ends), strict=True))
    probes = {name: value.reshape(len(labels), -1) for name, value in (corners | {"grid": apart}).items()}
    return audit_shortcuts(probes, seen.label_N, np.asarray(groups), test_N, bootstrap=200)


def test_the_scale_bar_is_found_in_its_corner_and_blanking_takes_it_away(seen: Seen) -> None:
    before = shortcuts(seen, seen.grid_NGGF)
    auroc = {probe.name: probe.auroc for probe in before.probes}
    assert max(auroc, key=lambda name: auroc[name]) == "bottom_right" and auroc["bottom_right"] > 0.95
    (region,) = before.regions
    assert region[2:] == (1.0, 1.0) and region[0] <= 0.85 and region[1] <= 0.93
    x0, y0 = (round(GRID * value) for value in region[:2])
    blanked = seen.grid_NGGF.copy()
    blanked[:, y0:, x0:] = 0  # what blanking makes of these cells
    after = shortcuts(seen, blanked)
    others = [probe.auroc for probe in after.probes if probe.name != "bottom_right"]
    assert after.probes[-1].auroc < auroc["bottom_right"] - 0.03
    assert after.probes[-1].auroc <= max(others) + 0.03, "it is a corner like the others"
    assert after.regions == ()
