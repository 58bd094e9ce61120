"""Painting phantom smears: background, red cells and leukocytes, with numpy and OpenCV.

Pictures are float32 RGB in 0..255 while they are painted. H W pixels.
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


@dataclass(frozen=True)
class Style:
    """How one subject's smear looks; drawn from the same distribution for both classes."""

    background: NDArray[np.float32]
    red: NDArray[np.float32]
    cytoplasm: NDArray[np.float32]
    nucleus: NDArray[np.float32]
    light: Point
    """Direction and strength of the illumination's slope."""
    blur: float
    noise: float
    size: float
    """Magnification."""


def draw_style(rng: Rng) -> Style:
    """One subject's stain, light, focus and magnification."""

    def colour(mean: tuple[int, int, int], spread: float) -> NDArray[np.float32]:
        return np.asarray(rng.normal(mean, spread), np.float32)

    return Style(
        background=colour((222, 210, 216), 8),
        red=colour((196, 150, 158), 10),
        cytoplasm=colour((176, 158, 204), 10),
        nucleus=colour((112, 62, 142), 12),
        light=(float(rng.normal(0, 12)), float(rng.normal(0, 12))),
        blur=float(rng.uniform(0.5, 1.3)),
        noise=float(rng.uniform(1.5, 4.5)),
        size=float(rng.uniform(0.8, 1.2)),
    )


def noise_field(shape: tuple[int, int], grain: float, rng: Rng) -> NDArray[np.float32]:
    """Smooth noise with mean 0 and deviation 1; ``grain`` is the blur in pixels."""
    field = cv2.GaussianBlur(rng.standard_normal(shape, np.float32), (0, 0), max(grain, 0.3))
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), np.float32)


def blob(shape: tuple[int, int], centre: Point, radius: float, rough: float, rng: Rng) -> Mask:
    """A filled closed curve: a circle whose radius wobbles by ``rough`` in low harmonics."""
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    wobble = np.zeros_like(angle)
    for order in range(2, 7):
        wobble += rng.normal(0, 1 / order) * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    reach = radius * (1 + rough * wobble)
    points = np.stack([centre[0] + reach * np.cos(angle), centre[1] + reach * np.sin(angle)], axis=1)
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [points.round().astype(np.int32)], 1)
    return canvas.astype(bool)


def lay(picture: Picture, mask: Mask, colour: NDArray[np.float32], soft: float = 0.8) -> None:
    """Lay a colour (3,) or picture (H, W, 3) over the mask, with a soft edge; only its box is touched."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    pad = int(4 * soft) + 1
    rows = slice(max(0, y - pad), y + height + pad)
    cols = slice(max(0, x - pad), x + width + pad)
    alpha = cv2.GaussianBlur(mask[rows, cols].astype(np.float32), (0, 0), soft)[..., None]
    paint = colour[rows, cols] if colour.ndim == 3 else colour
    picture[rows, cols] += alpha * (np.asarray(paint, np.float32) - picture[rows, cols])


def paint_background(shape: tuple[int, int], style: Style, rng: Rng) -> Picture:
    """Plasma, with a little texture."""
    picture = np.empty((*shape, 3), np.float32)
    picture[:] = style.background
    return picture + 2.0 * noise_field(shape, 6.0, rng)[..., None]


def paint_red_cells(picture: Picture, count: int, style: Style, rng: Rng) -> None:
    """Overlapping discs with pale centres, and a few platelets."""
    shape = picture.shape[:2]
    for _ in range(count):
        centre = (float(rng.uniform(0, shape[1])), float(rng.uniform(0, shape[0])))
        radius = style.size * float(rng.uniform(24, 30))
        lay(picture, blob(shape, centre, radius, 0.03, rng), style.red + rng.normal(0, 4), 1.2)
        pale = 0.55 * style.red + 0.45 * style.background
        lay(picture, blob(shape, centre, radius * 0.45, 0.05, rng), pale.astype(np.float32), 4.0)
    for _ in range(int(rng.integers(0, 4))):
        centre = (float(rng.uniform(0, shape[1])), float(rng.uniform(0, shape[0])))
        lay(picture, blob(shape, centre, style.size * rng.uniform(3, 6), 0.15, rng), style.nucleus * 1.2)


def paint_leukocyte(picture: Picture, centre: Point, label: int, style: Style, rng: Rng) -> tuple[Mask, Mask]:
    """A leukocyte; returns (cell, nucleus) masks.

    Malignant ones have a larger share of nucleus, fine chromatin, nucleoli and a cleft contour; normal
    ones less nucleus, clumped chromatin and sometimes lobes and granules. Size, colour and contrast of
    chromatin are drawn alike for both; the distributions of the rest overlap.
    """
    shape = picture.shape[:2]
    radius = style.size * float(np.clip(rng.normal(46, 6), 32, 60))
    cell = blob(shape, centre, radius, 0.05, rng)
    share = float(np.clip(rng.normal(0.70 if label else 0.56, 0.08), 0.35, 0.9))
    tint = np.asarray(rng.normal(0, 5, 3), np.float32)
    texture = 5.0 * noise_field(shape, 4.0, rng)[..., None]
    lay(picture, cell, style.cytoplasm + tint + texture)
    lobes = 1 if label or rng.random() < 0.7 else int(rng.integers(2, 5))
    nucleus = _nucleus(shape, centre, radius, share, lobes, label, rng) & cell
    if not label and lobes > 1:
        _granules(picture, cell & ~nucleus, style, rng)
    grain = float(rng.normal(1.3, 0.35) if label else rng.normal(2.5, 0.6)) * style.size
    chromatin = rng.uniform(10, 17) * noise_field(shape, max(grain, 0.5), rng)[..., None]
    lay(picture, nucleus, style.nucleus + tint + chromatin)
    if label and rng.random() < 0.8:
        _nucleoli(picture, nucleus, style, rng)
    return cell | nucleus, nucleus


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
        place = (centre[0] + 0.42 * radius * np.cos(angle), centre[1] + 0.42 * radius * np.sin(angle))
        out |= blob(shape, place, reach / np.sqrt(lobes) * 1.05, 0.08, rng)
    return out


def _granules(picture: Picture, where: Mask, style: Style, rng: Rng) -> None:
    ys, xs = np.nonzero(where)
    for pick in rng.integers(0, len(ys), min(len(ys), 40)) if len(ys) else []:
        colour = (0.6 * style.nucleus + 0.4 * style.cytoplasm).astype(np.float32).tolist()
        cv2.circle(picture, (int(xs[pick]), int(ys[pick])), 1, colour, -1, cv2.LINE_AA)


def _nucleoli(picture: Picture, nucleus: Mask, style: Style, rng: Rng) -> None:
    ys, xs = np.nonzero(cv2.erode(nucleus.astype(np.uint8), np.ones((9, 9), np.uint8)))
    if not len(ys):
        return
    for pick in rng.integers(0, len(ys), int(rng.integers(1, 4))):
        spot = blob(nucleus.shape, (xs[pick], ys[pick]), style.size * rng.uniform(3.5, 6), 0.1, rng)
        lay(picture, spot & nucleus, style.nucleus + np.float32(26), 1.5)


def expose(picture: Picture, style: Style, rng: Rng) -> NDArray[np.uint8]:
    """Light falling off, lens blur, sensor noise -> uint8."""
    height, width = picture.shape[:2]
    slope_x = np.linspace(-1, 1, width, dtype=np.float32) * style.light[0]
    slope_y = np.linspace(-1, 1, height, dtype=np.float32) * style.light[1]
    lit = picture + (slope_x[None, :] + slope_y[:, None])[..., None]
    soft = cv2.GaussianBlur(lit, (0, 0), style.blur)
    noisy = soft + rng.standard_normal(soft.shape, np.float32) * style.noise
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)
