from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cotray.config import RoiConfig
from cotray.data.decode import decode_image
from cotray.data.phantom import draw_phantom, phantom_index
from cotray.imaging.instances import draw_instances, label_image, part_instances, shows_one_cell
from cotray.imaging.masks import clean_mask

SHAPE = (40, 60)


def disc(x: float, y: float, radius: float) -> NDArray[np.bool_]:
    ys, xs = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (xs - x) ** 2 + (ys - y) ** 2 <= radius**2


circles = st.tuples(st.floats(0, 60), st.floats(0, 40), st.floats(0.5, 15))


# ---- overlapping masks ---------------------------------------------------------------------------------


@given(st.lists(st.tuples(circles, st.floats(0, 1)), max_size=6))
def test_parted_masks_are_disjoint_in_order_and_no_larger(
    drawn: list[tuple[tuple[float, ...], float]],
) -> None:
    masks, scores = [disc(*circle) for circle, _ in drawn], [score for _, score in drawn]
    before = [mask.copy() for mask in masks]
    parted, kept = part_instances(masks, scores)
    assert kept == sorted(set(kept))
    assert not parted or np.sum(parted, axis=0).max() <= 1
    for mask, index in zip(parted, kept, strict=True):
        assert mask.any() and not (mask & ~masks[index]).any()
        assert np.array_equal(mask, clean_mask(mask) & mask), "one piece"
    assert all(np.array_equal(a, b) for a, b in zip(before, masks, strict=True)), "the given ones stay"
    there = [index for index, mask in enumerate(masks) if mask.any()]
    if there:
        best = max(there, key=lambda index: scores[index])
        assert np.array_equal(parted[kept.index(best)], masks[best]), "the best mask gives nothing away"


def test_the_better_of_two_masks_takes_what_both_claim() -> None:
    left, right = disc(20, 20, 10), disc(36, 20, 10)
    both = left & right
    assert both.any()
    for scores, owner in (((0.9, 0.8), 0), ((0.8, 0.9), 1)):
        parted, kept = part_instances([left, right], scores)
        assert kept == [0, 1]
        assert (parted[owner] & both).sum() == both.sum() and not (parted[1 - owner] & both).any()


def test_a_cell_that_was_found_twice_counts_once() -> None:
    cell, lobe, other = disc(20, 20, 12), disc(24, 20, 5), disc(50, 20, 8)
    _, kept = part_instances([lobe, cell, other], [0.7, 0.9, 0.5])
    assert kept == [1, 2]


def test_a_mask_cut_in_two_keeps_its_larger_piece() -> None:
    bar = np.zeros(SHAPE, bool)
    bar[18:22, 2:58] = True
    parted, kept = part_instances([bar, disc(20, 20, 5)], [0.5, 0.9])
    assert kept == [0, 1]
    assert not parted[0][:, :24].any() and parted[0][18:22, 26:58].all()


def test_label_images_number_the_cells() -> None:
    masks = [disc(10, 10, 5), disc(40, 20, 8)]
    labels = label_image(masks, SHAPE)
    assert labels.dtype == np.uint16 and set(np.unique(labels)) == {0, 1, 2}
    assert all(np.array_equal(labels == number, mask) for number, mask in enumerate(masks, 1))
    assert not label_image([], SHAPE).any()


# ---- the picture ---------------------------------------------------------------------------------------


def test_overlays_draw_on_outlines_and_numbers_alone() -> None:
    rgb = np.full((300, 400, 3), 200, np.uint8)
    labels = np.zeros((300, 400), np.uint16)
    cv2.circle(labels, (100, 150), 60, 1, -1)
    cv2.circle(labels, (300, 150), 60, 3, -1)  # no cell has number 2
    picture = draw_instances(rgb, labels)
    changed = (picture != rgb).any(axis=2)
    assert (rgb == 200).all(), "the given image stays"
    edge = cv2.morphologyEx((labels > 0).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
    assert changed[edge].mean() > 0.95
    near = cv2.dilate(edge.astype(np.uint8), np.ones((9, 9))) > 0
    for x, y in ((100, 150), (300, 150)):
        number = changed[y - 12 : y + 13, x - 12 : x + 13]
        assert number.any(), "a number in the middle"
        near[y - 12 : y + 13, x - 12 : x + 13] = True
    assert not changed[~near].any()


def test_the_picture_of_no_cells_is_the_image() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    assert np.array_equal(draw_instances(rgb, np.zeros((30, 40), np.uint16)), rgb)


# ---- one cell or many ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "single"), [("all-idb2", True), ("c-nmc", True), ("fields", False)])
def test_drawn_cells_and_fields_are_told_apart(layout: str, single: bool) -> None:
    drawn = [draw_phantom(spec) for spec in phantom_index(layout, 20, 1, seed=31)]
    told = [shows_one_cell(image.rgb, RoiConfig()) for image in drawn if single or len(image.boxes) > 1]
    assert len(told) >= 10
    assert np.mean([one == single for one in told]) >= 0.9


def test_an_image_without_stain_shows_no_cell() -> None:
    assert not shows_one_cell(np.full((100, 100, 3), 220, np.uint8), RoiConfig())


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "single", "least"), [("jtsc", True, 0.9), ("c-nmc-sample", True, 0.9), ("taleqani", False, 0.9)]
)
def test_real_cells_and_fields_are_told_apart(
    name: str, single: bool, least: float, shared_data: Callable[[str], Path]
) -> None:
    kinds = {".jpg", ".bmp"}
    files = sorted(p for p in shared_data(name).rglob("*") if p.suffix in kinds and "mask" not in str(p))
    told = [
        shows_one_cell(decode_image(path.read_bytes(), max_pixels=10**7, min_side=16), RoiConfig())
        for path in files[:: max(1, len(files) // 24)]
    ]
    assert len(told) >= 20
    assert np.mean([one == single for one in told]) >= least
