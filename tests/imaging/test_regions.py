"""Blanked rectangles."""

from __future__ import annotations

import numpy as np
import pytest

from cotray.errors import InvalidValueError
from cotray.imaging.regions import blank_regions


def test_a_corner_takes_the_median_colour() -> None:
    rgb = np.full((10, 20, 3), (10, 20, 30), np.uint8)
    rgb[7:, 15:] = 255
    out = blank_regions(rgb, [(0.75, 0.7, 1.0, 1.0)])
    assert (out == (10, 20, 30)).all()
    assert (rgb[7:, 15:] == 255).all()


def test_part_pixels_are_covered_whole() -> None:
    rgb = np.zeros((10, 10, 3), np.uint8)
    rgb[3, 3] = 255
    assert not blank_regions(rgb, [(0.35, 0.35, 0.36, 0.36)]).any()


def test_without_regions_nothing_is_copied() -> None:
    rgb = np.zeros((4, 4, 3), np.uint8)
    assert blank_regions(rgb, []) is rgb


@pytest.mark.parametrize("region", [(0.5, 0, 0.5, 1), (0, 0.9, 1, 0.1), (-0.1, 0, 1, 1), (0, 0, 1, 1.5)])
def test_what_is_no_rectangle_is_refused(region: tuple[float, float, float, float]) -> None:
    with pytest.raises(InvalidValueError, match="region"):
        blank_regions(np.zeros((4, 4, 3), np.uint8), [region])
