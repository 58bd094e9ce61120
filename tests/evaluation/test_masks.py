from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from cotray.errors import DataError
from cotray.evaluation.masks import Fit, ImageFit, fit_of, hausdorff95, image_fit, match_masks, summarise

Mask = NDArray[np.bool_]


def disc(x: float, y: float, r: float, shape: tuple[int, int] = (60, 80)) -> Mask:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= r * r)


def square(x: int, y: int, side: int) -> Mask:
    mask = np.zeros((60, 80), bool)
    mask[y : y + side, x : x + side] = True
    return mask


# ---- boundary distance ---------------------------------------------------------------------------------


def edge(mask: Mask) -> NDArray[np.int64]:
    """Pixels of a mask that have a neighbour (of four) outside."""
    return np.argwhere(mask & ~binary_erosion(np.pad(mask, 1))[1:-1, 1:-1])


def by_the_book(a: Mask, b: Mask) -> float:
    away = cdist(edge(a), edge(b))
    return float(max(np.percentile(away.min(axis=1), 95), np.percentile(away.min(axis=0), 95)))


discs = st.builds(disc, st.integers(10, 70), st.integers(10, 50), st.integers(2, 9))


@settings(max_examples=40, deadline=None)
@given(discs, discs)
def test_boundary_distance_is_the_95th_percentile_of_the_larger_direction(a: Mask, b: Mask) -> None:
    assert hausdorff95(a, b) == pytest.approx(by_the_book(a, b), abs=1e-4)
    assert hausdorff95(b, a) == hausdorff95(a, b)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # MONAI's, of itself
def test_boundary_distance_is_monais_too() -> None:
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    for a, b in ((disc(30, 30, 12), disc(36, 27, 9)), (square(5, 5, 30), disc(60, 40, 8))):
        first, second = (torch.from_numpy(mask)[None, None].float() for mask in (a, b))
        wanted = compute_hausdorff_distance(first, second, include_background=True, percentile=95)
        assert hausdorff95(a, b) == pytest.approx(wanted.item(), abs=1e-4)


def test_a_shifted_square_is_as_far_away_as_it_was_shifted() -> None:
    assert hausdorff95(square(10, 10, 20), square(17, 10, 20)) == 7
    assert hausdorff95(square(10, 10, 20), square(10, 10, 20)) == 0


def test_a_spike_on_one_pixel_in_a_hundred_does_not_count() -> None:
    spiked = square(10, 10, 20)
    spiked[20, 30:40] = True
    assert hausdorff95(spiked, square(10, 10, 20)) < 10, "the spike's tip is ten pixels off"


def test_masks_that_reach_the_edge_of_the_image_have_a_boundary_there() -> None:
    assert hausdorff95(square(0, 0, 20), square(0, 0, 23)) == pytest.approx(
        by_the_book(square(0, 0, 20), square(0, 0, 23))
    )
    assert hausdorff95(np.ones((9, 9), bool), np.ones((9, 9), bool)) == 0


def test_an_empty_mask_has_no_distance_and_sizes_must_agree() -> None:
    assert np.isnan(hausdorff95(np.zeros((60, 80), bool), square(1, 1, 9)))
    assert np.isnan(hausdorff95(square(1, 1, 9), np.zeros((60, 80), bool)))
    with pytest.raises(DataError, match="cannot be compared"):
        hausdorff95(np.ones((4, 4), bool), np.ones((4, 5), bool))


# ---- cells of an image ---------------------------------------------------------------------------------


def test_the_fit_of_a_half_covered_square() -> None:
    fit = fit_of(square(10, 10, 20) & (np.arange(80) < 20), square(10, 10, 20))
    assert (fit.dice, fit.iou, fit.hausdorff95) == pytest.approx((2 / 3, 0.5, 10))


def test_cells_are_matched_one_to_one_by_the_greatest_sum() -> None:
    left, right = disc(20, 30, 10), disc(34, 30, 10)
    both = left | right
    assert match_masks([both, left], [left, right]) == [1, 0], "the large mask is left for the other cell"
    assert match_masks([right], [left & ~right, right]) == [None, 0]
    assert match_masks([], [left]) == [None]
    assert match_masks([left], []) == []


def test_an_image_counts_what_was_missed_and_what_was_too_much() -> None:
    left, right, elsewhere, empty = (
        disc(20, 20, 8),
        disc(60, 20, 8),
        disc(40, 50, 5),
        np.zeros((60, 80), bool),
    )
    fit = image_fit([elsewhere, right, empty], [left, right])
    assert (fit.missed, fit.extra) == (1, 1), "an empty mask is no mask"
    assert fit.cells[0].iou == fit.cells[0].dice == 0.0 and np.isnan(fit.cells[0].hausdorff95)
    assert fit.cells[1] == Fit(1.0, 1.0, 0.0)
    assert fit.mean("iou") == 0.5
    assert fit.mean("hausdorff95") == 0.0, "over the cells that were found"
    assert np.isnan(ImageFit((), 0, 1).mean("iou"))


# ---- over images ---------------------------------------------------------------------------------------


def test_mean_median_and_count_leave_out_what_is_not_there() -> None:
    found = summarise([0.2, 0.4, np.nan, 0.9], ["a", "b", "c", "d"], n=50)
    assert (found.mean, found.median, found.count) == (pytest.approx(0.5), 0.4, 3)


def test_intervals_hold_the_true_mean_about_as_often_as_they_say() -> None:
    rng, held = np.random.default_rng(0), 0
    for trial in range(100):
        values = rng.normal(0.8, 0.1, 25)
        low, high = summarise(values, np.arange(25), n=200, seed=trial).mean_interval
        held += int(low <= 0.8 <= high)
    assert 0.90 <= held / 100 <= 0.99


def test_images_of_one_group_are_no_independent_evidence() -> None:
    rng = np.random.default_rng(1)
    of_group = rng.normal(0.8, 0.1, 8)
    values, groups = np.repeat(of_group, 10), np.repeat(np.arange(8), 10)
    whole = summarise(values, groups, n=500).mean_interval
    alone = summarise(values, np.arange(80), n=500).mean_interval
    assert whole[1] - whole[0] > 2 * (alone[1] - alone[0])
    thin = summarise(of_group, np.arange(8), n=500).mean_interval
    assert whole == pytest.approx(thin), "ten copies say no more than one"


def test_a_single_group_has_no_interval() -> None:
    found = summarise([0.5, 0.7], ["a", "a"])
    assert found.mean == pytest.approx(0.6)
    assert np.isnan([*found.mean_interval, *found.median_interval]).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_an_interval_holds_its_figure_and_the_same_seed_gives_the_same(values: list[float]) -> None:
    groups = list(range(len(values)))
    found = summarise(values, groups, n=40, seed=3)
    assert found.mean_interval[0] <= found.mean <= found.mean_interval[1]
    assert found.median_interval[0] <= found.median <= found.median_interval[1]
    assert min(values) <= found.mean_interval[0] + 1e-9 and found.mean_interval[1] <= max(values) + 1e-9
    assert summarise(values, groups, n=40, seed=3) == found


def test_what_cannot_be_summarised_is_refused() -> None:
    with pytest.raises(DataError, match="needs a group"):
        summarise([0.1, 0.2], ["a"])
    with pytest.raises(DataError, match="no value"):
        summarise([np.nan], ["a"])
