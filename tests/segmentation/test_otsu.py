from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cotray.config import Config, RoiConfig
from cotray.imaging.masks import clean_mask, iou
from cotray.imaging.roi import find_cells
from cotray.predictor import decode
from cotray.segmentation.otsu import OtsuSegmenter


def smear(centres: list[tuple[int, int]], r: int = 20) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
    """Violet discs on light pink."""
    y, x = np.mgrid[:120, :160]
    masks = [np.asarray((x - cx) ** 2 + (y - cy) ** 2 < r * r) for cx, cy in centres]
    rgb = np.where(np.logical_or.reduce(masks)[..., None], [110, 50, 150], [235, 215, 225])
    return rgb.astype(np.uint8), masks


def around(x: int, y: int, r: int = 24) -> tuple[int, int, int, int]:
    return x - r, y - r, x + r, y + r


def test_apart_or_touching_each_box_gets_its_own_cell() -> None:
    for centres in ([(40, 40), (110, 70)], [(50, 60), (86, 60)]):
        rgb, cells = smear(centres)
        masks, scores = OtsuSegmenter().segment(rgb, [around(*centre) for centre in centres])
        assert masks.shape == (2, 120, 160) and masks.dtype == bool and scores.dtype == np.float32
        assert all(iou(mask, cell) > 0.8 for mask, cell in zip(masks, cells, strict=True))
        assert not (masks[0] & masks[1]).any()
        assert all(np.array_equal(mask, clean_mask(mask)) for mask in masks)
        assert ((scores > 0.1) & (scores <= 1)).all()


def test_nothing_in_the_box_nothing_in_the_mask() -> None:
    rgb, _ = smear([(40, 40)])
    masks, scores = OtsuSegmenter().segment(
        rgb, [(100, 80, 130, 110), (300, 300, 320, 320), (-50, -50, -9, -9)]
    )
    assert not masks.any() and scores.tolist() == [0.0] * 3
    masks, scores = OtsuSegmenter().segment(rgb, [])
    assert masks.shape == (0, 120, 160) and scores.shape == (0,)


@pytest.mark.data
def test_the_floor_is_worth_something_on_real_cells(shared_data: Callable[[str], Path]) -> None:
    folder, found = shared_data("all-idb2"), []
    for path in sorted((folder / "img").glob("*.tif"))[::26]:
        rgb = decode(path.read_bytes(), Config())
        true = np.asarray(cv2.imread(str(folder / "masks-putzu" / path.name))).min(axis=2) <= 200
        boxes = [region.box for region in find_cells(rgb, RoiConfig(), single=True)]
        found.append(max((iou(mask, true) for mask in OtsuSegmenter().segment(rgb, boxes)[0]), default=0.0))
    assert np.median(found) > 0.7
