"""How well masks fit: Dice, IoU and boundary distance of cells and images, with intervals over groups.

Shapes: H W pixels, N images (or other items), F found masks, T true masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

from cotray.errors import DataError
from cotray.evaluation.intervals import tail_of
from cotray.imaging.masks import Mask, dice, iou, mask_box


@dataclass(frozen=True)
class Fit:
    """How one found cell fits the true one."""

    dice: float
    iou: float
    hausdorff95: float
    """Pixels; NaN where there is nothing to measure from: no cell was found."""


@dataclass(frozen=True)
class ImageFit:
    """How the cells found in one image fit the true ones."""

    cells: tuple[Fit, ...]
    """One per true cell; one that was not found has Dice and IoU 0."""
    missed: int
    extra: int
    """Found masks that no true cell was left for."""

    def mean(self, name: str) -> float:
        """Mean over the true cells of ``dice``, ``iou`` or ``hausdorff95`` (of found ones); NaN without."""
        values = [value for value in (getattr(cell, name) for cell in self.cells) if not np.isnan(value)]
        return float(np.mean(values)) if values else float("nan")


@dataclass(frozen=True)
class Summary:
    """A figure over images, with 95% (or another) intervals."""

    mean: float
    mean_interval: tuple[float, float]
    median: float
    median_interval: tuple[float, float]
    count: int
    """Images that have the figure."""


def hausdorff95(a: Mask, b: Mask) -> float:
    """95th percentile of the distances between two boundaries, in pixels; the larger direction.

    A boundary is made of a mask's pixels with a neighbour (of four) outside; what is beyond the image is
    outside. NaN where a mask is empty. Raises DataError where sizes differ.
    """
    if a.shape != b.shape:
        raise DataError(f"Masks of {a.shape} and {b.shape} pixels cannot be compared.")
    if not a.any() or not b.any():
        return float("nan")
    x0, y0, x1, y1 = mask_box(a | b) or (0, 0, 0, 0)
    edges = [part & ~binary_erosion(part) for part in (np.pad(m[y0:y1, x0:x1], 1) for m in (a, b))]
    there, back = (distance_transform_edt(~edges[1])[edges[0]], distance_transform_edt(~edges[0])[edges[1]])
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def fit_of(found: Mask, true: Mask) -> Fit:
    """Dice, IoU and boundary distance of one mask."""
    return Fit(dice(found, true), iou(found, true), hausdorff95(found, true))


def match_masks(found: Sequence[Mask], true: Sequence[Mask]) -> list[int | None]:
    """For every true mask the found one that is its own: one to one, the greatest sum of IoUs."""
    from scipy.optimize import linear_sum_assignment  # slow to import

    worth_TF = np.array([[iou(one, cell) for one in found] for cell in true]).reshape(len(true), len(found))
    owner: list[int | None] = [None] * len(true)
    for row, column in zip(*linear_sum_assignment(-worth_TF), strict=True):
        if worth_TF[row, column] > 0:
            owner[int(row)] = int(column)
    return owner


def image_fit(found: Sequence[Mask], true: Sequence[Mask]) -> ImageFit:
    """Cells of one image, matched one to one. Empty found masks count as none."""
    found = [mask for mask in found if mask.any()]
    owner = match_masks(found, true)
    nothing = Fit(0.0, 0.0, float("nan"))
    cells = [nothing if o is None else fit_of(found[o], cell) for o, cell in zip(owner, true, strict=True)]
    missed = owner.count(None)
    return ImageFit(tuple(cells), missed, len(found) - (len(true) - missed))


def summarise(
    values: ArrayLike, groups: ArrayLike, n: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Summary:
    """Mean and median of an image's figure, with bootstrap intervals from ``n`` resamples of whole groups.

    NaNs are left out. Quantiles are widened for few groups as in :mod:`cotray.evaluation.intervals`; one
    group alone says nothing about others, and has NaN intervals. Same seed, same intervals.
    Raises DataError where lengths differ or no value is left.
    """
    value_N, group_N = np.asarray(values, np.float64), np.asarray(groups)
    if value_N.shape != group_N.shape:
        raise DataError(f"Each value needs a group, got {value_N.shape} values and {group_N.shape} groups.")
    kept = ~np.isnan(value_N)
    if not kept.any():
        raise DataError("There is no value to summarise.")
    value_N, group_N = value_N[kept], group_N[kept]
    members = [np.flatnonzero(group_N == name) for name in np.unique(group_N)]
    drawn_R2 = _drawn(value_N, members, n, np.random.default_rng(seed))
    centre = np.array([value_N.mean(), np.median(value_N)])
    low, high = _bounds(drawn_R2, centre, len(members), 1 - confidence)
    mean, median = ((float(low[i]), float(high[i])) for i in range(2))
    return Summary(float(centre[0]), mean, float(centre[1]), median, len(value_N))


def _drawn(
    value_N: NDArray[np.float64], members: list[NDArray[np.int64]], n: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(n, 2): mean and median of each resample of whole groups."""
    out = np.empty((n, 2))
    for row in range(n):
        picks = rng.integers(len(members), size=len(members))
        sample = value_N[np.concatenate([members[pick] for pick in picks])]
        out[row] = sample.mean(), np.median(sample)
    return out


def _bounds(
    drawn_R2: NDArray[np.float64], centre: NDArray[np.float64], groups: int, alpha: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if groups < 2:
        nothing = np.full_like(centre, np.nan)
        return nothing, nothing
    tail = tail_of(groups, alpha)
    low, high = np.quantile(drawn_R2, (tail, 1 - tail), axis=0)
    return np.minimum(low, centre), np.maximum(high, centre)
