"""Run lengths, boxes, cleaning and cut-outs against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.ndimage import label

from cotray.errors import DataError
from cotray.imaging.masks import (
    clean_mask,
    cut_cell,
    decode_rle,
    dice,
    encode_rle,
    iou,
    mask_box,
    own_cell,
)

Mask = NDArray[np.bool_]
shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)
masks = hnp.arrays(bool, shapes)


def loop_rle(mask: Mask) -> list[int]:
    counts, last, run = [], False, 0
    for column in range(mask.shape[1]):
        for row in range(mask.shape[0]):
            if mask[row, column] != last:
                counts.append(run)
                last, run = bool(mask[row, column]), 0
            run += 1
    return [*counts, run]


def disc(size: int, radius: float, x: float | None = None, y: float | None = None) -> Mask:
    rows, columns = np.mgrid[:size, :size]
    centre = (size - 1) / 2
    return np.hypot(columns - (centre if x is None else x), rows - (centre if y is None else y)) <= radius


@given(masks)
@settings(deadline=None, max_examples=25)
def test_rle_is_cocos_and_returns(mask: Mask) -> None:
    counts = encode_rle(mask)
    assert counts == loop_rle(mask)
    assert np.array_equal(decode_rle(counts, *mask.shape), mask)


def test_rle_example_from_the_coco_format() -> None:
    mask = np.array([[0, 1, 1], [0, 1, 0]], bool)
    assert encode_rle(mask) == [2, 3, 1]
    assert encode_rle(~mask) == [0, 2, 3, 1]


@pytest.mark.parametrize("counts", [[1, 2], [7], [], [8, -2]])
def test_rle_of_another_size_is_refused(counts: list[int]) -> None:
    with pytest.raises(DataError, match="add up to"):
        decode_rle(counts, 2, 3)


def test_clean_mask_keeps_the_largest_part_and_fills_it() -> None:
    mask = disc(40, 8, 12, 12)
    whole = mask.copy()
    mask[11:14, 11:14] = False
    mask[30:34, 30:34] = True
    assert np.array_equal(clean_mask(mask), whole)


def test_the_cell_in_the_middle_is_kept_and_not_a_larger_one_that_the_edge_cuts() -> None:
    cell, neighbour = disc(60, 8, 27, 31), disc(60, 16, 2, 58)
    assert neighbour.sum() > cell.sum() and neighbour[:, 0].any()
    assert np.array_equal(own_cell(cell | neighbour), cell)


def test_the_piece_nearest_to_the_middle_is_the_cell_where_none_holds_it() -> None:
    ring = disc(60, 12) & ~disc(60, 6)  # as of a cell whose nucleus was not painted
    speck = np.zeros((60, 60), bool)
    speck[29, 28] = True
    assert np.array_equal(own_cell(ring | speck | disc(60, 9, 55, 5)), ring)


@given(masks)
@settings(deadline=None, max_examples=50)
def test_an_own_cell_is_one_whole_piece_of_its_mask(mask: Mask) -> None:
    own = own_cell(mask)
    parts, count = label(mask, np.ones((3, 3)))
    assert own.any() == mask.any() and not (own & ~mask).any()
    assert len({int(part) for part in parts[own]}) == min(count, 1)
    assert np.array_equal(own, np.isin(parts, parts[own]) & mask)
    assert np.array_equal(own_cell(own), own)


def test_clean_mask_leaves_bays_open() -> None:
    mask = np.ones((5, 5), bool)
    mask[0:3, 2] = False
    assert np.array_equal(clean_mask(mask), mask)


@given(masks)
@settings(deadline=None, max_examples=25)
def test_clean_mask_is_idempotent_and_never_leaves_the_box(mask: Mask) -> None:
    cleaned = clean_mask(mask)
    assert np.array_equal(clean_mask(cleaned), cleaned)
    assert cleaned.any() == mask.any()
    if mask.any():
        box, inner = mask_box(mask), mask_box(cleaned)
        assert box and inner and box[0] <= inner[0] and box[1] <= inner[1]
        assert inner[2] <= box[2] and inner[3] <= box[3]


@given(masks)
@settings(deadline=None, max_examples=25)
def test_mask_box_is_tight(mask: Mask) -> None:
    points = [(x, y) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]
    box = mask_box(mask)
    if not points:
        assert box is None
        return
    xs, ys = zip(*points, strict=True)
    assert box == (min(xs), min(ys), max(xs) + 1, max(ys) + 1)


@given(st.data(), shapes)
@settings(deadline=None, max_examples=25)
def test_iou_and_dice_count_pixels(data: st.DataObject, shape: tuple[int, int]) -> None:
    a, b = data.draw(hnp.arrays(bool, shape)), data.draw(hnp.arrays(bool, shape))
    both = sum(bool(p and q) for p, q in zip(a.flat, b.flat, strict=True))
    either = sum(bool(p or q) for p, q in zip(a.flat, b.flat, strict=True))
    assert iou(a, b) == pytest.approx(both / either if either else 1.0)
    assert dice(a, b) == pytest.approx(2 * both / (both + either) if either else 1.0)


def test_cut_cell_is_centred_on_black_with_a_margin() -> None:
    rgb = np.full((60, 80, 3), 200, np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[10:30, 40:50] = True
    cell = cut_cell(rgb, mask, 96, 0.1)  # 20 px high, 2 px of margin: a square of 24, four times as large
    assert cell.shape == (96, 96, 3) and cell.dtype == np.uint8
    assert mask_box(cell[..., 0] > 100) == (28, 8, 68, 88)
    assert not cell[:6].any() and not cell[:, :26].any()


def test_cut_cell_is_exact_where_no_resizing_is_needed() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    mask = disc(50, 15)
    cell = cut_cell(rgb, mask, 30, 0.0)
    x0, y0, x1, y1 = mask_box(mask) or (0, 0, 0, 0)
    assert np.array_equal(cell, np.where(mask[..., None], rgb, 0)[y0:y1, x0:x1])


def test_cut_cell_reaches_over_the_images_edge() -> None:
    rgb = np.full((20, 20, 3), 90, np.uint8)
    mask = np.zeros((20, 20), bool)
    mask[:10, :10] = True
    cell = cut_cell(rgb, mask, 30, 1.0)
    assert np.array_equal(cell[..., 0] == 90, np.pad(np.ones((10, 10), bool), 10))


def test_cut_cell_refuses_empty_and_misfitting_masks() -> None:
    rgb = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(DataError, match="empty mask"):
        cut_cell(rgb, np.zeros((20, 20), bool), 32, 0.1)
    with pytest.raises(DataError, match="its image"):
        cut_cell(rgb, np.ones((20, 21), bool), 32, 0.1)
