"""Finding images that are the same, or nearly: pixel digests and perceptual hashes.

Shapes: N images, U distinct hashes, K pairs.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Hashes = NDArray[np.uint64]
Pairs = NDArray[np.int64]
BITS = 64
BLACK, BLACK_SHARE = 16, 0.2
"""An image is on black if this share of it is no brighter than this."""
LIT = 32
"""Brighter than the faint fringe that compression leaves around a cell on black."""


def pixel_digest(pixels: NDArray[np.uint8] | NDArray[np.bool_]) -> str:
    """sha256 over shape and decoded pixels: equal for the same picture in another file format."""
    digest = hashlib.sha256(np.asarray(pixels.shape, np.int64).tobytes())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def perceptual_hash(rgb: NDArray[np.uint8]) -> int:
    """64-bit pHash: the 8 x 8 lowest DCT frequencies of the 32 x 32 grey image, above their median.

    Of a cell cut out on black only the inside is hashed: any two discs on black look nearly the same, and
    thousands of different cells would become one chain of near-duplicates.
    """
    grey = _inside(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:8, :8]
    median = np.sort(low, axis=None)[31:33].mean()  # as np.median, for less
    bits = (low > median).ravel()
    return int(np.packbits(bits).view(">u8")[0])


def _inside(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle two thirds of what is not black; the whole image where it is not on black."""
    if np.count_nonzero(grey > BLACK) > (1 - BLACK_SHARE) * grey.size:
        return grey
    x, y, width, height = cv2.boundingRect((grey > LIT).view(np.uint8))
    if not width:
        return grey
    cell = grey[y : y + height, x : x + width]
    return cell[height // 6 : height - height // 6, width // 6 : width - width // 6]


def hamming(a: Hashes, b: Hashes) -> NDArray[np.int64]:
    """Number of differing bits, elementwise."""
    return np.asarray(np.bitwise_count(a ^ b), np.int64)


# ---- near pairs ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Near:
    """Near pairs of a list of hashes, with equal hashes taken together.

    A thousand flat images have one hash: as one entry of ``distinct_U`` they cost nothing, as pairs they
    would be half a million.
    """

    distinct_U: Hashes
    of_N: NDArray[np.int64]
    """Which distinct hash each image has."""
    pairs_K2: Pairs
    """Near pairs a < b of distinct hashes, sorted."""

    @property
    def count(self) -> int:
        """Number of near pairs of images, those of equal hashes included."""
        size = np.bincount(self.of_N, minlength=len(self.distinct_U))
        equal = (size * (size - 1) // 2).sum()
        return int(equal + (size[self.pairs_K2[:, 0]] * size[self.pairs_K2[:, 1]]).sum())

    def links(self) -> Pairs:
        """(L, 2) image pairs that join what all near pairs join: fewer than N + K of them.

        Images of one hash form a chain; of a pair of hashes the first image of each is linked.
        """
        order = np.argsort(self.of_N, kind="stable")
        same = self.of_N[order][1:] == self.of_N[order][:-1]
        chain = np.stack([order[:-1][same], order[1:][same]], axis=1)
        first_U = order[np.r_[True, ~same][: len(order)]]
        return np.concatenate([chain, first_U[self.pairs_K2]]).astype(np.int64)


def find_near(hashes_N: Hashes, max_bits: int) -> Near:
    """Hashes that differ in at most ``max_bits`` (0 to 16) of their 64 bits; exact, far below all pairs.

    By pigeonhole: parted into ``max_bits + q`` bands, a near pair agrees in at least ``q`` whole bands, so
    only pairs that agree in some choice of q bands are compared (Manku, Jain, Das Sarma, "Detecting
    near-duplicates for web crawling", WWW 2007). More bands to agree in make fewer candidates, but more
    choices to sort by; ``q`` is what costs least for this number of hashes.
    """
    distinct_U, of_N = np.unique(np.asarray(hashes_N, np.uint64), return_inverse=True)
    found = [_pairs_of_key(distinct_U, key_U, max_bits) for key_U in _keys(distinct_U, max_bits)]
    # A pair as one number: sorting those is far faster than sorting rows.
    code_K = np.unique(np.concatenate(found)) if max_bits else np.zeros(0, np.int64)
    pairs_K2 = np.stack(np.divmod(code_K, max(1, len(distinct_U))), axis=1)
    return Near(distinct_U, of_N.astype(np.int64), pairs_K2)


def _keys(hashes_U: Hashes, max_bits: int) -> Iterator[Hashes]:
    """The bits of every choice of bands that a near pair may agree in."""
    bit_B = np.uint64(1) << np.arange(BITS, dtype=np.uint64)
    share_B = np.asarray([np.count_nonzero(hashes_U & bit) for bit in bit_B]) / max(1, len(hashes_U))
    agree = min(range(1, 5), key=lambda q: _cost(len(hashes_U), share_B, max_bits, q))
    bands = [np.bitwise_or.reduce(bit_B[band]) for band in _bands(share_B, max_bits + agree)]
    for chosen in itertools.combinations(bands, agree):
        yield hashes_U & np.bitwise_or.reduce(chosen)


def _bands(share_B: NDArray[np.float64], count: int) -> list[NDArray[np.int64]]:
    """The 64 bits dealt to ``count`` bands, so that bits that hardly vary are not all in one of them."""
    order = np.argsort(np.abs(share_B - 0.5), kind="stable")
    return [order[band::count] for band in range(count)]


def _cost(n: int, share_B: NDArray[np.float64], max_bits: int, agree: int) -> float:
    """Sorts and comparisons of ``n`` hashes whose bits are set this often, in comparisons."""
    same_B = share_B**2 + (1 - share_B) ** 2
    same = [float(same_B[band].prod()) for band in _bands(share_B, max_bits + agree)]
    chosen = [math.prod(pick) for pick in itertools.combinations(same, agree)]
    return len(chosen) * 20 * n + n * n / 2 * sum(chosen)


def _pairs_of_key(hashes_U: Hashes, key_U: Hashes, max_bits: int) -> NDArray[np.int64]:
    """Near pairs a < b among hashes of one key, as numbers a * U + b.

    The list sorted by key slides along itself until no entry meets one of its own key.
    """
    order = np.argsort(key_U, kind="stable")
    hashes, key = hashes_U[order], key_U[order]
    found = [np.zeros(0, np.int64)]
    at = np.arange(len(order) - 1)
    for step in range(1, len(order)):
        at = at[: np.searchsorted(at, len(order) - step)]
        at = at[key[at] == key[at + step]]
        if not len(at):
            break
        near = at[hamming(hashes[at], hashes[at + step]) <= max_bits]
        one, other = order[near], order[near + step]
        found.append(np.minimum(one, other) * len(order) + np.maximum(one, other))
    return np.concatenate(found)


def near_pairs(hashes_N: Hashes, max_bits: int) -> Pairs:
    """(K, 2) index pairs i < j whose hashes differ in at most ``max_bits`` bits; exact, sorted.

    All of them are listed, half a million for a thousand equal hashes; :func:`find_near` is what joins
    groups or counts.
    """
    near = find_near(hashes_N, max_bits)
    order = np.argsort(near.of_N, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(near.of_N, minlength=len(near.distinct_U)))[:-1])
    pairs = [pair for same in members for pair in itertools.combinations(same.tolist(), 2)]
    for a, b in near.pairs_K2.tolist():
        pairs += itertools.product(members[a].tolist(), members[b].tolist())
    return np.unique(np.sort(np.asarray(pairs, np.int64).reshape(-1, 2), axis=1), axis=0)


def near_duplicate_groups(hashes_N: Hashes, max_bits: int) -> NDArray[np.int64]:
    """(N,) component number: images joined by a chain of near pairs share one."""
    return joined(len(hashes_N), find_near(hashes_N, max_bits).links())


def joined(count: int, links_L2: Pairs) -> NDArray[np.int64]:
    """(count,) component number of each of ``count`` things under links between them."""
    ones = np.ones(len(links_L2))
    graph = coo_matrix((ones, (links_L2[:, 0], links_L2[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)
