"""Real images with masks, for benchmarks.segmentation: who learns from what, who is asked about what.

- `train`: all of JTSC, and the half of ALL-IDB2 that is not tested. A part of both is for validation.
- `all-idb2`: the other half. Halves are whole groups: blocks of ten neighbours in name, near-duplicates (by
  perceptual hash) joined, so that none crosses.
- `bccd`: fields with red cells, nobody learns from any. Its even-numbered images served to choose constants
  of the ROI step, so that only the odd-numbered ones are asked about.

ALL-IDB2 has two annotators. Putzu marks the one cell in the middle; Banik, in 21 images, also neighbours that
the edge cuts: of his masks the piece counts that shares most with Putzu's. We learn from Putzu's. The
consensus is where the mean of their two signed distances is inside (Rohlfing and Maurer 2007).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cotray.config import Config, SplitConfig
from cotray.data.hashing import perceptual_hash
from cotray.data.phantom import draw_phantom, phantom_index
from cotray.data.splits import group_records, make_split
from cotray.imaging.masks import Mask, mask_box
from cotray.imaging.roi import find_cells
from cotray.predictor import decode, prepare
from cotray.segmentation.windows import prompt_box, training_windows

SEED = 20
"""Of the halves, the validation part, the phantoms and the networks."""
VALIDATION = 0.15
"""Share of what is learned from that chooses the best epoch instead."""
SPECK = 200
"""Pieces of a BCCD mask with fewer pixels than this are no cell (the smallest cell has 5878)."""
BLOCK = SplitConfig().block
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Photo:
    """An image as the pipeline enhances it, and its cells."""

    name: str
    group: str
    rgb: NDArray[np.uint8]
    cells: tuple[Mask, ...]
    """True masks, one per leukocyte."""
    single: bool
    """Whether the image is known to show one cell."""
    second: Mask | None = None
    """Another annotator's mask of the one cell."""


@dataclass(frozen=True)
class Sets:
    """All of it."""

    train: list[Photo]
    valid: list[Photo]
    tests: dict[str, list[Photo]]


def load(folder: Path, config: Config, limit: int | None = None) -> Sets:
    """Read, enhance, group and halve; ``limit`` images of each set, if given."""
    jtsc, idb = _jtsc(folder / "jtsc", config, limit), idb2(folder / "all-idb2", config, limit)
    labels = [int(photo.name[-1]) for photo in idb]
    groups = [photo.group for photo in idb]
    sides = make_split(groups, labels, SplitConfig(test_fraction=0.5, val_fraction=VALIDATION), SEED)
    at = {side: [p for p, own in zip(idb, sides, strict=True) if own == side] for side in set(sides)}
    apart = held_out([photo.group for photo in jtsc], VALIDATION, SEED)
    train = [p for p in jtsc if p.group not in apart] + at["train"]
    valid = [p for p in jtsc if p.group in apart] + at.get("val", [])
    tests = {
        "all-idb2": at["test"],
        "bccd": bccd(folder / "bccd", config, limit),
    }
    return Sets(train, valid, tests)


def held_out(groups: Sequence[str], share: float, seed: int) -> set[str]:
    """Whole groups, drawn until they hold ``share`` of the items."""
    order = np.random.default_rng(seed).permutation(sorted(set(groups)))
    sizes = np.cumsum([groups.count(name) for name in order])
    return {str(name) for name in order[: 1 + int(np.searchsorted(sizes, share * len(groups)))]}


# ---- reading ---------------------------------------------------------------------------------------


def _jtsc(folder: Path, config: Config, limit: int | None) -> list[Photo]:
    paths = spread(sorted((folder / "images").glob("*.bmp")), limit)
    masks = [[_grey(folder / "masks" / f"{path.stem}.png") > 64] for path in paths]
    return _photos(paths, masks, config)


def idb2(folder: Path, config: Config, limit: int | None = None) -> list[Photo]:
    """ALL-IDB2 with Putzu's masks, and Banik's as the second annotator's."""
    paths = spread(sorted((folder / "img").glob("*.tif")), limit)
    putzu = [_colour(folder / "masks-putzu" / path.name).min(axis=2) <= 200 for path in paths]
    banik = [_grey(folder / "masks-banik" / f"{path.stem}.png") > 20 for path in paths]
    shared = [_piece(mask, other) for mask, other in zip(banik, putzu, strict=True)]
    return _photos(paths, [[mask] for mask in putzu], config, second=shared)


def bccd(folder: Path, config: Config, limit: int | None, *, odd: bool = True) -> list[Photo]:
    """BCCD's odd-numbered images, or its even-numbered ones, which served to choose constants."""
    paths = sorted((folder / "images").glob("*.jpg"))
    paths = spread([path for path in paths if int(path.stem[-5:]) % 2 == odd], limit)
    names = [path.stem.replace("BloodImage_", "BloodImage_Mask_") for path in paths]
    # 155 is cytoplasm, 255 nucleus, the rest comes from interpolation between them and 0.
    masks = [_pieces(_grey(folder / "masks" / f"{name}.png") > 155 // 2) for name in names]
    return _photos(paths, masks, config, single=False)


def _photos(
    paths: Sequence[Path],
    masks: Sequence[list[Mask]],
    config: Config,
    *,
    single: bool = True,
    second: Sequence[Mask] | None = None,
) -> list[Photo]:
    raw = [decode(path.read_bytes(), config) for path in paths]
    hashes = np.array([perceptual_hash(rgb) for rgb in raw], np.uint64)
    names, nobody = [str(path) for path in paths], [None] * len(paths)
    labels = [int(path.stem[-1]) if path.stem.startswith("Im") else None for path in paths]
    groups = group_records(names, labels, nobody, hashes, SplitConfig())
    others: Sequence[Mask | None] = second or [None] * len(paths)
    rows = zip(paths, groups, raw, masks, others, strict=True)
    return [Photo(p.stem, g, prepare(rgb, config), tuple(m), single, o) for p, g, rgb, m, o in rows]


def spread(paths: list[Path], limit: int | None) -> list[Path]:
    """At most ``limit`` of them: whole blocks of neighbours, evenly over the listing."""
    if limit is None or limit >= len(paths):
        return paths
    starts = np.linspace(0, len(paths) - BLOCK, max(2, limit // BLOCK)).round().astype(int)
    return [path for start in starts for path in paths[start : start + BLOCK]][:limit]


def _grey(path: Path) -> NDArray[np.uint8]:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.uint8)


def _colour(path: Path) -> NDArray[np.uint8]:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR), np.uint8)


def _pieces(mask: Mask) -> list[Mask]:
    count, parts = cv2.connectedComponents(mask.astype(np.uint8))
    return [parts == n for n in range(1, count) if np.count_nonzero(parts == n) >= SPECK]


def _piece(mask: Mask, other: Mask) -> Mask:
    """The connected piece that shares most with ``other``."""
    _, parts = cv2.connectedComponents(mask.astype(np.uint8))
    return np.asarray(parts == 1 + int(np.argmax(np.bincount(parts[other], minlength=2)[1:])))


def consensus(a: Mask, b: Mask) -> Mask:
    """Where the mean of two signed distances is inside."""
    return np.asarray(_inside(a) + _inside(b) > 0)


def _inside(mask: Mask) -> NDArray[np.float32]:
    """Distance to the mask's edge, positive inside."""
    to_edge = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(to_edge - cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 0))


# ---- prompts and windows ---------------------------------------------------------------------------


def automatic_boxes(photo: Photo, config: Config) -> list[Box]:
    """What the ROI step finds."""
    return [region.box for region in find_cells(photo.rgb, config.roi, single=photo.single)]


def true_boxes(photo: Photo, config: Config) -> list[Box]:
    """The true cells' boxes with the margin that the ROI step gives."""
    height, width = photo.rgb.shape[:2]
    out = []
    for x0, y0, x1, y1 in (box for box in map(mask_box, photo.cells) if box is not None):
        wide = round(config.roi.margin * max(x1 - x0, y1 - y0))
        out.append((max(0, x0 - wide), max(0, y0 - wide), min(width, x1 + wide), min(height, y1 + wide)))
    return out


def windows(photos: Sequence[Photo], config: Config) -> dict[str, NDArray[Any]]:
    """Training windows as arrays: each cell prompted by the box that the ROI step gives, else its own."""
    items = []
    for photo in photos:
        found = automatic_boxes(photo, config)
        for cell, true in zip(photo.cells, true_boxes(photo, config), strict=True):
            items.append(training_windows(photo.rgb, cell, prompt_box(found, true), config.segment))
    return {key: np.stack([item[key] for item in items]) for key in items[0]}


def phantoms(count: int, config: Config) -> list[Photo]:
    """``count`` drawn cells, or a few more: half of them single, half in fields."""
    photos: list[Photo] = []
    for layout in ("all-idb2", "fields"):
        wanted, number = count // 2, 0
        for spec in phantom_index(layout, max(4, wanted // 5), 5, SEED):
            if number >= wanted:
                break
            drawn = draw_phantom(spec)
            cells = tuple(drawn.instances == n for n in range(1, int(drawn.instances.max()) + 1))
            rgb, single = prepare(drawn.rgb, config), layout == "all-idb2"
            photos.append(Photo(spec.path, spec.subject, rgb, cells, single))
            number += len(cells)
    return photos


PROMPTS: dict[str, Callable[[Photo, Config], list[Box]]] = {
    "automatic": automatic_boxes,
    "true": true_boxes,
}
