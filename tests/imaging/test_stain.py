"""Stain normalisation against plain versions of both methods, and against stains that are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cotray.config import EnhanceConfig
from cotray.data.phantom import draw_phantom, phantom_index
from cotray.errors import InvalidValueError
from cotray.imaging.stain import FITS, OTHER_GROUND, OTHER_STAINS, UNSTAINED, WEAK, StainNormaliser

Rgb = NDArray[np.uint8]
Floats = NDArray[np.float64]

BLUE_RED = np.array([[0.62, 0.72, 0.31], [0.20, 0.82, 0.53]])
AZURE_EOSIN = np.array([[0.50, 0.80, 0.33], [0.25, 0.70, 0.67]])
METHODS = ("macenko", "reinhard")


def test_every_configured_method_is_fitted() -> None:
    assert {"none", *FITS} == set(get_args(EnhanceConfig.model_fields["stain"].annotation))


def normaliser(method: str, target: Rgb | None = None) -> StainNormaliser:
    return StainNormaliser(EnhanceConfig(stain=method), target)


def phantom(number: int, layout: str = "fields") -> Rgb:
    return draw_phantom(phantom_index(layout, 12, 2, seed=0)[number]).rgb


def amounts(seed: int = 0) -> Floats:
    """How much of two stains every pixel (64, 64, 2) has: of one alone, of the other alone, or of both."""
    rng = np.random.default_rng(seed)
    share = rng.choice([0.0, 1.0, 0.3, 0.5, 0.8], (64, 64))
    return np.stack([share, 1 - share], axis=-1) * rng.uniform(0.8, 3.0, (64, 64, 1))


def painted(amount: Floats, stains: Floats) -> Rgb:
    """Beer and Lambert's law."""
    unit = stains / np.linalg.norm(stains, axis=1, keepdims=True)
    return np.clip(np.round(240 * np.exp(-amount @ unit)) - 1, 0, 255).astype(np.uint8)


TARGET = painted(amounts(), AZURE_EOSIN)


# ---- plain versions --------------------------------------------------------------------------------


def measure_macenko(rgb: Rgb) -> tuple[Floats, Floats, Floats]:
    """(two stains as rows, every pixel's amounts, their 99th percentiles), by singular values."""
    density = -np.log((rgb.reshape(-1, 3) + 1.0) / 240)
    kept = density[density.min(axis=1) >= 0.15]
    first, second = np.linalg.svd(kept - kept.mean(0), full_matrices=False)[2][:2]
    plane = np.array([first, second]).T
    middle = kept.mean(0) @ plane / np.linalg.norm(kept.mean(0) @ plane)
    ahead, aside = plane @ middle, plane @ (-middle[1], middle[0])
    angle = np.arctan2(kept @ aside, kept @ ahead)
    found = [np.cos(a) * ahead + np.sin(a) * aside for a in np.percentile(angle, [1, 99])]
    stains = np.array(sorted(found, key=lambda stain: -stain[0]))
    amount = density @ np.linalg.pinv(stains)
    return stains, amount, np.percentile(amount, 99, axis=0)


def plain_macenko(rgb: Rgb, target: Rgb) -> Floats:
    stains, _, strongest = measure_macenko(target)
    _, amount, own = measure_macenko(rgb)
    out = 240 * np.exp(-(amount / own * strongest) @ stains)
    return np.floor(np.minimum(out, 255)).reshape(rgb.shape)


def plain_reinhard(rgb: Rgb, target: Rgb) -> Floats:
    lab, to = (
        cv2.cvtColor(i.astype(np.float32) / 255, cv2.COLOR_RGB2Lab).astype(float) for i in (rgb, target)
    )
    spread = to.std(axis=(0, 1)) / lab.std(axis=(0, 1))
    moved = (lab - lab.mean(axis=(0, 1))) * spread + to.mean(axis=(0, 1))
    back = cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_Lab2RGB)
    return np.floor(np.clip(back, 0, 1) * 255)


PLAIN = {"macenko": plain_macenko, "reinhard": plain_reinhard}


def agrees(method: str, rgb: Rgb, target: Rgb) -> None:
    out, why = normaliser(method, target)(rgb)
    assert why is None
    off = np.abs(out - PLAIN[method](rgb, target))
    assert off.mean() < 0.6 and np.quantile(off, 0.999) <= 2


@pytest.mark.parametrize("method", METHODS)
def test_phantoms_come_out_as_a_plain_version_has_them(method: str) -> None:
    agrees(method, phantom(0), phantom(6))


@pytest.mark.data
@pytest.mark.parametrize("method", METHODS)
def test_real_smears_come_out_as_a_plain_version_has_them(
    method: str, shared_data: Callable[[str], Path]
) -> None:
    files = [shared_data("bccd") / "images" / f"BloodImage_000{n}.jpg" for n in ("04", "18", "40")]
    first, *others = (np.asarray(cv2.imread(str(file))[..., ::-1], np.uint8) for file in files)
    for rgb in others:
        agrees(method, rgb[::2, ::2], first[::2, ::2])


# ---- known stains ----------------------------------------------------------------------------------


@given(st.integers(0, 99))
@settings(deadline=None, max_examples=10)
def test_macenko_gives_the_targets_stains_to_what_another_pair_had_stained(seed: int) -> None:
    amount = amounts(seed)
    image, target = painted(amount, AZURE_EOSIN), painted(amount, BLUE_RED)
    out, why = normaliser("macenko", target)(image)
    assert why is None
    assert np.abs(out.astype(int) - target).mean() < 2.5
    assert np.abs(image.astype(int) - target).mean() > 6  # that was a change


def test_macenko_evens_out_how_strongly_a_smear_was_stained() -> None:
    amount = amounts()
    pale, target = painted(amount * 0.8, AZURE_EOSIN), painted(amount, AZURE_EOSIN)
    out, _ = normaliser("macenko", target)(pale)
    assert np.abs(out.astype(int) - target).mean() < 2.5 < np.abs(pale.astype(int) - target).mean()


def test_reinhard_gives_the_targets_mean_and_spread() -> None:
    image, target = painted(amounts(1), AZURE_EOSIN), painted(amounts(2), BLUE_RED)
    out, _ = normaliser("reinhard", target)(image)
    for got, wanted, before in zip(moments(out), moments(target), moments(image), strict=True):
        assert np.abs(got - wanted).max() < 1.5 < 2 * np.abs(before - wanted).max()


def moments(rgb: Rgb) -> tuple[Floats, Floats]:
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab).astype(float)
    return lab.mean(axis=(0, 1)), lab.std(axis=(0, 1))


@pytest.mark.parametrize("method", METHODS)
def test_the_target_itself_hardly_changes(method: str) -> None:
    target = painted(amounts(), AZURE_EOSIN)
    out, why = normaliser(method, target)(target)
    assert why is None and np.abs(out.astype(int) - target).mean() < 1.5


def test_the_target_where_none_is_given_is_a_phantom() -> None:
    rgb = phantom(0)
    for method in METHODS:
        assert np.array_equal(normaliser(method)(rgb)[0], normaliser(method, phantom(2))(rgb)[0])


def test_phantoms_of_many_stains_come_near_one_another() -> None:
    change = normaliser("reinhard")
    images = [phantom(number) for number in range(0, 20, 6)]
    changed = [change(rgb)[0] for rgb in images]
    before, after = (np.std([i.reshape(-1, 3).mean(0) for i in many], axis=0) for many in (images, changed))
    assert (after < 0.3 * before).all()


# ---- what stays as it was --------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "rgb",
    [
        np.full((40, 40, 3), 255, np.uint8),
        np.zeros((40, 40, 3), np.uint8),
        np.full((40, 40, 3), (120, 60, 150), np.uint8),
        np.full((1, 1, 3), (120, 60, 150), np.uint8),
        np.repeat(np.arange(40, 200, 4, dtype=np.uint8)[:, None, None], 3, axis=2).repeat(40, axis=1),
    ],
    ids=["white", "black", "one colour", "one pixel", "grey"],
)
def test_without_two_stains_an_image_stays_as_it_is(method: str, rgb: Rgb) -> None:
    out, why = normaliser(method)(rgb)
    assert out is rgb and why in (UNSTAINED, WEAK)


def test_one_stain_on_white_is_not_two() -> None:
    rgb = np.full((40, 40, 3), 255, np.uint8)
    rgb[:, 20:] = (90, 40, 130)
    out, why = normaliser("macenko")(rgb)
    assert out is rgb and why == UNSTAINED


def test_a_stain_that_is_hardly_there_is_not_made_up() -> None:
    amount = amounts()
    rgb = painted(amount, AZURE_EOSIN)
    out, why = normaliser("reinhard", rgb)(painted(amount / 10, AZURE_EOSIN))
    assert why == WEAK and np.array_equal(out, painted(amount / 10, AZURE_EOSIN))


def test_where_torchstains_angles_wrap_around_nothing_is_changed() -> None:
    """So they do in some of these images, where the two stains differ more than their amounts do."""
    left = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        amount, which = rng.uniform(1.0, 2.0, (64, 64, 2)), rng.integers(0, 3, (64, 64))
        amount[which == 0, 1] = amount[which == 1, 0] = 0
        amount[which == 2] /= 2
        rgb = painted(amount, AZURE_EOSIN)
        out, why = normaliser("macenko", TARGET)(rgb)
        left += out is rgb
        assert why or np.abs(out - plain_macenko(rgb, TARGET)).mean() < 0.6
    assert 0 < left < 8


def test_stains_that_would_change_places_are_left() -> None:
    """Both of the image's stains are nearer to the target's second one than to its first."""
    other = np.array([[0.35, 0.75, 0.56], [0.10, 0.60, 0.79]])
    rgb = painted(amounts(), other)
    out, why = normaliser("macenko", painted(amounts(), np.array([[0.80, 0.55, 0.24], [0.3, 0.7, 0.65]])))(
        rgb
    )
    assert why == OTHER_STAINS and out is rgb


@pytest.mark.parametrize("method", METHODS)
def test_black_stays_black_and_is_not_measured(method: str) -> None:
    """Cells on black are made like cells on black; how much black there is makes no difference."""
    cell, change = phantom(7, "c-nmc"), normaliser(method)
    black = cell.max(axis=2) <= 16
    out, why = change(cell)
    assert why is None and np.array_equal(out[black], cell[black]) and not np.array_equal(out, cell)
    wide = np.pad(cell, ((60, 60), (60, 60), (0, 0)))
    assert np.array_equal(change(wide)[0][60:-60, 60:-60], out)


@pytest.mark.parametrize("method", METHODS)
def test_a_target_on_plasma_is_none_for_cells_on_black(method: str) -> None:
    cell = phantom(7, "c-nmc")
    out, why = normaliser(method, phantom(2))(cell)
    assert why == OTHER_GROUND and out is cell


@pytest.mark.parametrize("method", METHODS)
def test_the_image_given_is_not_changed(method: str) -> None:
    rgb = phantom(4)
    before = rgb.copy()
    out, _ = normaliser(method)(rgb)
    assert np.array_equal(rgb, before) and out.shape == rgb.shape and out.dtype == np.uint8


@pytest.mark.parametrize("method", METHODS)
def test_a_target_of_one_colour_is_refused(method: str) -> None:
    with pytest.raises(InvalidValueError, match="target"):
        normaliser(method, np.full((40, 40, 3), 200, np.uint8))
