"""Finding cells: drawn fields with known boxes, phantoms with exact ones, real images with annotators'."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cotray.config import RoiConfig
from cotray.data.catalog import decode_cell_mask
from cotray.data.decode import decode_image, decode_mask_file
from cotray.data.phantom import PhantomImage, draw_phantom, phantom_index
from cotray.imaging.masks import Box, clean_mask, mask_box
from cotray.imaging.roi import Region, find_cells

Rgb = NDArray[np.uint8]
CFG = RoiConfig()
PLASMA, RED, CYTOPLASM, NUCLEUS = (226, 214, 218), (200, 150, 156), (190, 182, 208), (90, 40, 130)
Place = tuple[int, int]


def field(
    cells: Sequence[Place] = (),
    red: Sequence[Place] = (),
    height: int = 300,
    width: int = 400,
    radius: int = 26,
) -> Rgb:
    """Plasma with noise, red discs, and cells: a nucleus of ``radius`` within a third more of cytoplasm."""
    rgb = np.full((height, width, 3), PLASMA, np.uint8)
    for x, y in red:
        cv2.circle(rgb, (x, y), 24, RED, -1, cv2.LINE_AA)
    for x, y in cells:
        cv2.circle(rgb, (x, y), radius * 4 // 3, CYTOPLASM, -1, cv2.LINE_AA)
    for x, y in cells:
        cv2.circle(rgb, (x, y), radius, NUCLEUS, -1, cv2.LINE_AA)
    noise = np.random.default_rng(0).normal(0, 3, rgb.shape)
    return np.clip(cv2.GaussianBlur(rgb + noise, (0, 0), 0.8), 0, 255).astype(np.uint8)


def box_of(place: Place, radius: int) -> Box:
    return place[0] - radius, place[1] - radius, place[0] + radius + 1, place[1] + radius + 1


def box_iou(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / (sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b)) - both)


def matched(regions: Sequence[Region], truth: Sequence[Box], least: float = 0.5) -> int:
    """How many true boxes have a region of their own."""
    left = [region.box for region in regions]
    hits = 0
    for box in truth:
        best = max(left, key=lambda found: box_iou(found, box), default=None)
        if best is not None and box_iou(best, box) >= least:
            left.remove(best)
            hits += 1
    return hits


FIVE = [(60, 60), (200, 70), (330, 60), (110, 210), (280, 220)]
REDS = [(130, 130), (240, 150), (360, 150), (40, 140), (200, 260), (20, 280), (380, 270)]


@pytest.mark.parametrize("count", range(1, 6))
def test_every_cell_of_a_field_has_its_box(count: int) -> None:
    regions = find_cells(field(FIVE[:count], REDS), CFG, single=False)
    assert len(regions) == count
    assert matched(regions, [box_of(place, 34) for place in FIVE[:count]], 0.75) == count


def test_area_is_the_nucleus_in_pixels_of_the_image() -> None:
    for scale in (1, 3):
        rgb = cv2.resize(field(FIVE[:2]), None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        for region in find_cells(np.asarray(rgb, np.uint8), CFG, single=False):
            assert region.area == pytest.approx(np.pi * (26 * scale) ** 2, rel=0.15)
            assert 0 < region.score <= 1


def test_largest_first_and_not_more_than_asked() -> None:
    rgb = field(FIVE, REDS)
    cv2.circle(rgb, (200, 160), 34, NUCLEUS, -1)
    regions = find_cells(rgb, CFG, single=False)
    areas = [region.area for region in regions]
    assert len(areas) == 6 and areas == sorted(areas, reverse=True)
    assert find_cells(rgb, RoiConfig(max_cells=2), single=False) == regions[:2]


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize(
    "rgb",
    [
        field(),
        field(red=REDS),
        np.full((60, 80, 3), 255, np.uint8),
        np.full((60, 80, 3), 120, np.uint8),
        np.zeros((60, 80, 3), np.uint8),
        np.full((1, 1, 3), 200, np.uint8),
    ],
    ids=["plasma", "red cells", "white", "grey", "black", "one pixel"],
)
def test_without_stain_there_is_no_cell(rgb: Rgb, single: bool) -> None:
    assert find_cells(rgb, CFG, single=single) == []


def test_single_takes_the_cell_in_the_middle() -> None:
    rgb = field([(200, 150), (15, 20), (390, 280)])
    regions = find_cells(rgb, CFG, single=True)
    assert len(regions) == 1 and box_iou(regions[0].box, box_of((200, 150), 34)) > 0.75


def test_touching_cells_are_parted_where_asked() -> None:
    """Where other nuclei of the field tell how large one is; two alone could be lobes of one."""
    cells = [(184, 150), (230, 150), *FIVE[2:], FIVE[0]]
    parted = find_cells(field(cells), CFG, single=False)
    assert len(parted) == 6 and matched(parted, [box_of(place, 34) for place in cells]) == 6
    assert len(find_cells(field(cells), RoiConfig(split_touching=False), single=False)) == 5


def test_lobes_of_one_nucleus_are_one_cell() -> None:
    rgb = field()
    cv2.circle(rgb, (200, 150), 44, CYTOPLASM, -1)
    for x, y in [(180, 140), (205, 170), (220, 135)]:
        cv2.circle(rgb, (x, y), 15, NUCLEUS, -1)
    for single in (True, False):
        regions = find_cells(rgb, CFG, single=single)
        assert len(regions) == 1 and box_iou(regions[0].box, box_of((200, 150), 44)) > 0.7


def test_platelets_are_no_cells() -> None:
    rgb = field(FIVE[:2])
    for x in range(60, 360, 60):
        cv2.circle(rgb, (x, 250), 4, NUCLEUS, -1)
    assert len(find_cells(rgb, CFG, single=False)) == 2


def test_margin_widens_the_box_within_the_image() -> None:
    rgb = field([(200, 150), (10, 10)])
    narrow, wide = (find_cells(rgb, RoiConfig(margin=m), single=False) for m in (0.0, 0.2))
    x0, _, x1, _ = wide[0].box
    assert x1 - x0 == pytest.approx(1.4 * (narrow[0].box[2] - narrow[0].box[0]), rel=0.1)
    assert wide[1].box[:2] == (0, 0)


@pytest.mark.parametrize("colour", [NUCLEUS, RED, (40, 90, 60)])
def test_on_black_whatever_is_not_black_is_the_cell(colour: tuple[int, int, int]) -> None:
    rgb = np.zeros((450, 450, 3), np.uint8)
    cv2.ellipse(rgb, (230, 210), (110, 80), 30, 0, 360, colour, -1)
    regions = find_cells(rgb, CFG, single=True)
    truth = mask_box(rgb.max(axis=2) > 0)
    assert truth and len(regions) == 1 and box_iou(regions[0].box, truth) > 0.8


@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 99), st.booleans())
@example(1, 700, 0, True)
@settings(deadline=None, max_examples=30)
def test_boxes_lie_in_the_image_whatever_its_size(height: int, width: int, seed: int, single: bool) -> None:
    rng = np.random.default_rng(seed)
    rgb = np.full((height, width, 3), PLASMA, np.uint8)
    for _ in range(6):
        place = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        cv2.circle(rgb, place, int(rng.integers(1, 60)), NUCLEUS, -1)
    regions = find_cells(rgb, CFG, single=single)
    assert len(regions) <= (1 if single else 6)
    for x0, y0, x1, y1 in (region.box for region in regions):
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height


# ---- phantoms --------------------------------------------------------------------------------------


def phantoms(layout: str) -> list[PhantomImage]:
    return [draw_phantom(spec) for spec in phantom_index(layout, 12, 2, seed=0)]


def test_phantom_fields() -> None:
    drawn = phantoms("fields")
    found = [find_cells(image.rgb, CFG, single=False) for image in drawn]
    hits = sum(matched(regions, image.boxes) for regions, image in zip(found, drawn, strict=True))
    assert hits / sum(len(image.boxes) for image in drawn) > 0.95  # recall
    assert hits / sum(len(regions) for regions in found) > 0.95  # precision


@pytest.mark.parametrize("layout", ["all-idb2", "c-nmc"])
def test_phantom_single_cells(layout: str) -> None:
    overlaps = []
    for image in phantoms(layout):
        (region,) = find_cells(image.rgb, CFG, single=True)
        overlaps.append(box_iou(region.box, image.boxes[0]))
    assert np.mean(overlaps) > 0.78 and np.min(overlaps) > 0.5


# ---- real images -----------------------------------------------------------------------------------


def read(file: Path) -> Rgb:
    return decode_image(file.read_bytes(), max_pixels=10**7, min_side=16)


@pytest.mark.data
def test_all_idb2_against_an_annotator(shared_data: Callable[[str], Path]) -> None:
    """Mean IoU of all 260 boxes with those of the painted cells: 0.87; every second image here."""
    root, overlaps = shared_data("all-idb2"), []
    for file in sorted((root / "img").glob("*.tif"))[::2]:
        mask_file = next((root / "masks-banik").glob(f"{file.stem}.*"))
        mask = decode_cell_mask("all-idb2", decode_mask_file(mask_file.read_bytes()), mask_file.name)
        truth = mask_box(clean_mask(mask))
        (region,) = find_cells(read(file), CFG, single=True)
        overlaps.append(box_iou(region.box, truth) if truth else 0.0)
    assert np.mean(overlaps) > 0.85 and np.mean(np.array(overlaps) > 0.5) > 0.98


@pytest.mark.data
def test_bccd_leukocytes(shared_data: Callable[[str], Path]) -> None:
    """Recall 0.99, precision 0.98 at IoU 0.5 on all 364 fields; here on the half not tuned on."""
    root = shared_data("bccd")
    truth: dict[str, list[Box]] = {}
    for row in csv.DictReader((root / "boxes-all.csv").open()):
        boxes = truth.setdefault(row["filename"], [])
        if row["cell_type"] == "WBC":
            boxes.append((int(row["xmin"]), int(row["ymin"]), int(row["xmax"]), int(row["ymax"])))
    names = sorted(truth)[1::2]
    found = [find_cells(read(root / "images" / name), CFG, single=False) for name in names]
    hits = sum(matched(regions, truth[name]) for name, regions in zip(names, found, strict=True))
    assert hits / sum(len(truth[name]) for name in names) > 0.97
    assert hits / sum(len(regions) for regions in found) > 0.94


@pytest.mark.data
def test_bccd_platelets_are_no_leukocytes(shared_data: Callable[[str], Path]) -> None:
    """Clumps and single ones: no box but a leukocyte's holds the middle of one."""
    root = shared_data("bccd")
    boxes: dict[str, dict[str, list[Box]]] = {}
    for row in csv.DictReader((root / "boxes-all.csv").open()):
        box = (int(row["xmin"]), int(row["ymin"]), int(row["xmax"]), int(row["ymax"]))
        boxes.setdefault(row["filename"], {}).setdefault(row["cell_type"], []).append(box)
    with_platelets = sorted(name for name, kinds in boxes.items() if "Platelets" in kinds)[1::3]
    taken = 0
    for name in with_platelets:
        for region in find_cells(read(root / "images" / name), CFG, single=False):
            if all(box_iou(region.box, white) == 0 for white in boxes[name].get("WBC", [])):
                x0, y0, x1, y1 = region.box
                middles = [((a + c) / 2, (b + d) / 2) for a, b, c, d in boxes[name]["Platelets"]]
                taken += any(x0 <= x < x1 and y0 <= y < y1 for x, y in middles)
    assert len(with_platelets) > 40 and taken <= 1


@pytest.mark.data
def test_jtsc_cells_of_many_lobes_are_one(shared_data: Callable[[str], Path]) -> None:
    """Two thirds are granulocytes, most with parted lobes; every second image here."""
    root = shared_data("jtsc")
    files = sorted((root / "images").glob("*.bmp"))[1::2]
    hits, one = 0, 0
    for file in files:
        raw = decode_mask_file((root / "masks" / f"{file.stem}.png").read_bytes())
        truth = mask_box(clean_mask(decode_cell_mask("jtsc", raw, file.name)))
        assert truth
        hits += matched(find_cells(read(file), CFG, single=True), [truth])
        one += len(find_cells(read(file), CFG, single=False)) == 1
    assert hits / len(files) > 0.97 and one / len(files) > 0.93


@pytest.mark.data
def test_c_nmc_cells_on_black(shared_data: Callable[[str], Path]) -> None:
    for file in sorted(shared_data("c-nmc-sample").rglob("*.bmp")):
        rgb = read(file)
        truth = mask_box(rgb.max(axis=2) > 16)
        (region,) = find_cells(rgb, CFG, single=True)
        assert truth and box_iou(region.box, truth) > 0.8
