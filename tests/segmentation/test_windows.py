from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cotray.config import SegmentConfig
from cotray.imaging.masks import mask_box
from cotray.segmentation.windows import (
    Window,
    cut_window,
    paste_mask,
    prompt_box,
    to_window,
    training_windows,
    window_of,
)

CELL = SegmentConfig()
IMAGE = SegmentConfig(window="image")
HEIGHT, WIDTH = 90, 130

corner = st.tuples(st.integers(-30, WIDTH), st.integers(-30, HEIGHT))
side = st.integers(8, 70)
boxes = st.builds(lambda xy, w, h: (xy[0], xy[1], xy[0] + w, xy[1] + h), corner, side, side)


def ellipse(box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """The ellipse that fills a box, as far as the image reaches."""
    x0, y0, x1, y1 = box
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = ((2 * x - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y - y0 - y1) / (y1 - y0)) ** 2
    return np.asarray(inside < 1)


def through(mask: NDArray[np.bool_], window: Window, size: int) -> NDArray[np.bool_]:
    """Cut, seen by a model that is right in every pixel, and pasted back."""
    seen = cut_window(mask.astype(np.uint8) * 255, window, size)
    return paste_mask(seen.astype(np.float32) - 127.5, window, (HEIGHT, WIDTH))


@settings(max_examples=60, deadline=None)
@given(boxes, st.sampled_from([CELL, IMAGE]), st.sampled_from([64, 96, 256]))
def test_a_mask_comes_back_from_its_window(
    box: tuple[int, int, int, int], cfg: SegmentConfig, size: int
) -> None:
    mask = ellipse(box)
    window = window_of(box, mask.shape, cfg)
    wrong = np.count_nonzero(through(mask, window, size) ^ mask)
    contour = sum(np.count_nonzero(np.diff(mask.astype(int), axis=axis)) for axis in (0, 1))
    assert wrong <= (0.1 + 0.5 * max(1.0, window.side / size)) * contour, "only the contour may move"


@settings(max_examples=60, deadline=None)
@given(boxes, st.sampled_from([1.0, 1.6, 3.0]))
def test_a_cell_window_is_a_square_around_its_box(box: tuple[int, int, int, int], context: float) -> None:
    window = window_of(box, (HEIGHT, WIDTH, 3), SegmentConfig(context=context))
    x0, y0, x1, y1 = to_window(box, window, window.side)
    longer = max(box[2] - box[0], box[3] - box[1])
    assert window.side == max(8, round(context * longer))
    assert min(x0, y0) >= -1 and max(x1, y1) <= window.side + 1
    assert abs((x0 + x1) - window.side) <= 1 and abs((y0 + y1) - window.side) <= 1, "centred"


@settings(max_examples=60, deadline=None)
@given(boxes, st.sampled_from([CELL, IMAGE]), st.sampled_from([64, 256]))
def test_box_coordinates_map_there_and_back(
    box: tuple[int, int, int, int], cfg: SegmentConfig, size: int
) -> None:
    window = window_of(box, (HEIGHT, WIDTH), cfg)
    placed = to_window(box, window, size)
    back = placed.astype(float) * window.side / size + np.tile([window.x0, window.y0], 2)
    assert placed.dtype == np.float32
    assert back == pytest.approx(np.array(box), abs=1e-3)


@pytest.mark.parametrize("cfg", [CELL, IMAGE])
def test_a_box_lands_on_what_it_surrounds(cfg: SegmentConfig) -> None:
    rgb, mask, box = np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.zeros((HEIGHT, WIDTH), bool), (30, 20, 70, 50)
    mask[20:50, 30:70] = True
    item = training_windows(rgb, mask, box, cfg)
    assert item["image"].shape == (256, 256, 3) and item["image"].dtype == np.uint8
    assert item["mask"].shape == (256, 256) and set(np.unique(item["mask"])) == {0, 1}
    assert item["box"] == pytest.approx(np.array(mask_box(item["mask"].astype(bool))), abs=1.0)


def test_window_image_is_the_whole_image_from_its_corner() -> None:
    rgb = np.random.default_rng(0).integers(1, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    window = window_of((5, 5, 20, 20), rgb.shape, IMAGE)
    assert window == Window(0, 0, WIDTH)
    seen = cut_window(rgb, window, WIDTH)
    assert np.array_equal(seen[:HEIGHT], rgb)
    assert not seen[HEIGHT:].any(), "black below a wide image"


def test_a_window_beyond_the_image_is_black_and_pastes_nothing() -> None:
    rgb = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    window = Window(WIDTH + 5, 0, 40)
    assert not cut_window(rgb, window, 64).any()
    assert not paste_mask(np.ones((16, 16), np.float32), window, (HEIGHT, WIDTH)).any()


def test_a_window_partly_outside_is_black_there_only() -> None:
    rgb = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    seen = cut_window(rgb, Window(-10, -20, 40), 40)
    assert (seen[20:, 10:] == 200).all()
    assert not seen[:20].any() and not seen[:, :10].any()


def test_the_box_found_prompts_if_it_fits_the_cell() -> None:
    true = (10, 10, 30, 30)
    assert prompt_box([(40, 40, 60, 60), (12, 10, 32, 30), (10, 10, 50, 50)], true) == (12, 10, 32, 30)
    assert prompt_box([(10, 10, 50, 50)], true) == true, "a quarter is another cell's"
    assert prompt_box([], true) == true
