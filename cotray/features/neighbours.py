"""Nearest neighbours in a bank: exact (torch), or approximate for hundreds of thousands of cells (faiss).

An approximate index holds one byte per number and only proposes rows; whoever asks measures the true
distances in the bank itself, which may lie on disk. What an index has learned (:meth:`Index.state`) travels
with the bank, so that a server finds the very neighbours that training found, and starts at once.

Shapes: N bank rows, Q queries, K neighbours, D features, C lists.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np
import torch
from faiss.contrib.ivf_tools import add_preassigned
from numpy.typing import NDArray

from cotray.config import GrafrConfig
from cotray.errors import FeatureError

Matrix = NDArray[np.float32]
Rows = NDArray[np.int64]
State = Mapping[str, NDArray[Any]]

BLOCK = 2**25
"""Numbers of a bank handled at a time where all of it is (128 MiB): bounds memory beside the bank."""
SAMPLE = 65_536
"""Rows from which the range of eight-bit codes is learned."""
PROBES = 32
"""Lists of an IVF that a query looks into."""
PER_LIST = 39
"""Rows of the training sample per list: fewer make means that stand for nothing (faiss warns below it)."""
LINKS, BUILD_WIDTH, SEARCH_WIDTH = 32, 80, 128
"""HNSW: neighbours of a node, candidates while building, candidates while searching."""
PROPOSED, SPARE = 4, 8
"""Rows proposed per neighbour wanted by eight-bit codes, which mistake the order of near-equal ones; and how
many more by the exact search, which rounds otherwise in batches of another size."""


class Index(ABC):
    """Proposes neighbours in one bank."""

    def asked(self, k: int) -> int:
        """How many rows to ask for where the k nearest are wanted."""
        return PROPOSED * k

    @abstractmethod
    def search(self, feat_QD: Matrix, k: int) -> Rows:
        """(Q, k) bank rows, the likely nearest first; -1 where fewer were found."""

    def state(self) -> dict[str, NDArray[Any]]:
        """What building anew from the same bank would have to learn again."""
        return {}


class Exact(Index):
    """Every bank row is looked at; nothing is copied, so the bank may be mapped from disk.

    Rows b come in the order of |b - c|^2 - 2 (q - c) b, which is that of |q - b|^2; with c the bank's mean,
    far fewer digits are lost than with c = 0. A matrix product by torch is several times as fast as faiss'
    own search of all rows.
    """

    def __init__(self, bank_ND: Matrix, state: State) -> None:
        with warnings.catch_warnings(action="ignore"):  # a read-only mapping: it is only read
            self.bank_ND = torch.from_numpy(bank_ND)
        self.parts = list(blocks(bank_ND))
        total_D = sum(bank_ND[part].sum(axis=0, dtype=np.float64) for part in self.parts)
        self.mean_D = np.asarray(total_D / len(bank_ND), np.float32)
        square_N = [((bank_ND[part] - self.mean_D) ** 2).sum(axis=1) for part in self.parts]
        self.square_N = torch.from_numpy(np.concatenate(square_N))

    def asked(self, k: int) -> int:
        """A few more: near-equal ones among them are told apart by their true distances."""
        return k + SPARE

    def search(self, feat_QD: Matrix, k: int) -> Rows:
        """All K nearest, up to rounding between near-equal distances."""
        away_QD = torch.from_numpy(feat_QD - self.mean_D)
        best = [self._nearest(away_QD, part, k) for part in self.parts]
        value_QK, row_QK = (torch.cat(both, dim=1) for both in zip(*best, strict=True))
        first_QK = value_QK.topk(k, largest=False).indices
        return np.asarray(row_QK.gather(1, first_QK).numpy())

    def _nearest(self, away_QD: torch.Tensor, part: slice, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        score_QN = torch.addmm(self.square_N[part][None], away_QD, self.bank_ND[part].T, alpha=-2)
        value_QK, row_QK = score_QN.topk(min(k, score_QN.shape[1]), largest=False)
        return value_QK, row_QK + part.start


class Ivf(Index):
    """Inverted lists: rows stand under the nearest of C means; a query looks into PROBES lists.

    State: means (C, D), list of each row (N,).
    """

    def __init__(self, bank_ND: Matrix, state: State) -> None:
        sample_ND = evenly(bank_ND, PER_LIST * lists_of(len(bank_ND)))
        means_CD = state["means"] if "means" in state else _means(sample_ND, lists_of(len(bank_ND)))
        self.means_CD: Matrix = np.ascontiguousarray(means_CD, np.float32)
        if self.means_CD.shape[1:] != bank_ND.shape[1:]:
            raise FeatureError(OTHER_BANK, cure=RECOPY)
        self.index = _planned(bank_ND.shape[1], f"IVF{len(self.means_CD)},SQ8")
        self.index.quantizer.add(self.means_CD)
        self.index.train(sample_ND)  # the means are there: this learns the codes' range
        kept = np.asarray(state["lists"], np.int64) if "lists" in state else None
        self.list_N = self._fill(bank_ND, kept)

    def _fill(self, bank_ND: Matrix, kept_N: Rows | None) -> Rows:
        coarse = Exact(self.means_CD, {})
        if kept_N is not None and not _fits(kept_N, len(bank_ND), len(self.means_CD)):
            raise FeatureError(OTHER_BANK, cure=RECOPY)
        lists = []
        for part in blocks(bank_ND):
            rows = np.ascontiguousarray(bank_ND[part])
            place = coarse.search(rows, 1)[:, 0] if kept_N is None else kept_N[part]
            add_preassigned(self.index, rows, np.ascontiguousarray(place))
            lists.append(place)
        return np.concatenate(lists)

    def search(self, feat_QD: Matrix, k: int) -> Rows:
        """Nearest by their codes within the lists looked into."""
        self.index.nprobe = min(PROBES, len(self.means_CD))
        return np.asarray(self.index.search(feat_QD, k)[1])

    def state(self) -> dict[str, NDArray[Any]]:
        """``means`` and ``lists``: the slow part of building."""
        return {"means": self.means_CD, "lists": self.list_N.astype(np.int32)}


class Hnsw(Index):
    """A graph of neighbours in layers (Malkov & Yashunin 2018); quick to ask, slow to build.

    It is built by one thread, because several would link rows in the order in which they happen to come.
    """

    def __init__(self, bank_ND: Matrix, state: State) -> None:
        self.index = _planned(bank_ND.shape[1], f"HNSW{LINKS}_SQ8")
        self.index.hnsw.efConstruction = BUILD_WIDTH
        self.index.train(evenly(bank_ND, SAMPLE))
        with one_thread():
            for part in blocks(bank_ND):
                self.index.add(np.ascontiguousarray(bank_ND[part]))

    def search(self, feat_QD: Matrix, k: int) -> Rows:
        """Nearest by their codes among those the walk met."""
        self.index.hnsw.efSearch = max(SEARCH_WIDTH, k)
        return np.asarray(self.index.search(feat_QD, k)[1])


INDEXES: dict[str, Callable[[Matrix, State], Index]] = {"exact": Exact, "ivf": Ivf, "hnsw": Hnsw}
"""Index by name; each is built from a bank and what an earlier one of that bank had learned."""


def build_index(cfg: GrafrConfig, bank_ND: Matrix, state: State) -> Index:
    """The configured index of a bank (N, D)."""
    name = cfg.index
    if name == "auto":
        name = "exact" if len(bank_ND) <= cfg.exact_up_to else "ivf"
    return INDEXES[name](bank_ND, state)


def lists_of(rows: int) -> int:
    """Lists for so many rows: the root of their number, as is usual, and PER_LIST rows each at the least."""
    return int(max(1, min(np.sqrt(rows), rows / PER_LIST)))


def blocks(bank_ND: Matrix) -> Iterator[slice]:
    """The bank's rows in slices of at most BLOCK numbers (one row at the least)."""
    step = max(1, BLOCK // max(1, bank_ND.shape[1]))
    for start in range(0, len(bank_ND), step):
        yield slice(start, min(start + step, len(bank_ND)))


def evenly(bank_ND: Matrix, count: int) -> Matrix:
    """At most so many rows, evenly spaced: the same ones whoever asks."""
    chosen = np.unique(np.linspace(0, len(bank_ND) - 1, min(count, len(bank_ND))).astype(np.int64))
    return np.ascontiguousarray(bank_ND[chosen])


@contextmanager
def by_products() -> Iterator[None]:
    """faiss comparing many rows with many by matrix products: by default it does so for huge batches only."""
    before = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = 20
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = before


@contextmanager
def one_thread() -> Iterator[None]:
    """faiss with a single thread for a while."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _planned(width: int, plan: str) -> Any:
    """An empty index by faiss' name for it; SQ8: eight bits per number."""
    return faiss.index_factory(width, plan)


def _means(sample_ND: Matrix, count: int) -> Matrix:
    kmeans = faiss.Kmeans(sample_ND.shape[1], count, niter=10, min_points_per_centroid=1)
    with by_products():
        kmeans.train(sample_ND)
    return np.asarray(kmeans.centroids)


def _fits(list_N: Rows, rows: int, lists: int) -> bool:
    return list_N.shape == (rows,) and int(list_N.min()) >= 0 and int(list_N.max()) < lists


OTHER_BANK, RECOPY = "The index is not that of this bank.", "Copy the bundle again from where it was made."
