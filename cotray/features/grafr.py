"""GraFR: graph-based feature reconstruction (paper, Eq. 10-13; our decisions in docs/method.md).

Nodes are cells, an edge's weight is the Euclidean distance d, similarity is 1/(d + eps), and a cell's
reconstruction is the similarity-weighted mean of its k most similar neighbours in a bank of training
cells, itself excluded. Cells outside the bank query it and never enter it.

Shapes: N bank cells, Q queries, K neighbours, D features. Memory is O(Q*K), never O(Q*N).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cotray.config import GrafrConfig
from cotray.errors import FeatureError

Matrix = NDArray[np.float32]
CHUNK = 512
"""Queries at a time: bounds the gathered neighbours to CHUNK * K * D numbers."""


class GraFR:
    """Reconstructs feature vectors from their neighbours in a bank."""

    def __init__(self, cfg: GrafrConfig) -> None:
        self.cfg = cfg
        self.bank_ND: Matrix = np.zeros((0, 0), np.float32)
        self._index: Any = None

    def fit(self, bank_ND: Matrix) -> GraFR:
        """Take the bank: (N, D) float32. Raises FeatureError where it is empty or not finite."""
        import faiss

        bank = np.ascontiguousarray(bank_ND, np.float32)
        if bank.ndim != 2 or not len(bank):
            raise FeatureError("GraFR needs a bank of at least one training cell.")
        _require_finite(bank)
        self.bank_ND = bank
        self._index = faiss.IndexFlatL2(bank.shape[1])
        self._index.add(bank)
        return self

    def transform(self, feat_QD: Matrix) -> Matrix:
        """Queries from outside the bank: (Q, D) -> (Q, 2D) for `concat`, (Q, D) for `replace`."""
        return self._run(feat_QD, own=None)

    def fit_transform(self, bank_ND: Matrix) -> Matrix:
        """Fit, and reconstruct the bank's own cells, each without itself. A lone cell stays as it is."""
        self.fit(bank_ND)
        return self._run(self.bank_ND, own=np.arange(len(self.bank_ND)))

    def _run(self, feat_QD: Matrix, own: NDArray[np.int64] | None) -> Matrix:
        feat = np.ascontiguousarray(feat_QD, np.float32)
        if feat.ndim != 2 or feat.shape[1] != self.bank_ND.shape[1]:
            raise FeatureError(f"GraFR's bank has {self.bank_ND.shape[1]} features, these are {feat.shape}.")
        _require_finite(feat)
        starts = range(0, len(feat), CHUNK)
        parts = [
            self._chunk(feat[s : s + CHUNK], None if own is None else own[s : s + CHUNK]) for s in starts
        ]
        made = np.concatenate(parts) if parts else np.zeros_like(feat)
        return np.concatenate([feat, made], axis=1) if self.cfg.mode == "concat" else made

    def _chunk(self, feat_QD: Matrix, own_Q: NDArray[np.int64] | None) -> Matrix:
        """Reconstructions of one chunk of queries (Eq. 11-13)."""
        if len(self.bank_ND) == 1 and own_Q is not None:
            return feat_QD
        if self.cfg.k is None:
            return self._from_all(feat_QD, own_Q)
        near_QK = self._neighbours(feat_QD, own_Q, self.cfg.k)
        bank_QKD = self.bank_ND[near_QK]
        # The index' distances lose precision between near-equal vectors; similarity 1/d magnifies that.
        distance_QK = np.linalg.norm(bank_QKD - feat_QD[:, None], axis=2)
        weight_QK = self._weights(distance_QK)
        return np.asarray(np.einsum("qk,qkd->qd", weight_QK, bank_QKD, optimize=True), np.float32)

    def _neighbours(self, feat_QD: Matrix, own_Q: NDArray[np.int64] | None, k: int) -> NDArray[np.int64]:
        """Indices (Q, K) of the nearest bank cells, the cell itself left out."""
        if own_Q is None:
            return np.asarray(self._index.search(feat_QD, min(k, len(self.bank_ND)))[1])
        k = min(k, len(self.bank_ND) - 1)
        found = np.asarray(self._index.search(feat_QD, k + 1)[1])
        # Among exact duplicates the cell itself may be missing from its own list: then the last one goes.
        is_self = found == own_Q[:, None]
        is_self[~is_self.any(axis=1), -1] = True
        return np.asarray(found[~is_self].reshape(len(feat_QD), k))

    def _from_all(self, feat_QD: Matrix, own_Q: NDArray[np.int64] | None) -> Matrix:
        """Eq. 13 as printed: every bank cell takes part."""
        from scipy.spatial.distance import cdist

        similarity = 1.0 / (cdist(feat_QD, self.bank_ND) + self.cfg.eps)
        if own_Q is not None:
            similarity[np.arange(len(own_Q)), own_Q] = 0.0
        weight = similarity / similarity.sum(axis=1, keepdims=True)
        return np.asarray(weight @ self.bank_ND, np.float32)

    def _weights(self, distance_QK: Matrix) -> NDArray[np.float64]:
        """Similarities (Eq. 11), summing to 1 over the neighbours."""
        similarity = 1.0 / (distance_QK.astype(np.float64) + self.cfg.eps)
        return np.asarray(similarity / similarity.sum(axis=1, keepdims=True))


def _require_finite(feat: Matrix) -> None:
    if not np.isfinite(feat).all():
        raise FeatureError(
            "Some features are not finite.", cure="Train the backbone again with a lower rate."
        )
