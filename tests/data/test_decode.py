"""Decoding: every kind of image that is read, every way a file can be bad, and PNG there and back."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from cotray.data.decode import decode_image, decode_mask_file, decode_stored, encode_bmp, encode_png
from cotray.errors import DecodeError

Rgb = NDArray[np.uint8]


def picture(height: int = 40, width: int = 60) -> Rgb:
    """Smooth colours over the whole range."""
    noise = np.random.default_rng(0).standard_normal((height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.asarray(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).round(), np.uint8)


RGB = picture()
GREY = RGB[..., 0]


def saved(image: Image.Image | Rgb, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def deep(suffix: str, values: NDArray[np.generic]) -> bytes:
    """An encoded image of any depth; colours in OpenCV's order."""
    values = values[..., ::-1] if values.ndim == 3 else values
    return bytes(cv2.imencode(suffix, np.ascontiguousarray(values))[1].tobytes())


def decode(data: bytes, max_pixels: int = 10**6, min_side: int = 8) -> Rgb:
    return decode_image(data, max_pixels=max_pixels, min_side=min_side)


def reason(data: bytes, max_pixels: int = 10**6, min_side: int = 8) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(data, max_pixels, min_side)
    return str(caught.value.what)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_pixels(kind: str) -> None:
    decoded = decode(saved(RGB, kind))
    assert decoded.dtype == np.uint8 and np.array_equal(decoded, RGB)


@pytest.mark.parametrize("width", [60, 61, 62, 63])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_bmp_of_every_row_length_from_either_end(width: int, mode: str) -> None:
    image = Image.fromarray(picture(40, width)).convert(mode)
    data, pixels = saved(image, "BMP"), np.array(image.convert("RGB"))
    assert np.array_equal(decode(data), pixels)
    from_top = data[:22] + struct.pack("<i", -40) + data[26:]
    assert np.array_equal(decode(from_top), pixels[::-1])
    assert reason(data[:-8]).startswith("truncated")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiff(compression: str) -> None:
    assert np.array_equal(decode(saved(RGB, "TIFF", compression=compression)), RGB)


def test_jpeg_is_near() -> None:
    assert np.abs(decode(saved(RGB, "JPEG", quality=95)).astype(int) - RGB).mean() < 4


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"quality": 30}]
)
def test_jpeg_to_the_last_bit_as_pillow_decodes_it(mode: str, options: dict[str, object]) -> None:
    data = saved(Image.fromarray(picture(61, 47)).convert(mode), "JPEG", **options)
    assert np.array_equal(decode(data), np.array(Image.open(io.BytesIO(data)).convert("RGB")))


@given(st.integers(0, 10**6), st.integers(0, 255))
@settings(deadline=None, max_examples=60)
def test_a_damaged_jpeg_is_what_pillow_makes_of_it(place: int, value: int) -> None:
    """The quick way is for sound files alone."""
    data = bytearray(saved(picture(61, 47), "JPEG"))
    data[623 + place % (len(data) - 625)] = value  # behind the tables, before the end marker
    try:
        expected = np.array(Image.open(io.BytesIO(bytes(data))).convert("RGB"))
    except OSError:
        assert reason(bytes(data)).startswith(("truncated", "corrupt"))
    else:
        assert np.array_equal(decode(bytes(data)), expected)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_colours(suffix: str) -> None:
    assert np.array_equal(decode(deep(suffix, RGB.astype(np.uint16) * 257)), RGB)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("factor", [1, 16, 257])
def test_deep_grey_is_scaled_by_its_depth(suffix: str, factor: int) -> None:
    decoded = decode(deep(suffix, GREY.astype(np.uint16) * factor))
    assert np.abs(decoded.astype(int) - GREY[..., None]).max() <= 1


@pytest.mark.parametrize("scale", [1.0, 1 / 255])
def test_float_grey(scale: float) -> None:
    decoded = decode(deep(".tif", GREY.astype(np.float32) * np.float32(scale)))
    assert np.abs(decoded.astype(int) - GREY[..., None]).max() <= 1


def test_float_without_a_value_is_corrupt() -> None:
    values = GREY.astype(np.float32)
    values[3, 3] = np.nan
    assert "no finite number" in reason(deep(".tif", values))


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_becomes_three_equal_channels(mode: str) -> None:
    image = Image.fromarray(RGB).convert(mode)
    decoded = decode(saved(image, "PNG"))
    assert np.array_equal(decoded, np.repeat(np.array(image.convert("L"))[..., None], 3, axis=2))


def test_transparency_is_laid_on_white() -> None:
    alpha = np.full(RGB.shape[:2], 255, np.uint8)
    alpha[:10] = 0
    decoded = decode(saved(np.dstack([RGB, alpha]), "PNG"))
    assert (decoded[:10] == 255).all() and np.array_equal(decoded[10:], RGB[10:])


def test_palette_and_its_transparent_colour() -> None:
    image = Image.fromarray(RGB).quantize(16)
    assert np.array_equal(decode(saved(image, "PNG")), np.array(image.convert("RGB")))
    decoded = decode(saved(image, "PNG", transparency=0))
    assert (decoded[np.array(image) == 0] == 255).all()


def test_cmyk() -> None:
    image = Image.fromarray(RGB).convert("CMYK")
    assert np.abs(decode(saved(image, "JPEG", quality=95)).astype(int) - RGB).mean() < 6


def test_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[274] = 6  # turned a quarter
    turned = decode(saved(RGB, "PNG", exif=exif))
    assert np.array_equal(turned, np.rot90(RGB, -1))


def test_damaged_metadata_do_not_matter() -> None:
    exif = Image.Exif()
    exif[274] = 1
    data = bytearray(saved(RGB, "JPEG", exif=exif))
    start = data.find(b"Exif") + 14
    data[start : start + 16] = b"\xff" * 16
    assert np.array_equal(decode(bytes(data)), decode(saved(RGB, "JPEG")))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_truncated_files(kind: str, share: float) -> None:
    data = saved(picture(90, 120), kind)
    assert reason(data[: int(len(data) * share)]).startswith(("truncated", "damaged header"))


def test_truncated_and_filled_with_zeros() -> None:
    data = saved(RGB, "JPEG")
    assert "truncated" in reason(data[:-200] + bytes(200))


def test_damaged_pixels() -> None:
    data = bytearray(saved(RGB, "PNG"))
    data[len(data) // 2] ^= 255
    assert reason(bytes(data)).startswith("corrupt")


@given(st.binary(max_size=60), st.sampled_from(["PNG", "JPEG", "BMP", "TIFF"]), st.integers(0, 10**6))
@settings(deadline=None, max_examples=80)
def test_any_damage_is_a_decode_error_or_an_image(junk: bytes, kind: str, place: int) -> None:
    data = saved(RGB[:16, :16], kind)
    start = place % len(data)
    try:
        decoded = decode(data[:start] + junk + data[start + len(junk) :])
    except DecodeError as error:
        assert error.what
    else:
        assert decoded.ndim == 3 and decoded.shape[2] == 3 and decoded.dtype == np.uint8


def test_empty_text_and_other_formats() -> None:
    assert reason(b"") == "the file is empty"
    assert "not an image" in reason(b"a text that was renamed to cell.png\n" * 9)
    assert "not an image" in reason(saved(RGB, "GIF"))
    assert reason(b"\x89PNG\r\n\x1a\n" + b"text").startswith("damaged header")


def test_too_small() -> None:
    tiny = saved(picture(8, 30), "PNG")
    assert decode(tiny, min_side=8).shape == (8, 30, 3)
    assert reason(tiny, min_side=16) == "too small: 30x8, the shorter side must be at least 16"


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has hardly any pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [1_001, 12_000, 60_000])
def test_too_large_is_refused_before_its_pixels_are_read(side: int) -> None:
    assert reason(png_header(side, side)).startswith("too large")


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
@settings(deadline=None, max_examples=30)
def test_png_and_bitmap_there_and_back(rgb: Rgb) -> None:
    assert np.array_equal(decode_stored(encode_png(rgb)), rgb)
    assert np.array_equal(decode_stored(encode_bmp(rgb)), rgb)
    assert np.array_equal(decode_image(encode_bmp(rgb), max_pixels=100, min_side=1), rgb)
    assert np.array_equal(decode_image(encode_png(rgb), max_pixels=100, min_side=1), rgb)


def test_png_of_grey_has_three_equal_channels() -> None:
    assert np.array_equal(decode_stored(encode_png(GREY)), np.repeat(GREY[..., None], 3, axis=2))
    assert np.array_equal(decode_mask_file(encode_png(GREY))[..., 2], GREY)
