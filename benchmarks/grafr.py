"""GraFR's cost and faithfulness from a thousand to a million bank cells, and what a coreset keeps.

``python -m benchmarks.grafr [--rows 1000 10000 ...] [--slow] [--coreset | --features FILE]``. Banks are
synthetic, lie on disk and are mapped; every line is measured in a process of its own, one thread. Times are
medians of CPU time with the bank in the page cache.
N bank rows, Q queries, K neighbours, D features.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.selection_tables import markdown

Matrix = NDArray[np.float32]
Make = Callable[[Matrix], Any]

WIDTH, K = 1024, 10
QUERIES = 64
"""Fresh cells that recall is counted on and that are timed as a batch."""
KINDS, LATENT, HIDDEN, BLOCK = 200, 24, 256, 20_000
SLOW = {"hnsw": 100_000, "plain": 1_000_000}
"""Rows up to which a side is measured: beyond, building a graph takes an hour."""
SIDES = ("exact", "ivf", "hnsw", "plain")


# ---- cells that are clustered like a backbone's features -------------------------------------------------


def cells(count: int, seed: int, width: int = WIDTH) -> Matrix:
    """Features of 200 kinds of unlike frequency: few latent directions, bent by a ReLU network, half zero."""
    fixed, rng = np.random.default_rng(1), np.random.default_rng([seed, 2])
    centre = fixed.normal(size=(KINDS, LATENT)) * 2
    share = fixed.dirichlet(np.full(KINDS, 0.7))
    first = fixed.normal(size=(LATENT, HIDDEN)) / np.sqrt(LATENT)
    second = fixed.normal(size=(HIDDEN, width)) / np.sqrt(HIDDEN)
    kind = rng.choice(KINDS, count, p=share)
    latent = centre[kind] + rng.normal(size=(count, LATENT)) * 0.7
    bent = np.maximum(latent @ first, 0).astype(np.float32) @ second.astype(np.float32)
    return np.maximum(bent + rng.normal(size=bent.shape).astype(np.float32) * 0.2, 0)


def write_bank(path: Path, rows: int, width: int = WIDTH) -> None:
    """The bank as .npy, a block at a time; kept where it is there already."""
    if path.exists():
        return
    unfinished = path.with_suffix(".part")
    bank = np.lib.format.open_memmap(unfinished, "w+", np.float32, (rows, width))
    for number, start in enumerate(range(0, rows, BLOCK)):
        bank[start : start + BLOCK] = cells(min(BLOCK, rows - start), number, width)
    bank.flush()
    unfinished.replace(path)


# ---- one side in this process ----------------------------------------------------------------------------


def measure(side: str, path: Path, repeats: int = 9) -> dict[str, Any]:
    """Seconds to build, milliseconds per query, recall, memory of one side."""
    import torch

    torch.set_num_threads(1)
    bank = np.load(path, mmap_mode="r")
    queries = cells(QUERIES, 10**6, bank.shape[1])
    bank.sum()  # into the page cache
    make = plain if side == "plain" else indexed(side)
    make(bank[:100])  # what is imported and compiled is not the bank's cost
    before, began = memory("RssAnon"), time.process_time()
    ask, rows = make(bank)
    built = time.process_time() - began
    kept = memory("RssAnon") - before
    return {
        "build_s": built,
        "index_mib": kept,
        "one_ms": 1e3 * seconds(lambda: ask(queries[:1]), repeats),
        "batch_ms": 1e3 * seconds(lambda: ask(queries), max(3, repeats // 3)) / QUERIES,
        "recall": recall(rows(queries), bank, queries),
        "peak_mib": memory("VmHWM"),
    }


def indexed(name: str) -> Make:
    """cotray's GraFR with one of its indexes."""
    from cotray.config import GrafrConfig
    from cotray.features.grafr import GraFR, propose

    def make(bank: Matrix) -> tuple[Any, Any]:
        grafr = GraFR(GrafrConfig.model_validate({"index": name, "k": K})).fit(bank)
        assert grafr._index is not None
        return grafr.transform, lambda q: nearest(bank, q, propose(grafr._index, bank, q, K))

    return make


def plain(bank: Matrix) -> tuple[Any, Any]:
    """torch.cdist, topk, weighted mean: Eq. 10-13 in four lines."""
    import torch

    nodes = torch.from_numpy(np.asarray(bank))

    def ask(q: Matrix) -> Any:
        away, row = torch.cdist(torch.from_numpy(q), nodes).topk(K, largest=False)
        similarity = 1 / (away + 1e-6)
        weight = similarity / similarity.sum(1, keepdim=True)
        return torch.cat([torch.from_numpy(q), (weight[..., None] * nodes[row]).sum(1)], 1), row

    return ask, lambda q: ask(q)[1].numpy()


def nearest(bank: Matrix, queries: Matrix, row_QP: NDArray[np.int64]) -> NDArray[np.int64]:
    """The K nearest of the proposed rows, by true distance."""
    away = np.linalg.norm(bank[row_QP] - queries[:, None], axis=2)
    away[row_QP < 0] = np.inf
    return np.take_along_axis(row_QP, np.argsort(away, axis=1)[:, :K], axis=1)


def recall(found_QK: NDArray[np.int64], bank: Matrix, queries: Matrix) -> float:
    """Share of the true K nearest (by all distances, double precision for the last word) that were found."""
    import faiss

    row_QP = faiss.knn(queries, bank, 4 * K)[1]
    right_QK = nearest(bank, queries, row_QP)
    both = [len(set(a) & set(b)) for a, b in zip(found_QK.tolist(), right_QK.tolist(), strict=True)]
    return float(np.mean(both)) / K


def seconds(work: Callable[[], Any], repeats: int) -> float:
    work()
    spent = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return median(spent)


def memory(name: str) -> float:
    """MiB of this process: RssAnon (its own, files apart) or VmHWM (the most ever, mapped pages with it)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) / 1024


# ---- what a coreset keeps --------------------------------------------------------------------------------


def coresets(rows: int, sizes: tuple[int, ...]) -> list[list[str]]:
    """How far reconstructions from a part of the bank are from those of all of it, in their own deviation."""
    from cotray.config import GrafrConfig
    from cotray.features.coreset import coreset
    from cotray.features.grafr import GraFR

    bank, queries = cells(rows, 0), cells(500, 10**6)
    label = (np.arange(rows) % 3 == 0).astype(np.int64)
    cfg = GrafrConfig(mode="replace", k=K)
    whole = GraFR(cfg).fit(bank).transform(queries)
    spread = float(np.linalg.norm(whole - whole.mean(axis=0), axis=1).mean())
    ways: dict[str, Callable[[int, int], NDArray[np.int64]]] = {
        "k-means medoids (cotray)": lambda size, seed: coreset(bank, label, size, seed),
        "random draw": lambda size, seed: np.random.default_rng(seed).choice(rows, size, replace=False),
        "k-center": lambda size, seed: k_center(bank, size, seed),
    }
    lines = [["kept", "way", "distance to the full bank's", "worst 5 %", "seconds to choose"]]
    for size in sizes:
        for name, choose in ways.items():
            away, began = [], time.process_time()
            for seed in range(3):
                made = GraFR(cfg).fit(bank[choose(size, seed)]).transform(queries)
                away.append(np.linalg.norm(made - whole, axis=1) / spread)
            spent = (time.process_time() - began) / 3
            far = np.concatenate(away)
            lines.append(
                [f"{size:,}", name, f"{far.mean():.3f}", f"{np.quantile(far, 0.95):.3f}", f"{spent:.1f}"]
            )
    return lines


def k_center(bank: Matrix, size: int, seed: int) -> NDArray[np.int64]:
    """Greedy: the row farthest from all chosen ones comes next."""
    chosen = [int(np.random.default_rng(seed).integers(len(bank)))]
    away = np.full(len(bank), np.inf, np.float32)
    square = (bank**2).sum(axis=1)
    for _ in range(size - 1):
        away = np.minimum(away, square - 2 * bank @ bank[chosen[-1]] + square[chosen[-1]])
        chosen.append(int(away.argmax()))
    return np.array(chosen)


# ---- real features ---------------------------------------------------------------------------------------


def real(feat_ND: Matrix, share: float = 0.8) -> list[list[str]]:
    """Recall of the approximate indexes against exact search, and how far it moves the reconstruction."""
    from cotray.config import GrafrConfig
    from cotray.features.grafr import GraFR

    order = np.random.default_rng(0).permutation(len(feat_ND))
    bank, queries = np.split(feat_ND[order], [int(share * len(feat_ND))])
    exact = GraFR(GrafrConfig(mode="replace", k=K, index="exact")).fit(bank).transform(queries)
    lines = [["search", "bank", "queries", "features", "recall@10", "reconstruction moved by, %"]]
    for side in ("ivf", "hnsw"):
        ask, rows = indexed(side)(bank)
        moved = np.abs(ask(queries)[:, feat_ND.shape[1] :] - exact).sum() / np.abs(exact).sum()
        found = recall(rows(queries), bank, queries)
        sizes = [f"{n:,}" for n in (len(bank), len(queries), feat_ND.shape[1])]
        lines.append([side, *sizes, f"{found:.4f}", f"{100 * moved:.3f}"])
    return lines


# ---- all of them -----------------------------------------------------------------------------------------


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: a line for each size and side."""
    plain_ms = {r["rows"]: (r["one_ms"], r["batch_ms"]) for r in results if r["side"] == "plain"}
    lines = [["bank", "search", "build s", "one cell ms", "of 64 ms each", "times plain", "recall@10",
              "index MiB", "peak MiB"]]  # fmt: skip
    for r in results:
        one, batch = plain_ms.get(r["rows"], (0.0, 0.0))
        ratio = f"{one / r['one_ms']:.1f}, {batch / r['batch_ms']:.1f}" if one else ""
        times = [f"{r['build_s']:.1f}", f"{r['one_ms']:.2f}", f"{r['batch_ms']:.2f}", ratio]
        lines.append([f"{r['rows']:,}", r["side"], *times, f"{r['recall']:.4f}", f"{r['index_mib']:.0f}",
                      f"{r['peak_mib']:.0f}"])  # fmt: skip
    return markdown(lines)


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--sides", nargs="*", default=list(SIDES), choices=SIDES)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "cotray-grafr")
    parser.add_argument(
        "--slow", action="store_true", help="hnsw at a million rows too: a quarter of an hour"
    )
    parser.add_argument("--coreset", action="store_true", help="the coreset's table instead")
    parser.add_argument(
        "--features", type=Path, help="recall on real ones instead: .npy of (cells, features)"
    )
    parser.add_argument("--one", nargs=2, metavar=("SIDE", "BANK"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(args.one[0], Path(args.one[1]))))
    elif args.coreset:
        print(markdown(coresets(5_000, (100, 500))))
    elif args.features:
        print(markdown(real(np.load(args.features).astype(np.float32))))
    else:
        print(table(all_sides(args)))


def all_sides(args: argparse.Namespace) -> list[dict[str, Any]]:
    args.folder.mkdir(parents=True, exist_ok=True)
    results = []
    for rows in args.rows:
        path = args.folder / f"bank-{rows}-{args.width}.npy"
        write_bank(path, rows, args.width)
        for side in args.sides:
            if args.slow or rows <= SLOW.get(side, rows):
                results.append({"rows": rows, "side": side, **apart(side, path)})
                print(results[-1], file=sys.stderr, flush=True)
        path.unlink()
    return results


def apart(side: str, path: Path) -> dict[str, Any]:
    """One side in a fresh process of one thread."""
    command = [sys.executable, "-m", "benchmarks.grafr", "--one", side, str(path)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
