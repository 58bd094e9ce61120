"""Encoded image bytes <-> RGB arrays, with every way a file can be bad told apart.

A file that OpenCV decodes in silence may be truncated; so the file's own structure is checked first.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cotray.errors import DecodeError

Rgb = NDArray[np.uint8]
FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")


def decode_image(data: bytes, *, max_pixels: int, min_side: int) -> Rgb:
    """Image bytes -> (H, W, 3) uint8 RGB.

    Grey, palette, CMYK and 1-bit images become RGB; transparency is laid on white; deeper greys are scaled
    so that the smallest range that holds them (1.0, or 8 to 16 bits) maps to 0-255; of 16-bit colours the
    upper byte stays; EXIF orientation is applied. Damaged metadata do not matter where the pixels are sound.
    Raises DecodeError, whose ``what`` is the reason a file is quarantined for.
    """
    if not data:
        raise DecodeError("the file is empty")
    image = _open(data)
    width, height = image.size
    if width * height > max_pixels:
        raise DecodeError(f"too large: {width}x{height} is over the cap of {max_pixels} pixels")
    if min(width, height) < min_side:
        raise DecodeError(f"too small: {width}x{height}, the shorter side must be at least {min_side}")
    quick = _plain_bmp(image, data) if image.format == "BMP" else _plain_jpeg(image, data)
    return _rgb(_load(image, data)) if quick is None else quick


def _open(data: bytes) -> Image.Image:
    """Header only. Pillow warns of large images, which we refuse ourselves, and of odd metadata."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        if data.startswith(BEGINNINGS):
            raise DecodeError("damaged header: truncated, or of a kind that is not read") from None
        raise DecodeError(f"not an image in a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise DecodeError("too large: a decompression bomb") from None
    except Exception as error:  # a damaged header makes Pillow raise what it likes
        raise DecodeError(f"damaged header: {_reason(error)}") from None


def _plain_jpeg(image: Image.Image, data: bytes) -> Rgb | None:
    """The pixels of a sound RGB JPEG that need not be turned, as Pillow gives them and in two thirds of its
    time; None for any other file."""
    if image.format != "JPEG" or image.mode != "RGB" or "exif" in image.info:
        return None
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True), np.uint8)
    except ValueError:  # Pillow says what is wrong, or takes it all the same
        return None


def _is_plain_bmp(image: Image.Image, data: bytes) -> bool:
    """Whether these are 24-bit colours, not packed, and all of them there."""
    tiles: Any = getattr(image, "tile", ())
    if len(tiles) != 1 or not isinstance(tiles[0][3], tuple) or tiles[0][3][0] != "BGR":
        return False
    offset, (_, stride, _) = tiles[0][2:]
    return tiles[0][0] == "raw" and bool(offset + stride * image.height <= len(data))


def _plain_bmp(image: Image.Image, data: bytes) -> Rgb | None:
    """The pixels by OpenCV, several times as fast as by Pillow; None where they are not plain.

    BMP has no checksums: that nothing is missing is all that can be known of its pixels.
    """
    if not _is_plain_bmp(image, data):
        return None
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        bgr = None
    if bgr is None or bgr.shape != (image.height, image.width, 3):
        return None
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _load(image: Image.Image, data: bytes) -> Image.Image:
    """All pixels; Pillow refuses truncated data, which OpenCV fills with grey."""
    if image.format == "JPEG" and b"\xff\xd9" not in data[-4096:]:
        raise DecodeError("truncated: the JPEG has no end marker")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return image
    except Exception as error:  # zlib, struct, OSError, SyntaxError: all mean damage
        reason = _reason(error)
        kind = "truncated" if "truncat" in reason or "end of" in reason else "corrupt"
        raise DecodeError(f"{kind}: {reason}") from None


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120] or type(error).__name__


def _rgb(image: Image.Image) -> Rgb:
    if image.mode.startswith(("I", "F")):
        grey = _eight_bit(np.asarray(image))
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"), np.uint8)


def _eight_bit(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """12-, 14- and 16-bit greys by the smallest depth that holds their maximum; 8-bit as they are."""
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise DecodeError("corrupt: some pixels are no finite number")
    top = float(numbers.max(initial=0))
    full = next((2**bits - 1 for bits in (8, 10, 12, 14, 16) if top < 2**bits), 2**32 - 1)
    full = 1 if values.dtype.kind == "f" and top <= 1 else full
    return np.asarray(np.clip(numbers * (255.0 / full), 0, 255).round(), np.uint8)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) RGB or (H, W) grey -> PNG, fast rather than small.

    OpenCV's own settings (level 1, run lengths of differences to the left neighbour). Naming the level,
    even the same one, would switch to its general strategy: three times as slow, and no smaller.
    """
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    return bytes(cv2.imencode(".png", bgr)[1].tobytes())


def encode_bmp(rgb_HW3: Rgb) -> bytes:
    """(H, W, 3) RGB -> bitmap, for tables, whose columns are compressed as a whole.

    Equalised, sharpened images are noise to a compressor: PNG is hardly smaller than bitmaps in a column that
    zstd compresses, and takes two to seven times as long to write and to read (docs/benchmarks.md).
    """
    return bytes(cv2.imencode(".bmp", cv2.cvtColor(rgb_HW3, cv2.COLOR_RGB2BGR))[1].tobytes())


def decode_stored(data: bytes) -> Rgb:
    """What :func:`encode_png` or :func:`encode_bmp` wrote -> (H, W, 3) RGB (grey: three equal channels)."""
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def decode_mask_file(data: bytes) -> NDArray[np.uint8]:
    """A mask file -> (H, W, 3) RGB as it is painted. Raises DecodeError."""
    return decode_image(data, max_pixels=2**31, min_side=1)
