"""Stained nuclei: how purple each pixel is, which pieces that makes, and which pieces are one nucleus.

Shapes: h w pixels of the working copy that :mod:`cotray.imaging.roi` makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cotray.config import RoiConfig
from cotray.imaging.regions import lit_on_black

Plane = NDArray[np.uint8]
Points = NDArray[np.int32]

# Chosen on the even-numbered half of BCCD and looked at on ALL-IDB2, JTSC, C-NMC and Taleqani images.
MIN_CONTRAST = 16
"""Contrast (of 255) below which nothing counts as stain: keeps Otsu from splitting an empty field."""
NECK = 0.75
"""Touching nuclei part where the neck's half width is below this share of the smaller one's radius."""
PEAK_REACH = 4
"""Pixels around a nucleus' middle in which nothing lies deeper inside the stain."""
SHALLOW, MOST_PEAKS = 0.3, 48
"""Depths below this share of the deepest are no middle; more middles than this are not looked at."""
LOBE_GAP, LOBE_FILL = 0.3, 0.35
"""Lobes join when the gap is below this share of the smaller one's size (root of its area), and when
together they fill at least this share of their enclosing circle."""
SINGLE_GAP, SINGLE_FILL = 0.6, 0.25
"""The same where the image is known to hold one cell."""
MANY = 3
"""From this many nuclei on, the image itself tells how large a nucleus is, and limits what joins."""
JOINED_AREA = 1.3
"""Joined lobes are at most this many usual nuclei large, where there are MANY."""
SMALLEST = 0.2
"""Nuclei smaller than this share of the largest are platelets or debris."""


@dataclass(frozen=True)
class Nucleus:
    """One piece of stain, or several lobes."""

    points: Points
    """Outline points (n, 2), x and y."""
    area: float
    """Pixels of all lobes."""
    lobe: float
    """Pixels of the largest lobe."""


def stain_contrast(rgb: NDArray[np.uint8]) -> Plane:
    """How much more purple than the background each pixel is: (h, w) uint8.

    After white balance, min(B - G, B + R - 2 G): nuclear stain absorbs green most. Red cells absorb blue
    as much as green (first term), bluish ones red more than green (second term). On a black background,
    what is not black has full contrast.
    """
    lit = lit_on_black(rgb)
    if lit is not None:
        return lit.astype(np.uint8) * 255
    smooth = cv2.blur(rgb, (5, 5))
    coarse = smooth[::4, ::4].reshape(-1, 3)
    brightness = coarse.astype(np.int32).sum(axis=1)
    light = coarse[brightness >= np.percentile(brightness, 75)]
    white = np.maximum(np.median(light, axis=0), 1.0).astype(np.float32)
    planes = zip(cv2.split(smooth), np.float32(255) / white, strict=True)
    red, green, blue = (cv2.multiply(plane, float(gain), dtype=cv2.CV_32F) for plane, gain in planes)
    purple = cv2.min(cv2.subtract(blue, green), cv2.scaleAdd(green, -2.0, cv2.add(blue, red)))
    return np.asarray(np.clip(purple, 0, 255), np.uint8)


def stain_level(contrast: Plane) -> float:
    """Otsu's threshold, never below MIN_CONTRAST."""
    level, _ = cv2.threshold(contrast, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return max(float(level), float(MIN_CONTRAST))


def find_nuclei(stained: NDArray[np.bool_], cfg: RoiConfig, *, single: bool) -> list[Nucleus]:
    """Nuclei of a (h, w) mask of stained pixels, within ``cfg.min_area``..``cfg.max_area`` of it."""
    pieces = _pieces(stained, cfg)
    nuclei = _join_inner(pieces, stained.shape) if single else _join_lobes(pieces)
    largest = max((nucleus.area for nucleus in nuclei), default=0.0)
    low = max(cfg.min_area * stained.size, SMALLEST * largest)
    return [n for n in nuclei if low <= n.area <= cfg.max_area * stained.size]


# ---- pieces ----------------------------------------------------------------------------------------


def _pieces(stained: NDArray[np.bool_], cfg: RoiConfig) -> list[Nucleus]:
    """Connected pieces, touching ones parted, specks left out, the largest first."""
    mask = cv2.morphologyEx(stained.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    speck = SMALLEST * cfg.min_area * mask.size
    labels = _part_touching(mask, speck) if cfg.split_touching else cv2.connectedComponents(mask)[1]
    areas = np.bincount(labels.ravel()).astype(float)
    areas[0] = 0
    order = np.argsort(-areas, kind="stable")[: 3 * cfg.max_cells]
    return [Nucleus(_outline(labels == n), areas[n], areas[n]) for n in order if areas[n] > speck]


def _part_touching(mask: Plane, speck: float) -> NDArray[np.int32]:
    """Labels (h, w) of the pieces of ``mask`` above ``speck`` pixels, 0 elsewhere.

    A component with several bodies is cut by the power diagram of their inscribed discs, which puts the
    cut between two overlapping discs on their common chord.
    """
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    _, components, stats, _ = cv2.connectedComponentsWithStats(mask)
    out = np.zeros(mask.shape, np.int32)
    for n in np.flatnonzero(stats[:, cv2.CC_STAT_AREA] > speck)[1:]:
        x0, y0, width, height = stats[n, :4]
        window = np.s_[y0 : y0 + height, x0 : x0 + width]
        own = components[window] == n
        out[window][own] = out.max() + _bodies(np.where(own, depth[window], 0))[own]
    return out


def _bodies(depth: NDArray[np.float32]) -> NDArray[np.int32]:
    """Label from 1 on of the body that each pixel of one component belongs to; (h, w)."""
    peaks = _peaks(depth)
    radius = depth[peaks[:, 1], peaks[:, 0]]
    label = _one_per_body(peaks, depth)
    out = np.ones(depth.shape, np.int32)
    if len(set(label)) == 1:
        return out
    ys, xs = np.nonzero(depth)
    power = np.square(xs[:, None] - peaks[:, 0]) + np.square(ys[:, None] - peaks[:, 1]) - np.square(radius)
    out[ys, xs] = label[np.argmin(power, axis=1)]
    return out


def _peaks(depth: NDArray[np.float32]) -> Points:
    """One (x, y) for every local maximum of depth: no deeper pixel within PEAK_REACH; at most MOST_PEAKS."""
    window = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * PEAK_REACH + 1, 2 * PEAK_REACH + 1))
    highest = (depth >= cv2.dilate(depth, window)) & (depth > SHALLOW * depth.max())
    _, _, _, middles = cv2.connectedComponentsWithStats(highest.astype(np.uint8))
    peaks = np.round(middles[1:]).astype(np.int32)  # a plateau's middle stands for it
    order = np.argsort(-depth[peaks[:, 1], peaks[:, 0]], kind="stable")
    return np.asarray(peaks[order[:MOST_PEAKS]])


def _one_per_body(peaks: Points, depth: NDArray[np.float32]) -> NDArray[np.int32]:
    """For every peak a label from 1 on; the same one where the straight way between two has no neck.

    There is a neck where the way gets shallower than NECK times the shallower peak.
    """
    label = np.arange(1, len(peaks) + 1, dtype=np.int32)
    radius = depth[peaks[:, 1], peaks[:, 0]]
    for a in range(len(peaks)):
        for b in range(a):
            steps = int(np.abs(peaks[a] - peaks[b]).max()) + 1
            xs, ys = np.linspace(peaks[a], peaks[b], steps).round().astype(int).T
            if depth[ys, xs].min() >= NECK * min(radius[a], radius[b]):
                label[label == label[a]] = label[b]
    return label


def _outline(piece: NDArray[np.bool_]) -> Points:
    contours, _ = cv2.findContours(piece.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.concatenate([np.asarray(contour, np.int32)[:, 0] for contour in contours])


# ---- lobes -----------------------------------------------------------------------------------------


def _join_inner(pieces: Sequence[Nucleus], shape: tuple[int, ...]) -> list[Nucleus]:
    """Lobes of a one-cell image: joined freely, but never with a neighbour that the edge cuts."""
    last = np.array([shape[1], shape[0]]) - 2
    cut = [n for n in pieces if n.points.min() <= 1 or (n.points >= last).any()]
    inner = [n for n in pieces if not any(n is other for other in cut)]
    return _join(inner, SINGLE_GAP, SINGLE_FILL, np.inf) + _join(cut, LOBE_GAP, LOBE_FILL, np.inf)


def _join_lobes(pieces: Sequence[Nucleus]) -> list[Nucleus]:
    """Lobes of a field: joined; where there are MANY nuclei, none becomes larger than usual."""
    joined = _join(pieces, LOBE_GAP, LOBE_FILL, np.inf)
    largest = max((nucleus.area for nucleus in joined), default=0.0)
    lobes = [nucleus.lobe for nucleus in joined if nucleus.area > SMALLEST * largest]
    if len(lobes) < MANY:
        return joined
    return _join(pieces, LOBE_GAP, LOBE_FILL, JOINED_AREA * float(np.median(lobes)))


def _join(pieces: Sequence[Nucleus], gap: float, fill: float, limit: float) -> list[Nucleus]:
    """Join the nearest two that may join, until none may. ``limit``: largest joint area in pixels."""
    nuclei = list(pieces)
    gaps = {(a, b): _gap(nuclei[a], nuclei[b], gap) for b in range(len(nuclei)) for a in range(b)}
    alive = set(range(len(nuclei)))
    while gaps:
        (a, b), nearest = min(gaps.items(), key=lambda item: item[1])
        if not np.isfinite(nearest):
            break
        both = _together(nuclei[a], nuclei[b])
        if both.area > limit or _fill(both) < fill:
            gaps[a, b] = np.inf
            continue
        alive -= {a, b}
        gaps = {pair: value for pair, value in gaps.items() if a not in pair and b not in pair}
        gaps |= {(other, len(nuclei)): _gap(nuclei[other], both, gap) for other in alive}
        alive.add(len(nuclei))
        nuclei.append(both)
    return [nuclei[n] for n in sorted(alive)]


def _gap(a: Nucleus, b: Nucleus, reach: float) -> float:
    """Pixels between two outlines; infinite where above ``reach`` times the smaller one's size."""
    most = reach * min(a.area, b.area) ** 0.5
    boxes = np.maximum(a.points.min(0) - b.points.max(0), b.points.min(0) - a.points.max(0)).max()
    if boxes - 1 > most:  # cheap, and true of most pairs
        return float("inf")
    between = float(cdist(a.points[::2], b.points[::2]).min()) - 1
    return between if between <= most else float("inf")


def _together(a: Nucleus, b: Nucleus) -> Nucleus:
    return Nucleus(np.concatenate([a.points, b.points]), a.area + b.area, max(a.lobe, b.lobe))


def _fill(nucleus: Nucleus) -> float:
    """Share of the enclosing circle that is stained."""
    _, radius = cv2.minEnclosingCircle(nucleus.points)
    return nucleus.area / (np.pi * max(float(radius), 0.5) ** 2)
