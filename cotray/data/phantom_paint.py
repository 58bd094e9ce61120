"""Painting phantom smears: background, red cells and leukocytes, with numpy and OpenCV.

Pictures are float32 RGB in 0..255 while they are painted. H W pixels, h w a window of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]
Mask = NDArray[np.bool_]
Rng = np.random.Generator
Point = tuple[float, float]
Colour = NDArray[np.float32]

PLASMA = np.array((222.0, 212.0, 214.0))
# Optical densities of R, G, B over the plasma, as in photographs of Wright- and Giemsa-stained smears.
RED, CYTOPLASM, NUCLEUS = (0.14, 0.38, 0.36), (0.34, 0.42, 0.10), (0.85, 1.55, 0.50)

ANGLES = np.linspace(0, 2 * np.pi, 96, endpoint=False)
ORDERS = np.arange(2, 7)[:, None]
COARSE = 4
"""Noise of a grain above this many pixels is drawn on a coarser grid and enlarged."""
ROOM = 8
"""Pixels around a cell in which it is painted, its soft edge included."""


@dataclass(frozen=True)
class Style:
    """How one subject's smear looks; drawn from the same distribution for both classes."""

    background: Colour
    red: Colour
    cytoplasm: Colour
    nucleus: Colour
    light: Point
    """Direction and strength of the illumination's slope."""
    blur: float
    noise: float
    size: float
    """Magnification."""


def draw_style(rng: Rng) -> Style:
    """One subject's stain, light, focus and magnification."""
    plasma = np.asarray(PLASMA + rng.normal(0, 8) + rng.normal(0, 5, 3), np.float32)

    def stained(density: tuple[float, float, float], low: float, high: float) -> Colour:
        strength = rng.uniform(low, high) * rng.normal(1, 0.08, 3)
        return np.asarray(plasma * np.exp(-strength * np.asarray(density)), np.float32)

    return Style(
        background=plasma,
        red=stained(RED, 0.7, 1.4),
        cytoplasm=stained(CYTOPLASM, 0.6, 1.6),
        nucleus=stained(NUCLEUS, 0.75, 1.3),
        light=(float(rng.normal(0, 10)), float(rng.normal(0, 10))),
        blur=float(rng.uniform(0.5, 1.3)),
        noise=float(rng.uniform(1.5, 4.5)),
        size=float(rng.uniform(0.85, 1.25)),
    )


def noise_field(shape: tuple[int, int], grain: float, rng: Rng) -> NDArray[np.float32]:
    """Smooth noise with mean 0 and deviation 1; ``grain`` is the blur in pixels."""
    if grain > COARSE:
        height, width = (side // COARSE + 2 for side in shape)
        coarse = noise_field((height, width), grain / COARSE, rng)
        return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_LINEAR))
    field = cv2.GaussianBlur(rng.standard_normal(shape, np.float32), (0, 0), max(grain, 0.3))
    mean, spread = cv2.meanStdDev(field)
    return np.asarray((field - np.float32(mean[0, 0])) / np.float32(spread[0, 0] + 1e-6))


def blob(shape: tuple[int, int], centre: Point, radius: float, rough: float, rng: Rng) -> Mask:
    """A filled closed curve: a circle whose radius wobbles by ``rough`` in low harmonics."""
    weight = rng.standard_normal((5, 1)) / ORDERS
    wobble = (weight * np.cos(ORDERS * ANGLES + rng.uniform(0, 2 * np.pi, (5, 1)))).sum(axis=0)
    reach = radius * (1 + rough * wobble)
    points = np.stack([centre[0] + reach * np.cos(ANGLES), centre[1] + reach * np.sin(ANGLES)], axis=1)
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [points.round().astype(np.int32)], 1)
    return canvas.view(np.bool_)


def lay(picture: Picture, mask: Mask, colour: NDArray[np.float32], soft: float = 0.8) -> None:
    """Lay a colour (3,) or picture (H, W, 3) over the mask, with a soft edge; only its box is touched."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    pad = int(3 * soft) + 1
    rows = slice(max(0, y - pad), y + height + pad)
    cols = slice(max(0, x - pad), x + width + pad)
    alpha = cv2.GaussianBlur(mask[rows, cols].astype(np.float32), (0, 0), soft)[..., None]
    paint = colour[rows, cols] if colour.ndim == 3 else colour
    picture[rows, cols] += alpha * (np.asarray(paint, np.float32) - picture[rows, cols])


def paint_background(shape: tuple[int, int], style: Style, rng: Rng) -> Picture:
    """Plasma, with a little texture."""
    return np.asarray(style.background + 2.0 * noise_field(shape, 6.0, rng)[..., None], np.float32)


def paint_red_cells(picture: Picture, count: int, style: Style, rng: Rng) -> None:
    """Overlapping discs with pale centres, and a few platelets."""
    shape = picture.shape[:2]
    pale = 0.55 * style.red + 0.45 * style.background
    for _ in range(count):
        place, radius = _anywhere(shape, rng), style.size * float(rng.uniform(24, 30))
        rows, cols, centre = _window(shape, place, 1.25 * radius + ROOM)
        window = picture[rows, cols]
        disc, middle = (blob(window.shape[:2], centre, radius * part, 0.03, rng) for part in (1.0, 0.45))
        lay(window, disc, style.red + rng.normal(0, 4), 1.2)
        lay(window, middle, pale, 4.0)
    for _ in range(int(rng.integers(0, 4))):
        spot = blob(shape, _anywhere(shape, rng), style.size * rng.uniform(3, 6), 0.15, rng)
        lay(picture, spot, style.nucleus * 1.2)


def _anywhere(shape: tuple[int, ...], rng: Rng) -> Point:
    return float(rng.uniform(0, shape[1])), float(rng.uniform(0, shape[0]))


def paint_leukocyte(picture: Picture, centre: Point, label: int, style: Style, rng: Rng) -> tuple[Mask, Mask]:
    """A leukocyte on (H, W, 3) ``picture``; returns (H, W) masks of the whole cell and its nucleus.

    Malignant ones have a larger share of nucleus, fine chromatin, nucleoli and an uneven contour; normal
    ones less nucleus, clumped chromatin and sometimes lobes and granules. Colours and the contrast of
    chromatin are drawn alike for both. A larger share of nucleus is half paid for by a smaller cell, so
    that the area of dark purple tells little; the distributions of the rest overlap.
    """
    share = float(np.clip(rng.normal(0.66 if label else 0.60, 0.08), 0.35, 0.9))
    radius = style.size * float(np.clip(rng.normal(46, 7), 30, 62)) * (0.63 / share) ** 0.3
    rows, cols, middle = _window(picture.shape[:2], centre, 1.25 * radius + ROOM)
    cell, nucleus = _paint_cell(picture[rows, cols], middle, radius, share, label, style, rng)
    whole, core = np.zeros(picture.shape[:2], bool), np.zeros(picture.shape[:2], bool)
    whole[rows, cols], core[rows, cols] = cell, nucleus
    return whole, core


def _window(shape: tuple[int, ...], centre: Point, reach: float) -> tuple[slice, slice, Point]:
    """Rows, columns, and where the centre lies among them; painting there costs less than on the whole."""
    x, y = centre
    rows = slice(max(0, int(y - reach)), min(shape[0], int(y + reach) + 1))
    cols = slice(max(0, int(x - reach)), min(shape[1], int(x + reach) + 1))
    return rows, cols, (x - cols.start, y - rows.start)


def _paint_cell(
    window: Picture, centre: Point, radius: float, share: float, label: int, style: Style, rng: Rng
) -> tuple[Mask, Mask]:
    shape = window.shape[:2]
    lobes = 1 if label or rng.random() < 0.7 else int(rng.integers(2, 5))
    cell = blob(shape, centre, radius, 0.05, rng)
    nucleus = _nucleus(shape, centre, radius, share, lobes, label, rng) & cell
    tint = np.asarray(rng.normal(0, 5, 3), np.float32)
    lay(window, cell, style.cytoplasm + tint + 5.0 * noise_field(shape, 4.0, rng)[..., None])
    if lobes > 1:
        _granules(window, cell & ~nucleus, style, rng)
    grain = float(rng.normal(1.3, 0.3) if label else rng.normal(2.7, 0.6)) * style.size
    chromatin = rng.uniform(9, 16) * noise_field(shape, max(grain, 0.5), rng)[..., None]
    lay(window, nucleus, style.nucleus + tint + chromatin)
    if label and rng.random() < 0.8:
        _nucleoli(window, nucleus, style, rng)
    return cell, nucleus


def _nucleus(
    shape: tuple[int, int], centre: Point, radius: float, share: float, lobes: int, label: int, rng: Rng
) -> Mask:
    """One body off centre, or several lobes on an arc, of about ``share`` of the cell's area."""
    reach = radius * np.sqrt(share)
    if lobes == 1:
        shift = rng.normal(0, 0.25, 2) * (radius - reach)
        rough = float(abs(rng.normal(0.07 if label else 0.04, 0.02)))
        return blob(shape, (centre[0] + shift[0], centre[1] + shift[1]), reach, rough, rng)
    out = np.zeros(shape, bool)
    start = rng.uniform(0, 2 * np.pi)
    for number in range(lobes):
        angle = start + number * 1.3
        place = (centre[0] + 0.47 * radius * np.cos(angle), centre[1] + 0.47 * radius * np.sin(angle))
        out |= blob(shape, place, reach / np.sqrt(lobes) * 1.12, 0.08, rng)
    return out


def _granules(picture: Picture, where: Mask, style: Style, rng: Rng) -> None:
    ys, xs = np.nonzero(where)
    shade = (0.5 * style.nucleus + 0.5 * style.cytoplasm).tolist()
    for pick in rng.integers(0, len(ys), 40) if len(ys) else []:
        cv2.circle(picture, (int(xs[pick]), int(ys[pick])), 1, shade, -1)


def _nucleoli(picture: Picture, nucleus: Mask, style: Style, rng: Rng) -> None:
    ys, xs = np.nonzero(cv2.erode(nucleus.view(np.uint8), np.ones((9, 9), np.uint8)))
    if not len(ys):
        return
    for pick in rng.integers(0, len(ys), int(rng.integers(1, 4))):
        spot = blob(nucleus.shape, (xs[pick], ys[pick]), style.size * rng.uniform(3.5, 6), 0.1, rng)
        lay(picture, spot & nucleus, style.nucleus + np.float32(26), 1.5)


def expose(picture: Picture, style: Style, rng: Rng) -> NDArray[np.uint8]:
    """Light falling off, lens blur, sensor noise -> uint8. ``picture`` (H, W, 3) is used up."""
    height, width = picture.shape[:2]
    slope_x = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(style.light[0])
    slope_y = np.linspace(-1, 1, height, dtype=np.float32) * np.float32(style.light[1])
    picture += (slope_x[None, :] + slope_y[:, None])[..., None]
    soft = cv2.GaussianBlur(picture, (0, 0), style.blur)
    grain = rng.standard_normal(soft.shape, np.float32)
    cv2.scaleAdd(grain, style.noise, soft, soft)
    return np.asarray(np.clip(soft, 0, 255, out=soft), np.uint8)
