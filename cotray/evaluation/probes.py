"""What the shortcut probes look at: things of an image that should not tell its class, as plain numbers.

Border, corners and the map's cells are described by how they differ from the rest of their own image: stain,
contrast and sharpness of the whole are in every part of it, and would hide a scale bar that is in one part
alone; they have probes of their own. A region that was blanked is exactly zero here, and tells nothing.

Shapes: H W pixels, G grid cells a side, F numbers of a patch.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from cotray.evaluation.floor import colour_histogram

Rgb = NDArray[np.uint8]
Floats = NDArray[np.float32]
GRID = 10
"""Grid cells a side: rectangles to blank are multiples of a tenth."""
CORNER = 2
"""A corner is this many grid cells wide and high."""
FRAME = 0.03
"""Width of the border, as a share of the image's side."""
SIDE = 320
"""Longer side of the copy on which background is looked at."""
ROOM = 0.04
"""Cells are masked out with this much room around them, as a share of the longer side."""
FINE = 24
"""Pixels a side that a grid cell is looked at in."""
LEVEL = 1.0
"""Grey levels added to a spread, so that the noise of flat images is not blown up."""
TEXTURE = np.asarray([0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 28, 40, 60, 1e9])
"""Edges of the histogram of grey level steps between neighbours."""
FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
MODES = ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LA", "I;16", "I", "F")
COMPRESSIONS = ("None", "0", "raw", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits", "jpeg")


def file_probes(data: bytes) -> dict[str, Floats]:
    """``file_size``, ``dimensions`` and ``metadata`` of an encoded image; no pixel is decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large images and of odd metadata
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            size, kept = image.size, _metadata(image)
    return {"file_size": _floats([len(data)]), "dimensions": _floats(size), "metadata": _floats(kept)}


def _metadata(image: Image.Image) -> list[float]:
    """Format, mode, compression, JPEG quality tables, EXIF, resolution and other blocks in the file."""
    info: dict[Any, Any] = image.info
    tables = [sum(table) for table in getattr(image, "quantization", {}).values()]
    sampling = JpegImagePlugin.get_sampling(image) if image.format == "JPEG" else -1
    dpi = info.get("dpi") or (0, 0)
    return [
        _place(image.format, FORMATS),
        _place(image.mode, MODES),
        _place(str(info.get("compression")), COMPRESSIONS),
        len(tables),
        *[*tables, 0, 0][:2],
        sampling,
        float("progressive" in info),
        len(image.getexif()),
        len(info.get("icc_profile") or b""),
        len(info.get("comment") or b""),
        *(float(value) for value in dpi[:2]),
        len(info),
    ]


def _place(name: str | None, known: tuple[str, ...]) -> int:
    """Where a name stands among the known ones; behind them where it does not."""
    return known.index(name) if name in known else len(known)


def pixel_probes(rgb: Rgb, cell: NDArray[np.bool_]) -> dict[str, Floats]:
    """``colour``, ``background``, ``border``, the four corners and ``grid`` (G * G * F) of an image.

    ``rgb`` is (H, W, 3), known shortcuts blanked, nothing enhanced. ``cell`` is (H, W): where its cells are;
    the background is what is left of it, with some room.
    """
    stats = grid_stats(rgb)
    grid = beside_the_rest(stats, stats)
    ends = {"top": slice(0, CORNER), "bottom": slice(GRID - CORNER, GRID)}
    sides = {"left": slice(0, CORNER), "right": slice(GRID - CORNER, GRID)}
    corners = {f"{y}_{x}": grid[ends[y], sides[x]].ravel() for y in ends for x in sides}
    return {
        "colour": colour_histogram(rgb),
        "background": _background(rgb, cell),
        "border": beside_the_rest(_border(rgb), stats).ravel(),
        **corners,
        "grid": grid.ravel(),
    }


def beside_the_rest(patch: Floats, grid_GGF: Floats) -> Floats:
    """Numbers of patches (..., F) in robust deviations from the median grid cell of their image.

    Medians, because a mark in one cell would move a mean and a standard deviation, and by them tell the class
    in every other cell. A patch that is the median colour throughout was blanked: it stays zero.
    """
    middle = np.median(grid_GGF, axis=(0, 1))
    spread = 1.4826 * np.median(np.abs(grid_GGF - middle), axis=(0, 1))
    blank = ~patch.any(axis=-1, keepdims=True)
    return _floats(np.where(blank, 0, (patch - middle) / (spread + LEVEL)))


def grid_stats(rgb: Rgb) -> Floats:
    """(G, G, F) of the image's grid cells, their colours less its median colour.

    Each cell is looked at in FINE x FINE of its pixels: picked, never blended, so that blanked ones stay so.
    """
    y, x = (np.arange(GRID * FINE) * side // (GRID * FINE) for side in rgb.shape[:2])
    picked = rgb[y[:, None], x].reshape(GRID, FINE, GRID, FINE, 3).swapaxes(1, 2)
    return patch_stats(picked, median_colour(rgb))


def patch_stats(patch: Rgb, middle_3: Floats) -> Floats:
    """(..., F) of patches (..., h, w, 3): mean, spread, least and greatest of each channel less ``middle_3``,
    and how rough they are. Steps between neighbours are taken inside a patch: nothing beside it takes part.
    """
    flat = patch.astype(np.float32) - middle_3
    grey = flat.mean(axis=-1)
    steps = [np.abs(np.diff(grey, axis=axis)) for axis in (-2, -1)]
    rough = [step.sum(axis=(-2, -1)) / max(1, step.shape[-1] * step.shape[-2]) for step in steps]
    parts = [stat(flat, axis=(-3, -2)) for stat in (np.mean, np.std, np.min, np.max)]
    return _floats(np.concatenate([*parts, sum(rough)[..., None]], axis=-1))


def median_colour(rgb: Rgb) -> Floats:
    """(3,) median of each channel, the lower one where there are two: what blanking fills in."""
    half = rgb.shape[0] * rgb.shape[1] / 2
    counts = [np.bincount(channel.ravel(), minlength=256).cumsum() for channel in cv2.split(rgb)]
    return _floats([int(np.searchsorted(count, half)) for count in counts])


def _border(rgb: Rgb) -> Floats:
    """(4, F): top, bottom, left and right strip."""
    middle = median_colour(rgb)
    high, wide = (max(2, round(FRAME * side)) for side in rgb.shape[:2])
    strips = (rgb[:high], rgb[-high:], rgb[:, :wide], rgb[:, -wide:])
    return np.stack([patch_stats(strip, middle) for strip in strips])


def _background(rgb: Rgb, cell: NDArray[np.bool_]) -> Floats:
    """Colour and texture of what is no cell; zeros where nothing is left."""
    factor = min(1.0, SIDE / max(rgb.shape[:2]))
    size = (max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor)))
    small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))
    room = np.ones((2 * round(ROOM * max(size)) + 1,) * 2, np.uint8)
    grown = cv2.dilate(cv2.resize(cell.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST), room)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    step = np.maximum(np.abs(grey - np.roll(grey, 1, 0)), np.abs(grey - np.roll(grey, 1, 1)))
    rest = grown == 0
    rest[0], rest[:, 0] = False, False  # a step there would be one across the image
    if not rest.any():
        return np.zeros(6 * 16 + len(TEXTURE) - 1, np.float32)
    colour = colour_histogram(small[rest][:, None], bins=16)
    texture = np.histogram(step[rest], TEXTURE)[0] / rest.sum()
    return _floats(np.concatenate([colour, texture]))


def _floats(values: Any) -> Floats:
    return np.asarray(values, np.float32)
