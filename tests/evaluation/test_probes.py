"""What the probes see: what it should be, and nothing of what was blanked."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from cotray.evaluation.probes import (
    GRID,
    file_probes,
    grid_stats,
    median_colour,
    patch_stats,
    pixel_probes,
)
from cotray.imaging.regions import blank_regions

Rgb = NDArray[np.uint8]


def noise(height: int, width: int, seed: int = 0) -> Rgb:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def no_cell(rgb: Rgb) -> NDArray[np.bool_]:
    return np.zeros(rgb.shape[:2], bool)


def encoded(kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(noise(40, 60)).save(sink, kind, **options)
    return sink.getvalue()


def test_patches_are_described_as_written() -> None:
    patch = noise(7, 9)
    middle = np.array([10, 20, 30], np.float32)
    flat = patch.astype(np.float64) - middle
    grey = flat.mean(axis=2)
    rough = np.abs(grey[1:] - grey[:-1]).mean() + np.abs(grey[:, 1:] - grey[:, :-1]).mean()
    wanted = [*flat.mean((0, 1)), *flat.std((0, 1)), *flat.min((0, 1)), *flat.max((0, 1)), rough]
    assert np.allclose(patch_stats(patch, middle), wanted, atol=1e-3)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_the_median_is_numpys_lower_one(height: int, width: int, seed: int) -> None:
    rgb = noise(height, width, seed)
    ordered = np.sort(rgb.reshape(-1, 3), axis=0)
    assert median_colour(rgb).tolist() == ordered[(len(ordered) - 1) // 2].tolist()


@pytest.mark.parametrize("size", [(224, 224), (450, 450), (257, 257), (480, 640), (75, 33), (1920, 2560)])
def test_a_blanked_grid_cell_tells_nothing_and_its_neighbours_do(size: tuple[int, int]) -> None:
    x, y = 8, 9
    rgb = blank_regions(noise(*size), [(x / GRID, y / GRID, (x + 1) / GRID, (y + 1) / GRID)])
    seen = np.abs(grid_stats(rgb)).sum(axis=2)
    assert seen[y, x] == 0 and (np.delete(seen.ravel(), y * GRID + x) > 0).all()


def test_a_blanked_corner_is_zero_for_its_probe_alone() -> None:
    rgb = blank_regions(noise(224, 224), [(0.8, 0.8, 1.0, 1.0)])
    found = pixel_probes(rgb, no_cell(rgb))
    zero = {name for name, value in found.items() if not value.any()}
    assert zero == {"bottom_right"}


def test_corners_are_where_they_are_called() -> None:
    plain = np.full((100, 100, 3), 128, np.uint8)
    places = {"top_left": (3, 3), "top_right": (3, 96), "bottom_left": (96, 3), "bottom_right": (96, 96)}
    for name, (y, x) in places.items():
        rgb = plain.copy()
        rgb[y, x] = 255
        found = pixel_probes(rgb, no_cell(rgb))
        assert {corner for corner in places if found[corner].any()} == {name}


def test_local_probes_do_not_see_a_shift_of_all_colours() -> None:
    rgb = noise(120, 120) // 2
    one, other = (pixel_probes(shifted, no_cell(rgb)) for shifted in (rgb, rgb + np.uint8(60)))
    for name in ("border", "top_left", "grid"):
        assert np.array_equal(one[name], other[name])
    assert not np.array_equal(one["colour"], other["colour"])


def test_a_part_is_described_by_what_sets_it_apart_from_the_image() -> None:
    """In robust deviations from the image's own cells, as written."""
    rgb = noise(120, 120)
    rgb[90:, 90:] //= 3
    stats = grid_stats(rgb)
    middle = np.median(stats, (0, 1))
    wanted = (stats[9, 8] - middle) / (1.4826 * np.median(np.abs(stats - middle), (0, 1)) + 1)
    found = pixel_probes(rgb, no_cell(rgb))
    assert np.allclose(found["grid"].reshape(GRID, GRID, -1)[9, 8], wanted, atol=1e-5)
    assert np.allclose(found["bottom_right"].reshape(2, 2, -1)[1, 0], wanted, atol=1e-5)
    assert np.abs(found["bottom_right"]).mean() > 2 * np.abs(found["top_left"]).mean()


def test_a_mark_in_one_corner_hardly_changes_what_is_said_of_the_others() -> None:
    rgb = noise(200, 200)
    marked = rgb.copy()
    marked[184:196, 170:190] = (255, 0, 0)
    plain, told = pixel_probes(rgb, no_cell(rgb)), pixel_probes(marked, no_cell(rgb))
    moved = {name: np.abs(told[name] - plain[name]).max() for name in ("top_left", "bottom_right")}
    assert moved["top_left"] < 0.05 * moved["bottom_right"]


def test_the_background_is_what_is_no_cell() -> None:
    rgb = np.full((100, 100, 3), 200, np.uint8)
    cell = no_cell(rgb)
    cell[30:70, 30:70] = True
    painted = rgb.copy()
    painted[30:70, 30:70] = noise(40, 40)
    assert np.array_equal(pixel_probes(rgb, cell)["background"], pixel_probes(painted, cell)["background"])
    seen = pixel_probes(painted, no_cell(rgb))["background"]
    assert not np.array_equal(seen, pixel_probes(rgb, no_cell(rgb))["background"])


def test_an_image_that_is_all_cell_has_no_background() -> None:
    rgb = noise(50, 50)
    assert not pixel_probes(rgb, ~no_cell(rgb))["background"].any()


@given(st.integers(1, 40), st.integers(1, 40))
@settings(deadline=None, max_examples=25)
def test_images_of_any_size_give_the_same_number_of_finite_figures(height: int, width: int) -> None:
    rgb = noise(height, width)
    found = pixel_probes(rgb, no_cell(rgb))
    wanted = pixel_probes(noise(64, 64), no_cell(noise(64, 64)))
    assert {name: value.shape for name, value in found.items()} == {n: v.shape for n, v in wanted.items()}
    assert all(np.isfinite(value).all() for value in found.values())


def test_size_and_dimensions_are_the_files() -> None:
    data = encoded("PNG")
    found = file_probes(data)
    assert found["file_size"].tolist() == [len(data)] and found["dimensions"].tolist() == [60, 40]


def test_metadata_tell_what_files_differ_in() -> None:
    exif = Image.Exif()
    exif[0x0110] = "a camera"
    kinds = {
        "jpeg": encoded("JPEG", quality=80),
        "finer": encoded("JPEG", quality=95),
        "sampled": encoded("JPEG", quality=80, subsampling=0),
        "progressive": encoded("JPEG", quality=80, progressive=True),
        "camera": encoded("JPEG", quality=80, exif=exif),
        "dpi": encoded("JPEG", quality=80, dpi=(300, 300)),
        "png": encoded("PNG"),
        "bmp": encoded("BMP"),
        "tiff": encoded("TIFF"),
        "lzw": encoded("TIFF", compression="tiff_lzw"),
    }
    seen = {name: tuple(file_probes(data)["metadata"].tolist()) for name, data in kinds.items()}
    assert len(set(seen.values())) == len(seen)
    assert len({len(values) for values in seen.values()}) == 1
