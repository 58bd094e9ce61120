"""What finding near-duplicates costs: the banded search against comparing all pairs, on the same hashes.

Four kinds of hashes: `random` (no two alike), `clustered` (a third within a few bits of another), `flat` (a
third are the very same, as of empty images), `narrow` (half of the bits hardly vary). Both sides are
asked for the same pairs of distinct hashes within `--bits`, and have to agree.

Run: python -m benchmarks.leaks --sizes 2000 20000 100000
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cotray.data.hashing import find_near, hamming

Hashes = NDArray[np.uint64]
BLOCK = 256
"""Rows that all pairs are compared in at once."""


def random_hashes(n: int, rng: np.random.Generator) -> Hashes:
    """No two alike."""
    return rng.integers(0, 2**64, n, dtype=np.uint64)


def clustered(n: int, rng: np.random.Generator) -> Hashes:
    """A third lie within 5 bits of one of the others."""
    hashes = random_hashes(n, rng)
    third = n // 3
    bits = np.uint64(1) << rng.integers(0, 64, (third, 5)).astype(np.uint64)
    hashes[:third] = rng.choice(hashes[third:], third) ^ np.bitwise_or.reduce(bits, axis=1)
    return hashes


def flat(n: int, rng: np.random.Generator) -> Hashes:
    """A third are the very same."""
    hashes = random_hashes(n, rng)
    hashes[: n // 3] = 1
    return hashes


def narrow(n: int, rng: np.random.Generator) -> Hashes:
    """Half of the bits are set in one of a hundred hashes only."""
    rare = np.bitwise_and.reduce(rng.integers(0, 2**64, (7, n), dtype=np.uint64), axis=0)
    return random_hashes(n, rng) & np.uint64(2**32 - 1) | rare & ~np.uint64(2**32 - 1)


KINDS: dict[str, Callable[[int, np.random.Generator], Hashes]] = {
    "random": random_hashes,
    "clustered": clustered,
    "flat": flat,
    "narrow": narrow,
}


def all_pairs(hashes_N: Hashes, max_bits: int, rows: int | None = None) -> int:
    """Near pairs of images among the first ``rows`` and all after them, by comparing every pair."""
    count = 0
    for start in range(0, rows or len(hashes_N), BLOCK):
        block = hashes_N[start : start + BLOCK]
        near = hamming(block[:, None], hashes_N[None, start:]) <= max_bits
        count += int(np.triu(near, 1).sum())
    return count


def measure(kind: str, n: int, max_bits: int, repeats: int, most_pairs: float) -> dict[str, Any]:
    """Seconds of both sides (the least of ``repeats``), and whether they found the same number of pairs.

    Beyond ``most_pairs`` comparisons all pairs are timed on a part of the rows and scaled up.
    """
    hashes = KINDS[kind](n, np.random.default_rng(0))
    banded, ours = _timed(lambda: find_near(hashes, max_bits).count, repeats)
    rows = min(n, max(BLOCK, int(most_pairs / n)))
    full, theirs = _timed(lambda: all_pairs(hashes, max_bits, rows), 1 if rows == n else repeats)
    done = sum(n - start for start in range(0, rows, BLOCK)) * BLOCK
    whole = sum(n - start for start in range(0, n, BLOCK)) * BLOCK
    same = "not compared" if rows < n else "yes" if ours == theirs else "NO"
    return {
        "hashes": kind,
        "N": n,
        "near pairs": ours,
        "banded s": banded,
        "all pairs s": full * whole / done,
        "scaled": rows < n,
        "ratio": full * whole / done / banded,
        "same": same,
    }


def _timed(work: Callable[[], int], repeats: int) -> tuple[float, int]:
    spent = []
    for _ in range(repeats):
        begun = time.perf_counter()
        result = work()
        spent.append(time.perf_counter() - begun)
    return min(spent), result


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    head = "| hashes | N | near pairs | banded s | all pairs s | times faster | same pairs |"
    lines = [head, "|---|---:|---:|---:|---:|---:|---|"]
    for row in rows:
        scaled = " (scaled)" if row["scaled"] else ""
        lines.append(
            f"| {row['hashes']} | {row['N']:,} | {row['near pairs']:,} | {row['banded s']:.3f} | "
            f"{row['all pairs s']:.2f}{scaled} | {row['ratio']:.0f} | {row['same']} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 20_000, 100_000])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--bits", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--most-pairs", type=float, default=5e8)
    asked = parser.parse_args()
    rows = [
        measure(kind, n, asked.bits, asked.repeats, asked.most_pairs)
        for kind in asked.kinds
        for n in asked.sizes
    ]
    print(table(rows))


if __name__ == "__main__":
    main()
