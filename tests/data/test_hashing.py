"""Near-duplicates: the banded search against brute force, and images that are or are not the same."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from benchmarks.leaks import KINDS, all_pairs
from cotray.data import hashing
from cotray.data.decode import decode_image
from cotray.data.hashing import (
    find_near,
    hamming,
    joined,
    near_duplicate_groups,
    near_pairs,
    perceptual_hash,
    pixel_digest,
)
from cotray.data.phantom import draw_phantom, phantom_index

Rgb = NDArray[np.uint8]


def drawn(layout: str, subjects: int = 6, each: int = 4) -> list[Rgb]:
    return [draw_phantom(spec).rgb for spec in phantom_index(layout, subjects, each, seed=0)]


def encoded(rgb: Rgb, kind: str, **options: object) -> Rgb:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, kind, **options)
    return decode_image(buffer.getvalue(), max_pixels=10**7, min_side=1)


def hashes(images: list[Rgb]) -> NDArray[np.uint64]:
    return np.array([perceptual_hash(rgb) for rgb in images], np.uint64)


@st.composite
def crowded_hashes(draw: st.DrawFn) -> NDArray[np.uint64]:
    """Hashes of which many lie within a few bits of one another."""
    seeds = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    flips = st.lists(st.integers(0, 63), max_size=9)
    count = draw(st.integers(0, 24))
    out = []
    for _ in range(count):
        value = draw(st.sampled_from(seeds))
        for bit in draw(flips):
            value ^= 1 << bit
        out.append(value)
    return np.array(out, np.uint64)


@given(crowded_hashes(), st.integers(0, 16))
@settings(deadline=None, max_examples=80)
def test_near_pairs_are_those_of_brute_force(values: NDArray[np.uint64], most: int) -> None:
    n = len(values)
    plain = [
        (i, j)
        for i in range(n)
        for j in range(i + 1, n)
        if (int(values[i]) ^ int(values[j])).bit_count() <= most
    ]
    found = near_pairs(values, most)
    assert found.shape == (len(plain), 2) and found.dtype == np.int64
    assert [tuple(pair) for pair in found.tolist()] == plain


@given(crowded_hashes(), st.integers(0, 8))
@settings(deadline=None, max_examples=30)
def test_groups_are_chains_of_near_pairs(values: NDArray[np.uint64], most: int) -> None:
    groups = near_duplicate_groups(values, most)
    reached = np.eye(len(values), dtype=bool)
    for i, j in near_pairs(values, most):
        reached[i, j] = reached[j, i] = True
    for _ in range(len(values)):
        reached = reached @ reached
    assert np.array_equal(reached, groups[:, None] == groups[None, :])


def test_hamming_counts_bits() -> None:
    a = np.array([0, 0b1011, 2**64 - 1], np.uint64)
    assert hamming(a, np.zeros(3, np.uint64)).tolist() == [0, 3, 64]


@pytest.mark.parametrize("layout", ["all-idb2", "c-nmc", "fields"])
def test_other_formats_of_an_image_share_its_group(layout: str) -> None:
    images = drawn(layout, 4, 2)
    smaller = [cv2.resize(rgb, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA) for rgb in images]
    every = images + [encoded(rgb, "BMP") for rgb in images]
    every += [encoded(rgb, "JPEG", quality=80) for rgb in images] + smaller
    groups = near_duplicate_groups(hashes(every), 6)
    assert np.array_equal(groups, np.tile(groups[: len(images)], 4))
    assert len(set(groups)) == len(images)


@pytest.mark.parametrize("layout", ["all-idb2", "c-nmc"])
def test_different_cells_are_apart(layout: str) -> None:
    groups = near_duplicate_groups(hashes(drawn(layout, 12, 6)), 6)
    assert len(set(groups)) >= 0.97 * len(groups)


def test_hash_of_a_cell_on_black_does_not_depend_on_its_place() -> None:
    cell = drawn("c-nmc", 2, 1)[0]
    moved = np.roll(cell, (40, -55), axis=(0, 1))
    assert perceptual_hash(moved) == perceptual_hash(cell)


def test_flat_images_have_a_hash() -> None:
    black, white = np.zeros((50, 40, 3), np.uint8), np.full((50, 40, 3), 255, np.uint8)
    dot = black.copy()
    dot[20, 20] = 255
    assert all(0 <= perceptual_hash(rgb) < 2**64 for rgb in (black, white, dot, black[:1, :1]))


def test_pixel_digest_is_of_the_picture_not_of_the_file() -> None:
    rgb = drawn("all-idb2", 2, 1)[0]
    digest = pixel_digest(rgb)
    assert digest == pixel_digest(encoded(rgb, "PNG")) == pixel_digest(encoded(rgb, "BMP"))
    altered = rgb.copy()
    altered[0, 0, 0] ^= 1
    assert len({digest, pixel_digest(altered), pixel_digest(rgb.reshape(1, -1, 3))}) == 3


@pytest.mark.data
def test_duplicates_across_subjects_of_c_nmc_are_found(shared_data: Callable[[str], Path]) -> None:
    """Four cells of the sample are filed under two subjects each; all others are apart."""
    files = sorted(shared_data("c-nmc-sample").rglob("*.bmp"))
    images = [decode_image(file.read_bytes(), max_pixels=10**7, min_side=16) for file in files]
    pairs = {(files[i].stem, files[j].stem) for i, j in near_pairs(hashes(images), 6)}
    assert {tuple(sorted(pair)) for pair in pairs} == {
        ("UID_H2_1_1_hem", "UID_H6_1_1_hem"),
        ("UID_H2_1_2_hem", "UID_H6_1_2_hem"),
        ("UID_H10_1_1_hem", "UID_h3_1_1_hem"),
        ("UID_H10_2_1_hem", "UID_h3_2_1_hem"),
    }


@pytest.mark.data
def test_single_cells_of_all_idb2_are_hardly_ever_duplicates(shared_data: Callable[[str], Path]) -> None:
    files = sorted((shared_data("all-idb2") / "img").glob("*.tif"))
    images = [decode_image(file.read_bytes(), max_pixels=10**7, min_side=16) for file in files]
    assert len(set(near_duplicate_groups(hashes(images), 6))) >= 250


# ---- at scale --------------------------------------------------------------------------------------


@given(crowded_hashes(), st.integers(0, 16))
@settings(deadline=None, max_examples=60)
def test_links_join_what_all_near_pairs_join_and_are_few(values: NDArray[np.uint64], most: int) -> None:
    near, pairs = find_near(values, most), near_pairs(values, most)
    links = near.links()
    assert near.count == len(pairs)
    assert len(links) <= len(values) + len(near.pairs_K2)
    assert {tuple(sorted(link)) for link in links.tolist()} <= {tuple(pair) for pair in pairs.tolist()}
    reached = np.eye(len(values), dtype=bool)
    reached[pairs[:, 0], pairs[:, 1]] = reached[pairs[:, 1], pairs[:, 0]] = True
    for _ in range(len(values)):
        reached = reached @ reached
    groups = joined(len(values), links)
    assert np.array_equal(reached, groups[:, None] == groups[None, :])


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("most", [0, 3, 6, 10])
def test_thousands_of_hashes_of_any_kind_are_searched_exactly(kind: str, most: int) -> None:
    """Enough of them that several bands have to agree."""
    values = KINDS[kind](3000, np.random.default_rng(1))
    assert find_near(values, most).count == all_pairs(values, most)


def test_equal_hashes_are_not_compared_with_one_another() -> None:
    """Half a million flat images: as pairs they would be 10^11."""
    values = np.full(500_000, 7, np.uint64)
    values[:3] = [6, 2**63, 7]
    near = find_near(values, 6)
    assert len(near.distinct_U) == 3 and len(near.links()) == 500_000 - 3 + len(near.pairs_K2)
    assert len(set(near_duplicate_groups(values, 6).tolist())) == 1


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_hundred_thousand_hashes_take_far_fewer_comparisons_than_all_pairs(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    count = hashing.hamming

    def counted(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int64]:
        compared.append(len(a))
        return count(a, b)

    monkeypatch.setattr(hashing, "hamming", counted)
    values = KINDS[kind](100_000, np.random.default_rng(2))
    hashing.find_near(values, 6)
    share = 0.1 if kind == "narrow" else 0.01  # of which half the bits say next to nothing
    assert sum(compared) < share * 100_000**2 / 2
