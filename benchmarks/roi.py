"""Finding leukocytes: recall and precision of boxes at IoU 0.5, and milliseconds per image.

    python -m benchmarks.roi DATA [--overlays FOLDER] [--only NAME ...]

DATA holds `bccd`, `jtsc` and `all-idb2`. Prints the tables of docs/benchmarks.md. `--overlays` writes a
picture of every image with an error: truth in green, what was found in red.

Halves are every second image of the sorted names. The constants of the ROI step were chosen on BCCD's first
half (`even`); the second one gave nothing but figures. Halves by the files' own numbers are others, as some
numbers are missing: `odd twice` are the images that are odd either way.

The truth: BCCD's boxes of white cells; the bounding box of the painted cell for JTSC and ALL-IDB2 (Putzu's
masks, which paint the one cell in the middle). A found box counts if it and a true one, each used once, have
an IoU of at least 0.5. Intervals: 95%, 2,000 resamples of images; where there is no error to resample, the
exact bound of "no miss in n images". Times are one thread's own, the fastest of five calls, so that what else
runs counts for little.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from benchmarks.real_sets import machine
from cotray.config import RoiConfig
from cotray.data.catalog import decode_cell_mask
from cotray.data.decode import decode_image, decode_mask_file
from cotray.imaging.masks import Box, clean_mask, mask_box
from cotray.imaging.roi import find_cells

Rgb = NDArray[np.uint8]
Finder = Callable[[Rgb, bool], list[Box]]

CFG = RoiConfig()
LEAST = 0.5
RESAMPLES = 2000
REPEATS = 5
KINDS = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
"""JTSC's labels, from 1 on."""


@dataclass(frozen=True)
class Photo:
    """An image and its true boxes (x0, y0, x1, y1)."""

    name: str
    rgb: Rgb
    boxes: list[Box]


@dataclass(frozen=True)
class Group:
    """Rows of the table that belong together."""

    name: str
    photos: list[Photo]
    single: bool


def main() -> None:
    """Measure and print."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("data", type=Path)
    parser.add_argument("--overlays", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="groups whose names begin like this")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    groups = [g for g in load(given.data) if not given.only or g.name.startswith(tuple(given.only))]
    print(f"Machine: {machine()}; one thread.\n")
    print(accuracy(groups))
    print(speed(groups))
    if not given.only:
        print(lobes(given.data / "jtsc"))
        print(odd_things(given.data / "bccd"))
    if given.overlays:
        given.overlays.mkdir(parents=True, exist_ok=True)
        for group in groups:
            draw_errors(group, given.overlays)


# ---- images and truth ------------------------------------------------------------------------------


def load(data: Path) -> list[Group]:
    """Every set in its halves."""
    bccd = load_bccd(data / "bccd")
    twice = [photo for photo in bccd[1::2] if int(photo.name[-5:]) % 2]
    return [
        Group("bccd even", bccd[0::2], False),
        Group("bccd odd", bccd[1::2], False),
        Group("bccd odd twice", twice, False),
        *halves("jtsc", load_masked(data / "jtsc" / "images", data / "jtsc" / "masks", "jtsc")),
        *halves(
            "all-idb2", load_masked(data / "all-idb2" / "img", data / "all-idb2" / "masks-putzu", "all-idb2")
        ),
    ]


def halves(name: str, photos: list[Photo]) -> list[Group]:
    """A set of one-cell images in its halves."""
    return [Group(f"{name} even", photos[0::2], True), Group(f"{name} odd", photos[1::2], True)]


def load_bccd(folder: Path, kind: str = "WBC") -> list[Photo]:
    """Fields with the boxes of their white cells (or others); the CSV's corners are inclusive."""
    boxes: dict[str, list[Box]] = {}
    with (folder / "boxes-all.csv").open() as file:
        for row in csv.DictReader(file):
            own = boxes.setdefault(row["filename"], [])
            if row["cell_type"] == kind:
                x0, y0, x1, y1 = (int(row[key]) for key in ("xmin", "ymin", "xmax", "ymax"))
                own.append((x0, y0, x1 + 1, y1 + 1))
    return [Photo(Path(n).stem, read(folder / "images" / n), boxes[n]) for n in sorted(boxes)]


def load_masked(images: Path, masks: Path, dataset: str) -> list[Photo]:
    """One-cell images with the bounding box of the largest piece of the mask."""
    photos = []
    for path in sorted(p for p in images.iterdir() if p.suffix in {".bmp", ".tif"}):
        mask_file = next(masks.glob(f"{path.stem}.*"))
        mask = decode_cell_mask(dataset, decode_mask_file(mask_file.read_bytes()), mask_file.name)
        box = mask_box(clean_mask(mask))
        photos.append(Photo(path.stem, read(path), [box] if box else []))
    return photos


def read(path: Path) -> Rgb:
    """(H, W, 3)."""
    return decode_image(path.read_bytes(), max_pixels=10**8, min_side=16)


# ---- finders ---------------------------------------------------------------------------------------


def cotray(rgb: Rgb, single: bool) -> list[Box]:
    """What the pipeline does."""
    return [region.box for region in find_cells(rgb, CFG, single=single)]


def plain(rgb: Rgb, single: bool) -> list[Box]:
    """The floor: Otsu on green (nuclei take it), connected components above the smallest area."""
    green = np.ascontiguousarray(rgb[..., 1])
    _, dark = cv2.threshold(green, 0, 1, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU)
    _, _, stats, _ = cv2.connectedComponentsWithStats(dark)
    pieces = sorted(stats[1:], key=lambda row: -row[4])
    kept = [row for row in pieces if row[4] >= CFG.min_area * dark.size][: 1 if single else CFG.max_cells]
    return [(int(x), int(y), int(x + w), int(y + h)) for x, y, w, h, _ in kept]


FINDERS: dict[str, Finder] = {"cotray": cotray, "Otsu": plain}


# ---- figures ---------------------------------------------------------------------------------------


def overlaps(found: Sequence[Box], true: Sequence[Box]) -> NDArray[np.float64]:
    """IoU of every found box (rows) with every true one."""
    out = np.zeros((len(found), len(true)))
    for i, a in enumerate(found):
        for j, b in enumerate(true):
            width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            both = max(0, width) * max(0, height)
            out[i, j] = both / (sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b)) - both)
    return out


def matches(found: Sequence[Box], true: Sequence[Box]) -> list[tuple[int, int, float]]:
    """(index found, index true, IoU) of as many pairs of at least LEAST as there can be."""
    iou = overlaps(found, true)
    rows, columns = linear_sum_assignment(np.where(iou >= LEAST, 1 + iou, 0), maximize=True)
    pairs = zip(rows, columns, strict=True)
    return [(int(i), int(j), float(iou[i, j])) for i, j in pairs if iou[i, j] >= LEAST]


def counts(group: Group, finder: Finder) -> NDArray[np.float64]:
    """A row per image: hits, true boxes, found boxes, sum of the hits' IoU."""
    rows = []
    for photo in group.photos:
        found = finder(photo.rgb, group.single)
        hits = matches(found, photo.boxes)
        rows.append((len(hits), len(photo.boxes), len(found), sum(iou for *_, iou in hits)))
    return np.array(rows, float)


def figures(rows_N4: NDArray[np.float64]) -> NDArray[np.float64]:
    """Recall, precision, mean IoU of hits, of (..., N, 4) counts."""
    hits, true, found, iou = np.moveaxis(rows_N4.sum(axis=-2), -1, 0)
    return np.stack([hits / true, hits / np.maximum(found, 1), iou / np.maximum(hits, 1)])


def accuracy(groups: Iterable[Group]) -> str:
    """A row for every half and finder."""
    lines = [
        "| images | n | cells | finder | recall | precision | mean IoU of hits |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in groups:
        for name, finder in FINDERS.items():
            rows_N4 = counts(group, finder)
            pick = np.random.default_rng(0).integers(0, len(rows_N4), (RESAMPLES, len(rows_N4)))
            low, high = np.quantile(figures(rows_N4[pick]), [0.025, 0.975], axis=1)
            low[low == 1] = 0.025 ** (1 / len(rows_N4))
            shown = [
                f"{v:.3f} ({a:.3f} to {b:.3f})" for v, a, b in zip(figures(rows_N4), low, high, strict=True)
            ]
            cells = int(rows_N4[:, 1].sum())
            lines.append(f"| {group.name} | {len(rows_N4)} | {cells} | {name} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def speed(groups: Iterable[Group]) -> str:
    """Milliseconds per image of both finders, on the same images."""
    lines = ["| images | size | cotray, ms | Otsu, ms | ratio |", "|---|---|---|---|---|"]
    for group in groups:
        photos = group.photos[:: max(1, len(group.photos) // 40)]
        taken = [
            [seconds(finder, photo.rgb, group.single) for photo in photos] for finder in FINDERS.values()
        ]
        own, floor = 1e3 * np.array(taken)
        height, width = photos[0].rgb.shape[:2]
        values = f"{np.median(own):.1f} | {np.median(floor):.2f} | {np.median(own / floor):.1f}"
        lines.append(f"| {group.name} | {width} x {height} | {values} |")
    return "\n".join(lines) + "\n"


def seconds(finder: Finder, rgb: Rgb, single: bool) -> float:
    """CPU time of the fastest of REPEATS calls."""
    taken = []
    for _ in range(REPEATS):
        start = time.thread_time()
        finder(rgb, single)
        taken.append(time.thread_time() - start)
    return min(taken)


def lobes(folder: Path) -> str:
    """How often JTSC's one cell is found as one, by kind, where nobody says that there is one."""
    lines = ["| JTSC as fields | n | one box | none | several | hit |", "|---|---|---|---|---|---|"]
    photos = load_masked(folder / "images", folder / "masks", "jtsc")
    with (folder / "labels.csv").open() as file:
        kinds = [int(row[-1]) for row in list(csv.reader(file))[1:]]
    for number, kind in enumerate(KINDS, 1):
        own = [photo for photo, label in zip(photos, kinds, strict=True) if label == number]
        found = [cotray(photo.rgb, single=False) for photo in own]
        sizes = np.array([len(boxes) for boxes in found])
        hits = sum(bool(matches(boxes, photo.boxes)) for boxes, photo in zip(found, own, strict=True))
        shown = ((sizes == 1).sum(), (sizes == 0).sum(), (sizes > 1).sum(), hits)
        lines.append(f"| {kind} | {len(own)} | {' | '.join(map(str, shown))} |")
    return "\n".join(lines) + "\n"


def odd_things(folder: Path) -> str:
    """BCCD: how far the middles of boxes are off, and how many platelets are taken for leukocytes."""
    photos, platelets = load_bccd(folder), load_bccd(folder, "Platelets")
    off, taken, many = [], 0, 0
    for photo, other in zip(photos, platelets, strict=True):
        found = cotray(photo.rgb, single=False)
        for i, j, _ in matches(found, photo.boxes):
            size = max(np.subtract(photo.boxes[j][2:], photo.boxes[j][:2]))
            off.append(np.hypot(*(middle(found[i]) - middle(photo.boxes[j]))) / size)
        many += len(other.boxes)
        spots = [middle(box) for box in other.boxes]
        taken += sum(any(inside(spot, box) and apart(box, photo.boxes) for box in found) for spot in spots)
    half, most = np.quantile(off, [0.5, 0.95])
    return (
        f"BCCD, all {len(photos)} fields: middles of hits are off by {100 * half:.1f}% of the cell's longer"
        f" side (median; 95%: {100 * most:.1f}%). Of {many} platelets {taken} lie in a box that holds no"
        " labelled leukocyte.\n"
    )


def middle(box: Box) -> NDArray[np.float64]:
    """(x, y)."""
    return np.array([box[0] + box[2], box[1] + box[3]]) / 2


def inside(spot: NDArray[np.float64], box: Box) -> bool:
    """Whether a point lies in a box."""
    return bool(box[0] <= spot[0] < box[2] and box[1] <= spot[1] < box[3])


def apart(box: Box, leukocytes: Sequence[Box]) -> bool:
    """Whether a found box has nothing to do with any leukocyte."""
    return not overlaps([box], leukocytes).any()


def draw_errors(group: Group, folder: Path) -> None:
    """A picture of every image whose found boxes are not the true ones."""
    for photo in group.photos:
        found = cotray(photo.rgb, group.single)
        if len(matches(found, photo.boxes)) == len(found) == len(photo.boxes):
            continue
        picture = photo.rgb.copy()
        for boxes, colour in ((photo.boxes, (0, 200, 0)), (found, (255, 0, 0))):
            for x0, y0, x1, y1 in boxes:
                cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), colour, 2)
        cv2.imwrite(str(folder / f"{group.name.replace(' ', '-')}-{photo.name}.png"), picture[..., ::-1])


if __name__ == "__main__":
    main()
