"""GraFR: graph-based feature reconstruction (paper, Eq. 10-13; our decisions in docs/method.md).

Nodes are cells, an edge's weight is the Euclidean distance d, similarity is 1/(d + eps), and a cell's
reconstruction is the similarity-weighted mean of its k most similar neighbours in a bank of training
cells, itself excluded. Cells outside the bank query it and never enter it.

The bank may be mapped from disk: it is read where neighbours are, never copied.

Shapes: N bank cells, Q queries, K neighbours, P proposed rows, D features. Memory is O(Q*P*D) for a chunk of
queries and a block of the bank with all neighbours, never O(N*D) or O(Q*N).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from cotray.config import GrafrConfig
from cotray.errors import FeatureError
from cotray.features.neighbours import Index, blocks, build_index

Matrix = NDArray[np.float32]
Rows = NDArray[np.int64]
CHUNK = 512
"""Queries at a time, at most."""
GATHERED = 2**25
"""Numbers of proposed rows at a time, at most (128 MiB): wide features make smaller chunks."""


class GraFR:
    """Reconstructs feature vectors from their neighbours in a bank."""

    def __init__(self, cfg: GrafrConfig) -> None:
        self.cfg = cfg
        self.bank_ND: Matrix = np.zeros((0, 0), np.float32)
        self._index: Index | None = None

    def fit(self, bank_ND: Matrix, state: Mapping[str, NDArray[Any]] | None = None) -> GraFR:
        """Take the bank: (N, D) float32; with ``state`` of an earlier fit its index is not learned anew.

        Raises FeatureError where the bank is empty or not finite, or ``state`` is another bank's.
        """
        bank = np.ascontiguousarray(bank_ND, np.float32)
        if bank.ndim != 2 or not len(bank):
            raise FeatureError("GraFR needs a bank of at least one training cell.")
        for part in blocks(bank):
            _require_finite(bank[part])
        self.bank_ND = bank
        self._index = build_index(self.cfg, bank, state or {}) if self.cfg.k else None
        return self

    def state(self) -> dict[str, NDArray[Any]]:
        """What the index learned, to be kept beside the bank; nothing where the search is exact."""
        return self._index.state() if self._index else {}

    def transform(self, feat_QD: Matrix) -> Matrix:
        """Queries from outside the bank: (Q, D) -> (Q, 2D) for `concat`, (Q, D) for `replace`."""
        return self._run(feat_QD, own=None)

    def fit_transform(self, bank_ND: Matrix) -> Matrix:
        """Fit, and reconstruct the bank's own cells, each without itself. A lone cell stays as it is."""
        self.fit(bank_ND)
        return self._run(self.bank_ND, own=np.arange(len(self.bank_ND)))

    def _run(self, feat_QD: Matrix, own: Rows | None) -> Matrix:
        feat = np.ascontiguousarray(feat_QD, np.float32)
        if feat.ndim != 2 or feat.shape[1] != self.bank_ND.shape[1]:
            raise FeatureError(f"GraFR's bank has {self.bank_ND.shape[1]} features, these are {feat.shape}.")
        step = self._chunk_size()
        parts = []
        for start in range(0, len(feat), step):
            part = feat[start : start + step]
            _require_finite(part)
            parts.append(self._chunk(part, None if own is None else own[start : start + step]))
        made = np.concatenate(parts) if parts else np.zeros_like(feat)
        return np.concatenate([feat, made], axis=1) if self.cfg.mode == "concat" else made

    def _chunk_size(self) -> int:
        if self._index is None:
            return CHUNK
        asked = self._index.asked((self.cfg.k or 0) + 1)
        return int(max(1, min(CHUNK, GATHERED // (asked * max(1, self.bank_ND.shape[1])))))

    def _chunk(self, feat_QD: Matrix, own_Q: Rows | None) -> Matrix:
        """Reconstructions of one chunk of queries (Eq. 10-13)."""
        if len(self.bank_ND) == 1 and own_Q is not None:
            return feat_QD
        if self.cfg.k is None or self._index is None:
            return self._from_all(feat_QD, own_Q)
        row_QP = propose(self._index, self.bank_ND, feat_QD, self.cfg.k + (own_Q is not None))
        bank_QPD = self.bank_ND[row_QP]
        # The index' distances lose precision between near-equal vectors; similarity 1/d magnifies that.
        distance_QP = np.linalg.norm(bank_QPD - feat_QD[:, None], axis=2).astype(np.float64)  # Eq. 10
        distance_QP[row_QP < 0] = np.inf
        if own_Q is not None:
            distance_QP[row_QP == own_Q[:, None]] = np.inf
        weight_QP = self._weights(distance_QP)
        return np.asarray(np.einsum("qp,qpd->qd", weight_QP, bank_QPD, optimize=True), np.float32)

    def _weights(self, distance_QP: NDArray[np.float64]) -> NDArray[np.float64]:
        """Similarities (Eq. 11) of the k nearest (Eq. 12), summing to 1 (Eq. 13); 0 for the others."""
        order_QP = np.argsort(distance_QP, axis=1, kind="stable")
        similarity_QP = 1.0 / (distance_QP + self.cfg.eps)
        np.put_along_axis(similarity_QP, order_QP[:, self.cfg.k :], 0.0, axis=1)
        return np.asarray(similarity_QP / similarity_QP.sum(axis=1, keepdims=True))

    def _from_all(self, feat_QD: Matrix, own_Q: Rows | None) -> Matrix:
        """Eq. 13 as printed: every bank cell takes part; the bank is walked through in blocks."""
        from scipy.spatial.distance import cdist

        total_Q, mixed_QD = np.zeros((len(feat_QD), 1)), np.zeros(feat_QD.shape)
        for part in blocks(self.bank_ND):
            block_ND = self.bank_ND[part]
            similarity_QN = 1.0 / (cdist(feat_QD, block_ND) + self.cfg.eps)
            if own_Q is not None:
                inside_Q = (own_Q >= part.start) & (own_Q < part.stop)
                similarity_QN[np.flatnonzero(inside_Q), own_Q[inside_Q] - part.start] = 0.0
            total_Q += similarity_QN.sum(axis=1, keepdims=True)
            mixed_QD += similarity_QN @ block_ND
        return np.asarray(mixed_QD / total_Q, np.float32)


def propose(index: Index, bank_ND: Matrix, feat_QD: Matrix, k: int) -> Rows:
    """(Q, P) rows among which the k nearest of each query are sought, -1 for none.

    At least k of each query are there where the bank has so many.
    """
    wanted = min(index.asked(k), len(bank_ND))
    row_QP = index.search(feat_QD, wanted)
    short_Q = (row_QP >= 0).sum(axis=1) < min(k, len(bank_ND))
    if short_Q.any():  # an approximate index looked into too few rows
        row_QP[short_Q] = faiss.knn(feat_QD[short_Q], bank_ND, wanted)[1]
    return row_QP


def _require_finite(feat: Matrix) -> None:
    if not np.isfinite(feat).all():
        raise FeatureError(
            "Some features are not finite.", cure="Train the backbone again with a lower rate."
        )
