"""What the shipped LeuSAM learns from: windows of phantom cells, made to look unlike one another.

A phantom differs from a photograph in ways that a network notices at once: its stain, its lamp, its round
cells. So every drawing is bent, re-stained, dimmed, blurred and compressed within wide limits, its cytoplasm
faded or deepened, neighbours are pushed against its cell, and prompts are sometimes what the
region-of-interest step finds and sometimes badly drawn boxes. No photograph is looked at.

Shapes: H W pixels of a drawing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cotray.config import EnhanceConfig, RoiConfig, SegmentConfig
from cotray.data.phantom import PhantomSpec, draw_phantom, phantom_index
from cotray.imaging.enhance import enhance
from cotray.imaging.masks import box_iou, clean_mask, mask_box
from cotray.imaging.roi import find_cells
from cotray.segmentation.windows import training_windows

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Rng = np.random.Generator
Windows = dict[str, NDArray[Any]]
Box = tuple[int, int, int, int]

ENHANCEMENTS = ("none",) * 4 + ("clahe_sharpen",) * 4 + ("clahe", "sharpen")
SINGLE = 0.9
"""Share of drawings with one cell; a field gives up to three windows."""
LEAST_CELL = 200
"""Pixels of a cell below which there is nothing to learn."""


@dataclass
class Scene:
    """A picture and its truth while it is changed."""

    rgb: Rgb
    cells: NDArray[np.uint16]
    """(H, W): 0 background, k the k-th cell."""
    nuclei: Mask


def draw_windows(seed: int, number: int, cfg: SegmentConfig, small: float = 0.0) -> list[Windows]:
    """The windows of one drawing, a single cell's or a field's; equal arguments, equal windows.

    ``small`` is the share of drawings whose nuclei are made smaller.
    """
    rng = np.random.default_rng([seed, number])
    layout = "all-idb2" if rng.random() < SINGLE else "fields"
    # Entropies of this form are kept for training; what measures draws from others.
    spec = phantom_index(layout, 2, 1, int(rng.integers(2**40)) * 8 + 1)[int(rng.integers(2))]
    return list(windows_of(spec, cfg, rng, small))


def windows_of(spec: PhantomSpec, cfg: SegmentConfig, rng: Rng, small: float) -> Iterator[Windows]:
    """One training item (image, mask, box) for a drawing with one cell, up to three for a field."""
    drawn = draw_phantom(spec)
    scene = Scene(drawn.rgb, drawn.instances, drawn.nuclei)
    single = spec.layout != "fields"
    if single and rng.random() < 0.35:
        scene = push_neighbour(scene, rng)
    if small and rng.random() < small:
        scene = shrink_nuclei(scene, rng)
    scene = fade_cytoplasm(scene, rng)
    scene = bend(scene, rng)
    scene.rgb = photograph(restain(scene.rgb, rng), rng)
    if single and rng.random() < 0.1:
        scene = on_black(scene, rng)
    method = ENHANCEMENTS[rng.integers(len(ENHANCEMENTS))]
    scene.rgb = enhance(scene.rgb, EnhanceConfig.model_validate({"method": method}))
    found = [region.box for region in find_cells(scene.rgb, RoiConfig(), single=single)]
    numbers = rng.permutation(np.arange(1, int(scene.cells.max()) + 1))
    for number in numbers[: 1 if single else 3]:
        mask = clean_mask(scene.cells == number)
        true = mask_box(mask)
        if true is None or np.count_nonzero(mask) < LEAST_CELL:
            continue
        seen = cfg.model_copy(update={"context": cfg.context * float(rng.uniform(0.9, 1.2))})
        yield training_windows(scene.rgb, mask, prompt(true, found, rng), seen)


def prompt(true: Box, found: list[Box], rng: Rng) -> Box:
    """Half of the prompts are boxes that were found, the others true ones drawn by an unsteady hand."""
    best = max(found, key=lambda box: box_iou(box, true), default=true)
    if rng.random() < 0.5 and box_iou(best, true) >= 0.3:
        return best
    wide, high = true[2] - true[0], true[3] - true[1]
    x0, y0, x1, y1 = true + rng.uniform(-0.12, 0.12, 4) * (wide, high, wide, high)
    more = rng.uniform(-0.02, 0.1) * max(wide, high)
    return round(x0 - more), round(y0 - more), round(x1 + more), round(y1 + more)


# ---- cells -----------------------------------------------------------------------------------------


def push_neighbour(scene: Scene, rng: Rng) -> Scene:
    """The cell's own mirror image beside it, touching it or a little below or above it."""
    box = mask_box(scene.cells == 1)
    if box is None:
        return scene
    x0, y0, x1, y1 = box
    angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.85, 1.1) * max(x1 - x0, y1 - y0)
    middle = np.array([x0 + x1, y0 + y1]) / 2
    # a half turn about a point between the two puts the copy `reach` away, in any direction
    move = np.array([np.cos(angle), np.sin(angle)]) * reach + 2 * middle
    turn = np.array([[-1.0, 0.0, move[0]], [0.0, -1.0, move[1]]])
    size = scene.cells.shape[::-1]
    rgb = cv2.warpAffine(scene.rgb, turn, size, borderMode=cv2.BORDER_REFLECT_101)
    copy = cv2.warpAffine((scene.cells == 1).astype(np.uint8), turn, size, flags=cv2.INTER_NEAREST) > 0
    core = cv2.warpAffine(scene.nuclei.astype(np.uint8), turn, size, flags=cv2.INTER_NEAREST) > 0
    where = copy if rng.random() < 0.4 else copy & (scene.cells == 0)
    alpha = cv2.GaussianBlur(where.astype(np.float32), (0, 0), 0.8)[..., None]
    mixed = scene.rgb + alpha * (rgb.astype(np.float32) - scene.rgb)
    cells = np.where(where, 2, scene.cells).astype(np.uint16)
    return Scene(mixed.astype(np.uint8), cells, np.where(where, core, scene.nuclei))


def shrink_nuclei(scene: Scene, rng: Rng) -> Scene:
    """Nuclei reduced to one to four lobes, with cytoplasm where they were: as monocytes and granulocytes."""
    cytoplasm = (scene.cells > 0) & ~scene.nuclei
    if not cytoplasm.any():
        return scene
    kept = np.zeros_like(scene.nuclei)
    for number in range(1, int(scene.cells.max()) + 1):
        ys, xs = np.nonzero(scene.nuclei & (scene.cells == number))
        for pick in rng.integers(0, len(ys), int(rng.integers(1, 5))) if len(ys) else ():
            radius = np.sqrt(len(ys) / np.pi) * rng.uniform(0.35, 0.65)
            lobe = np.zeros(kept.shape, np.uint8)
            axes = (int(radius * rng.uniform(0.7, 1.3)) + 1, int(radius) + 1)
            cv2.ellipse(lobe, (int(xs[pick]), int(ys[pick])), axes, rng.uniform(0, 180), 0, 360, 1, -1)
            kept |= (lobe > 0) & scene.nuclei
    gone = cv2.GaussianBlur((scene.nuclei & ~kept).astype(np.float32), (0, 0), 0.8)[..., None]
    grain = waves(kept.shape, rng.uniform(2, 6), rng)[..., None] * np.float32(rng.uniform(2, 10))
    paint = scene.rgb[cytoplasm].mean(axis=0).astype(np.float32) + grain
    mixed = scene.rgb + gone * (paint - scene.rgb)
    return Scene(mixed.clip(0, 255).astype(np.uint8), scene.cells, kept)


def fade_cytoplasm(scene: Scene, rng: Rng) -> Scene:
    """Cytoplasm nearer to the plasma, to the nucleus or to a colour of its own; nuclei paler or darker."""
    rgb, cytoplasm = scene.rgb.astype(np.float32), (scene.cells > 0) & ~scene.nuclei
    outside, inside = rgb[scene.cells == 0][::7], rgb[scene.nuclei]
    if not len(outside) or not len(inside):
        return scene
    plasma, stain = np.percentile(outside, 75, axis=0), inside.mean(axis=0)
    own = plasma * rng.uniform(0.55, 1.0, 3)
    # Faded further it would be seen no more, and the network would learn to guess it.
    target, share = ((plasma, 0.35), (stain, 0.5), (own, 0.6))[rng.integers(3)]
    for mask, colour, most in ((cytoplasm, target, share), (scene.nuclei, plasma, 0.35)):
        alpha = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.2)[..., None]
        rgb += alpha * np.float32(rng.uniform(0, most)) * (colour.astype(np.float32) - rgb)
    return Scene(rgb.clip(0, 255).astype(np.uint8), scene.cells, scene.nuclei)


def on_black(scene: Scene, rng: Rng) -> Scene:
    """The cell cut out, a little too wide or too narrow, as in C-NMC's images."""
    kernel = np.ones((3, 3), np.uint8)
    cell = (scene.cells == 1).astype(np.uint8)
    kept = cv2.dilate(cell, kernel, iterations=int(rng.integers(0, 3))) > 0
    return Scene(np.where(kept[..., None], scene.rgb, 0).astype(np.uint8), scene.cells, scene.nuclei)


# ---- geometry --------------------------------------------------------------------------------------


def bend(scene: Scene, rng: Rng) -> Scene:
    """Turned, stretched and bent smoothly, at another magnification: cells are not discs."""
    height, width = scene.cells.shape
    scale = float(np.exp(rng.uniform(np.log(0.4), np.log(1.15))))
    shape = round(height * scale), round(width * scale)
    angle, stretch = rng.uniform(0, 2 * np.pi), np.exp(rng.normal(0, 0.1))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    back = turn @ np.diag([stretch, 1 / stretch]) / scale
    ys, xs = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    away = np.stack([xs - (shape[1] - 1) / 2, ys - (shape[0] - 1) / 2])
    x, y = np.einsum("ij,jhw->ihw", back.astype(np.float32), away)
    grain = rng.uniform(14, 40)
    x, y = (line + waves(shape, grain * scale, rng) * rng.uniform(0, 0.14) * grain for line in (x, y))
    place = (x + (width - 1) / 2).astype(np.float32), (y + (height - 1) / 2).astype(np.float32)
    rgb = scene.rgb if scale > 0.7 else cv2.GaussianBlur(scene.rgb, (0, 0), 0.4 / scale)
    rgb = cv2.remap(rgb, *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    cells = cv2.remap(scene.cells, *place, cv2.INTER_NEAREST, borderValue=0)
    nuclei = cv2.remap(scene.nuclei.astype(np.uint8), *place, cv2.INTER_NEAREST, borderValue=0)
    return Scene(rgb, cells, nuclei > 0)


def waves(shape: tuple[int, int], grain: float, rng: Rng) -> NDArray[np.float32]:
    """Smooth noise of mean 0 and deviation about 1."""
    coarse = (max(2, round(shape[0] / grain)), max(2, round(shape[1] / grain)))
    field = rng.standard_normal(coarse, np.float32)
    return np.asarray(cv2.resize(field, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


# ---- stain, lamp, camera ---------------------------------------------------------------------------


def restain(rgb: Rgb, rng: Rng) -> Rgb:
    """Other dyes and another lamp: optical density, colour temperature, saturation, gamma, hue."""
    light = rgb.astype(np.float32) / 255
    light = light ** np.exp(rng.normal(0, 0.15, 3)).astype(np.float32)
    light = light ** np.float32(np.exp(rng.normal(0, 0.25)))
    light *= rng.uniform((0.85, 0.85, 0.6), (1.1, 1.1, 1.1)).astype(np.float32)
    grey = light.mean(axis=2, keepdims=True)
    light = grey + (light - grey) * np.float32(rng.uniform(0.45, 1.5))
    light = (light - 0.5) * np.float32(rng.uniform(0.75, 1.2)) + 0.5
    hsv = cv2.cvtColor((light.clip(0, 1) * 255).astype(np.uint8), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + int(rng.normal(0, 4))) % 180
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def photograph(rgb: Rgb, rng: Rng) -> Rgb:
    """Uneven light, a lens out of focus, sensor noise, a JPEG."""
    picture = rgb.astype(np.float32)
    picture += (waves(rgb.shape[:2], max(rgb.shape) / 2, rng) * rng.uniform(0, 12))[..., None]
    if rng.random() < 0.6:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.8))
    picture += rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(0, 7))
    out = picture.clip(0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        data = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 95))])[1]
        out = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return out
