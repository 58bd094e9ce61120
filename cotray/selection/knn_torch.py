"""The k-nearest-neighbour engine for GPUs: a population at once, and to the last bit what `knn` gives.

Features are the same whole numbers. Their squared distances are matrix products in double precision, exact
because they stay far below 2^53; neighbours are the smallest keys ``distance * T + row``, which are exact too
and never equal. So neither the device nor the size of a batch decides anything but speed.

P masks of a batch, S features of the largest one, D features, Q queries of a batch, T training rows,
K neighbours, R repeats, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cotray.selection.fitness import Codes, Masks, Values
from cotray.selection.knn import KnnFitness

LEAST = 64
"""Queries that are always answered together, however small the memory allowed."""


class _Tables(NamedTuple):
    """The data on the device."""

    query_DQ: torch.Tensor
    """With one more feature, of zeros, that fills up the smaller masks of a batch."""
    train_DT: torch.Tensor
    fold_RQ: torch.Tensor
    fold_RT: torch.Tensor
    label_T: torch.Tensor


class TorchKnnFitness(KnnFitness):
    """Majority vote of the k nearest samples of other folds, on the GPU if there is one.

    A batch takes about `cache_mb` of the device's memory.
    """

    def errors(self, mask_PD: Masks) -> Values:
        """Error of each mask in each repeat: (P, R)."""
        called_PRQ, given_PRQ = self.batch(mask_PD)
        return np.stack(
            [
                self.score(called, given, self.query_Q)
                for called, given in zip(called_PRQ, given_PRQ, strict=True)
            ]
        )

    def answers(self, mask_D: NDArray[np.bool_]) -> tuple[Codes, Values]:
        """Class called for each query in each repeat, and share of votes for its true class: both (R, Q)."""
        called_PRQ, given_PRQ = self.batch(mask_D[None])
        return called_PRQ[0], given_PRQ[0]

    def batch(self, mask_PD: Masks) -> tuple[Codes, Values]:
        """The same for each of several masks: both (P, R, Q)."""
        shape = (len(mask_PD), *self.fold_RQ.shape)
        called_PRQ, given_PRQ = np.full(shape, -1, np.int64), np.zeros(shape)
        order = np.argsort(np.count_nonzero(mask_PD, axis=1), kind="stable")  # little to fill up
        masks, queries = self._batch_size(mask_PD)
        for p in range(0, len(order), masks):
            for q in range(0, self.fold_RQ.shape[1], queries):
                chosen, asked = order[p : p + masks], slice(q, q + queries)
                votes_PRQC = self._votes(mask_PD[chosen], asked)
                truth_1Q = self.label_N[self.query_Q[asked]][None, None, :, None]
                own_PRQ = np.take_along_axis(votes_PRQC, truth_1Q, axis=3)[..., 0]
                given_PRQ[chosen, :, asked] = own_PRQ / np.maximum(1, votes_PRQC.sum(axis=3))
                called_PRQ[chosen, :, asked] = votes_PRQC.argmax(axis=3)
        asked_RQ = self.fold_RQ >= 0
        return np.where(asked_RQ, called_PRQ, -1), np.where(asked_RQ, given_PRQ, 0.0)

    def _batch_size(self, mask_PD: Masks) -> tuple[int, int]:
        """Masks and queries that are answered together."""
        queries, rows = self.fold_RQ.shape[1], len(self.label_T)
        size, room = int(mask_PD.sum(axis=1).max(initial=1)), self.cfg.cache_mb * 2**20 / 8
        each = 3 * rows + 2 * size  # doubles for a query: keys, a repeat's keys, what sorting needs; features
        if queries * each + 2 * rows * size <= room:
            return int(room // (queries * each + 2 * rows * size)), queries
        return 1, int(np.clip(room // each, LEAST, max(LEAST, queries)))

    def _votes(self, mask_PD: Masks, asked: slice) -> NDArray[np.int64]:
        """Neighbours of each class: (P, R, Q, C)."""
        tables = self._tables()
        rows = len(self.label_T)
        key_PQT = self._distances(mask_PD, asked).mul_(rows)
        key_PQT += torch.arange(rows, device=key_PQT.device, dtype=key_PQT.dtype)
        votes = []
        for fold_Q, fold_T in zip(tables.fold_RQ[:, asked], tables.fold_RT, strict=True):
            own_QT = fold_Q[:, None] == fold_T
            found = key_PQT.masked_fill(own_QT, torch.inf).topk(min(self.cfg.k, rows), largest=False)
            known_PQK = found.values.isfinite()
            label_PQK = tables.label_T[found.indices]
            votes.append(
                torch.stack([((label_PQK == c) & known_PQK).sum(dim=2) for c in range(self.classes)], dim=2)
            )
        return np.asarray(torch.stack(votes, dim=1).cpu().numpy())

    def _distances(self, mask_PD: Masks, asked: slice) -> torch.Tensor:
        """Squared distances: (P, Q, T) whole numbers in double precision."""
        tables = self._tables()
        size_P = np.count_nonzero(mask_PD, axis=1)
        taken_PS = np.full((len(mask_PD), max(1, int(size_P.max()))), mask_PD.shape[1])
        for taken_S, mask_D in zip(taken_PS, mask_PD, strict=True):
            taken_S[: np.count_nonzero(mask_D)] = np.flatnonzero(mask_D)
        taken = torch.from_numpy(taken_PS).to(tables.query_DQ.device)
        query_PSQ, train_PST = tables.query_DQ[:, asked][taken], tables.train_DT[taken]
        distance_PQT = torch.bmm(query_PSQ.transpose(1, 2), train_PST).mul_(-2)
        distance_PQT += query_PSQ.square().sum(dim=1)[:, :, None]
        distance_PQT += train_PST.square().sum(dim=1)[:, None]
        return distance_PQT

    # -- the data on the device: made when first needed, never pickled -----------------------------------

    def _tables(self) -> _Tables:
        if self._on_device is None:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            numbers = [np.pad(table, ((0, 1), (0, 0))) for table in (self.query_DQ, self.train_DT)]
            self._on_device = _Tables(
                *(torch.as_tensor(table, dtype=torch.float64, device=device) for table in numbers),
                *(torch.tensor(t, device=device) for t in (self.fold_RQ, self.fold_RT, self.label_T)),
            )
        return self._on_device

    def _forget(self) -> None:
        self._on_device = None

    _on_device: _Tables | None
