"""Finding images that are the same, or nearly: pixel digests and perceptual hashes."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Hashes = NDArray[np.uint64]
BLACK, BLACK_SHARE = 16, 0.2
"""An image is on black if this share of it is no brighter than this."""
LIT = 32
"""Brighter than the faint fringe that compression leaves around a cell on black."""


def pixel_digest(rgb: NDArray[np.uint8]) -> str:
    """sha256 over shape and decoded pixels: equal for the same picture in another file format."""
    head = np.asarray(rgb.shape, np.int64).tobytes()
    return hashlib.sha256(head + np.ascontiguousarray(rgb).tobytes()).hexdigest()


def perceptual_hash(rgb: NDArray[np.uint8]) -> int:
    """64-bit pHash: the 8 x 8 lowest DCT frequencies of the 32 x 32 grey image, above their median.

    Of a cell cut out on black only the inside is hashed: any two discs on black look nearly the same, and
    thousands of different cells would become one chain of near-duplicates.
    """
    grey = _inside(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:8, :8]
    bits = (low > np.median(low)).ravel()
    return int(np.packbits(bits).view(">u8")[0])


def _inside(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle two thirds of what is not black; the whole image where it is not on black."""
    lit = grey > LIT
    if (grey > BLACK).mean() > 1 - BLACK_SHARE or not lit.any():
        return grey
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    cell = grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = cell.shape
    return cell[height // 6 : height - height // 6, width // 6 : width - width // 6]


def hamming(a: Hashes, b: Hashes) -> NDArray[np.int64]:
    """Number of differing bits, elementwise."""
    return np.asarray(np.bitwise_count(a ^ b), np.int64)


def near_pairs(hashes_N: Hashes, max_bits: int) -> NDArray[np.int64]:
    """(K, 2) index pairs i < j whose hashes differ in at most ``max_bits`` bits; exact.

    By pigeonhole: of ``max_bits + 1`` bands of the 64 bits, a near pair agrees in at least one whole
    band, so only pairs that share a band are compared.
    """
    found = [_pairs_in_band(hashes_N, band, max_bits) for band in _bands(hashes_N, max_bits + 1)]
    pairs = np.concatenate(found) if found else np.zeros((0, 2), np.int64)
    return np.unique(pairs, axis=0) if len(pairs) else pairs


def _bands(hashes_N: Hashes, count: int) -> Iterator[Hashes]:
    edges = np.linspace(0, 64, count + 1).round().astype(int)
    for low, high in itertools.pairwise(edges):
        mask = np.uint64(((1 << int(high - low)) - 1) << int(low))
        yield hashes_N & mask


def _pairs_in_band(hashes_N: Hashes, band_N: Hashes, max_bits: int) -> NDArray[np.int64]:
    order = np.argsort(band_N, kind="stable")
    starts = np.flatnonzero(np.r_[True, band_N[order][1:] != band_N[order][:-1]])
    found = [np.zeros((0, 2), np.int64)]
    for members in np.split(order, starts[1:]):
        for place, i in enumerate(members[:-1]):
            rest = members[place + 1 :]
            near = rest[hamming(hashes_N[rest], hashes_N[i]) <= max_bits]
            if len(near):
                found.append(np.sort(np.stack([np.full(len(near), i), near], axis=1), axis=1))
    return np.concatenate(found).astype(np.int64)


def near_duplicate_groups(hashes_N: Hashes, max_bits: int) -> NDArray[np.int64]:
    """(N,) component number: images joined by a chain of near pairs share one."""
    pairs = near_pairs(hashes_N, max_bits)
    n = len(hashes_N)
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)
