"""Each enhancement against a plain reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.ndimage import convolve
from torch import Tensor, nn

from cotray.config import EnhanceConfig
from cotray.errors import WeightsError
from cotray.imaging.enhance import ENHANCEMENTS, enhance, intensify

Rgb = NDArray[np.uint8]


@pytest.fixture
def rgb() -> Rgb:
    smooth = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (64, 80, 3), np.uint8), (9, 9), 0)
    stretched: Rgb = cv2.normalize(smooth, None, 20, 230, cv2.NORM_MINMAX)
    return stretched


def lightness(rgb: Rgb) -> NDArray[np.uint8]:
    plane: NDArray[np.uint8] = cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab)[..., 0]
    return plane


def with_lightness(rgb: Rgb, plane: NDArray[np.uint8]) -> Rgb:
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab)
    lab[..., 0] = plane
    out: Rgb = cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)
    return out


def loop_clahe(plane: NDArray[np.uint8], clip: float, tiles: int) -> NDArray[np.float64]:
    """CLAHE with a plain histogram per tile and bilinear mixing of the four nearest tiles' tables.

    Where a side is no multiple of the tiles, both sides are mirrored on to the next one (OpenCV's way).
    """
    full = plane.shape
    if full[0] % tiles or full[1] % tiles:
        plane = np.pad(plane, [(0, tiles - side % tiles) for side in full], mode="reflect")
    height, width = plane.shape
    th, tw = height // tiles, width // tiles
    limit = max(1, int(clip * th * tw / 256))
    tables = np.zeros((tiles, tiles, 256))
    for i in range(tiles):
        for j in range(tiles):
            counts = [0] * 256
            for value in plane[i * th : (i + 1) * th, j * tw : (j + 1) * tw].ravel():
                counts[value] += 1
            excess = sum(max(0, c - limit) for c in counts)
            counts = [min(c, limit) + excess // 256 for c in counts]
            rest = excess % 256
            step = max(256 // rest, 1) if rest else 256
            for k in range(0, 256, step):
                if rest > 0:
                    counts[k] += 1
                    rest -= 1
            tables[i, j] = np.round(np.cumsum(counts) * 255 / (th * tw))
    rows, columns = np.mgrid[:height, :width]
    fy, fx = rows / th - 0.5, columns / tw - 0.5
    dy, dx = fy - np.floor(fy), fx - np.floor(fx)
    i0, j0 = np.floor(fy).astype(int), np.floor(fx).astype(int)

    def mapped(i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = tables[np.clip(i, 0, tiles - 1), np.clip(j, 0, tiles - 1), plane]
        return values

    upper = mapped(i0, j0) * (1 - dx) + mapped(i0, j0 + 1) * dx
    lower = mapped(i0 + 1, j0) * (1 - dx) + mapped(i0 + 1, j0 + 1) * dx
    mixed = upper * (1 - dy) + lower * dy
    return np.asarray(mixed[: full[0], : full[1]])


def loop_sharpen(rgb: Rgb) -> Rgb:
    padded = np.pad(rgb.astype(int), ((1, 1), (1, 1), (0, 0)), mode="reflect")
    out = np.zeros_like(rgb)
    for y in range(rgb.shape[0]):
        for x in range(rgb.shape[1]):
            around = padded[y, x + 1] + padded[y + 2, x + 1] + padded[y + 1, x] + padded[y + 1, x + 2]
            out[y, x] = np.clip(5 * padded[y + 1, x + 1] - around, 0, 255)
    return out


def loop_equalise(plane: NDArray[np.uint8]) -> NDArray[np.float64]:
    cdf = np.cumsum(np.bincount(plane.ravel(), minlength=256))
    low = cdf[plane.min()]
    return np.round((cdf[plane] - low) / (plane.size - low) * 255)


def test_every_configured_method_has_a_function() -> None:
    assert set(ENHANCEMENTS) == set(get_args(EnhanceConfig.model_fields["method"].annotation))


@pytest.mark.parametrize("method", sorted(set(ENHANCEMENTS) - {"mirnet"}))
def test_shape_dtype_and_input_are_kept(rgb: Rgb, method: str) -> None:
    before = rgb.copy()
    out = enhance(rgb, EnhanceConfig(method=method))
    assert out.shape == rgb.shape and out.dtype == np.uint8
    assert np.array_equal(rgb, before)


def test_none_is_the_image_itself(rgb: Rgb) -> None:
    assert enhance(rgb, EnhanceConfig(method="none")) is rgb


@pytest.mark.parametrize(("clip", "tiles"), [(2.0, 8), (4.0, 4), (1.5, 2), (2.0, 7), (2.0, 1)])
def test_clahe_matches_a_plain_one(rgb: Rgb, clip: float, tiles: int) -> None:
    compare_clahe(rgb, clip, tiles)


@pytest.mark.parametrize("shape", [(61, 77), (64, 77), (257, 257), (16, 16)])
def test_clahe_matches_a_plain_one_where_tiles_do_not_fit(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    compare_clahe(np.asarray(cv2.GaussianBlur(pixels, (9, 9), 0), np.uint8), 2.0, 8)


def compare_clahe(rgb: Rgb, clip: float, tiles: int) -> None:
    out = enhance(rgb, EnhanceConfig(method="clahe", clip_limit=clip, tiles=tiles))
    plain = np.clip(np.round(loop_clahe(lightness(rgb), clip, tiles)), 0, 255).astype(np.uint8)
    reference = with_lightness(rgb, plain)
    error = np.abs(out.astype(int) - reference.astype(int))
    assert error.max() <= 3 and error.mean() < 0.1  # roundings of L by one, seen through Lab -> RGB


def test_sharpen_matches_a_plain_convolution(rgb: Rgb) -> None:
    assert np.array_equal(enhance(rgb, EnhanceConfig(method="sharpen")), loop_sharpen(rgb))


def test_clahe_sharpen_is_one_after_the_other(rgb: Rgb) -> None:
    out = enhance(rgb, EnhanceConfig())
    assert np.array_equal(out, loop_sharpen(enhance(rgb, EnhanceConfig(method="clahe"))))


def test_he_flattens_the_histogram_of_lightness(rgb: Rgb) -> None:
    plain = loop_equalise(lightness(rgb)).astype(np.uint8)
    assert (
        np.abs(enhance(rgb, EnhanceConfig(method="he")).astype(int) - with_lightness(rgb, plain)).max() <= 3
    )


def test_fuzzy_intensification_matches_the_operator(rgb: Rgb) -> None:
    plane = lightness(rgb)
    low, high = int(plane.min()), int(plane.max())
    out = intensify(plane)
    for value in np.unique(plane):
        mu = (int(value) - low) / (high - low)
        mu = 2 * mu * mu if mu <= 0.5 else 1 - 2 * (1 - mu) ** 2
        assert set(out[plane == value]) == {round(low + mu * (high - low))}
    assert np.array_equal(enhance(rgb, EnhanceConfig(method="fuzzy")), with_lightness(rgb, out))


def test_fuzzy_leaves_a_flat_image_alone() -> None:
    plane = np.full((5, 5), 77, np.uint8)
    assert np.array_equal(intensify(plane), plane)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)))
@settings(deadline=None, max_examples=25)
def test_fuzzy_intensification_keeps_order_and_ends(plane: NDArray[np.uint8]) -> None:
    out = intensify(plane)
    assert out.min() == plane.min() and out.max() == plane.max()
    assert (np.diff(out.ravel()[np.argsort(plane, axis=None)].astype(int)) >= 0).all()


@pytest.mark.parametrize("method", ["he", "fuzzy", "sharpen", "none"])
def test_a_flat_image_is_left_alone(method: str) -> None:
    rgb = np.full((20, 30, 3), (120, 60, 150), np.uint8)
    assert np.abs(enhance(rgb, EnhanceConfig(method=method)).astype(int) - rgb).max() <= 1  # Lab and back


def test_sharpen_matches_scipy(rgb: Rgb) -> None:
    kernel = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]])
    planes = [convolve(rgb[..., c].astype(int), kernel, mode="mirror") for c in range(3)]
    out = enhance(rgb, EnhanceConfig(method="sharpen"))
    assert np.array_equal(out, np.clip(np.stack(planes, axis=-1), 0, 255))


def test_contrast_is_changed_in_lightness_alone(rgb: Rgb) -> None:
    """Hue and colour stay, where the result has room for them."""
    before = cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab)[..., 1:].astype(int)
    for method in ("clahe", "he", "fuzzy"):
        after = cv2.cvtColor(enhance(rgb, EnhanceConfig(method=method)), cv2.COLOR_RGB2Lab)[..., 1:]
        assert np.median(np.abs(after - before)) <= 1, method


def test_mirnet_without_weights_names_the_cure(rgb: Rgb) -> None:
    with pytest.raises(WeightsError, match=r"enhance\.mirnet_weights"):
        enhance(rgb, EnhanceConfig(method="mirnet"))


class Halve(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] % 8 == 0 and x.shape[-2] % 8 == 0
        return x / 2


def test_mirnet_applies_the_given_model(rgb: Rgb) -> None:
    odd = rgb[:61, :77]
    out = enhance(odd, EnhanceConfig(method="mirnet"), model=Halve())
    assert out.shape == odd.shape
    assert np.abs(out.astype(int) * 2 - odd).max() <= 1


def test_mirnet_model_of_another_shape_is_refused(rgb: Rgb) -> None:
    with pytest.raises(WeightsError, match="same shape"):
        enhance(rgb, EnhanceConfig(method="mirnet"), model=nn.AvgPool2d(2))


@pytest.mark.data
def test_the_papers_enhancement_raises_local_contrast_of_real_cells(
    shared_data: Callable[[str], Path],
) -> None:
    files = sorted((shared_data("all-idb2") / "img").glob("*.tif"))[::26]
    for file in files:
        assert sharpness(enhance(read(file), EnhanceConfig())) > 1.5 * sharpness(read(file))


def read(file: Path) -> Rgb:
    image: Rgb = cv2.cvtColor(cv2.imread(str(file), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return image


def sharpness(rgb: Rgb) -> float:
    return float(cv2.Laplacian(lightness(rgb), cv2.CV_64F).std())
