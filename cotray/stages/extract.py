"""Extract: backbone features of every cell, then graph reconstruction against the training bank."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from cotray.config import Config
from cotray.data.decode import decode_stored
from cotray.features.coreset import coreset
from cotray.features.grafr import GraFR, Matrix
from cotray.learning import derive_seed
from cotray.predictor import Embedder
from cotray.runs import StageResult
from cotray.stages.base import Stage, StageRun
from cotray.stages.cells import column, labels
from cotray.stages.cluster import use_gpu
from cotray.stages.parts import Plan, part_name, run_parts
from cotray.stages.synthetic import judge_features
from cotray.stages.weights import array_bytes, load_fitted, read_array
from cotray.storage import Folder

State = dict[str, NDArray[Any]]
"""What an index learned, by name."""


def run(config: Config, at: StageRun) -> StageResult:
    """Features of real and synthetic cells; only real training cells enter GraFR's bank.

    Synthetic cells are judged here too: by the backbone's features, before reconstruction.
    """
    segment, synthetic = at.input("segment"), at.input("synthesize")
    trained = StageRun("train_backbone", at.run, "")
    at.input("train_backbone")
    fitted = load_fitted(trained, "backbone")
    assert fitted is not None  # the stage is complete, so its weights are there
    sources = _sources(segment, synthetic, at)
    device = "cuda" if use_gpu(config.compute) else "cpu"
    work = functools.partial(_Extractor, config, fitted.weights["backbone"], device)
    run_parts(Plan("features", work, sources, at.folder / "features", actors=True), config.compute, at)
    rows, feat = _collect(segment, synthetic, at.folder / "features", len(sources))
    rec, bank, state = _reconstruct(config, rows, feat)
    at.folder.write_parquet("manifest.parquet", rows)
    at.folder.write_bytes("features.npy", array_bytes(rec))
    _save_bank(at.folder, bank, state)
    counts = {
        "cells": len(rows),
        "bank": len(bank),
        "backbone_features": feat.shape[1],
        "features": rec.shape[1],
    }
    files = {
        "manifest": "manifest.parquet",
        "features": "features.npy",
        "bank": "bank.npy",
        "index": "index.safetensors",
    }
    judged = judge_features(rows, feat, derive_seed(config.seed, 16))
    return StageResult(counts, judged.metrics, files, judged.alarms.notes())


def _sources(segment: Folder, synthetic: Folder, at: StageRun) -> list[tuple[str, str]]:
    parts = at.run.need("ingest").result.counts["parts"]
    real = [((segment / "cells").uri, part_name(i)) for i in range(parts)]
    return [*real, (synthetic.uri, "cells.parquet")]


class _Extractor:
    """Holds the backbone in a Ray actor; rows come out with their features in place of pixels."""

    def __init__(self, config: Config, weights: dict[str, Any], device: str) -> None:
        self.embed = Embedder(config, weights, device)

    def __call__(self, part: int, source: tuple[str, str]) -> pa.Table:
        rows = Folder(source[0]).read_parquet(source[1], ["id", "image"])
        images = [decode_stored(data) for data in rows["image"].to_pylist()]
        feat = self.embed(np.stack(images) if images else np.zeros((0, 1, 1, 3), np.uint8))
        values = pa.array(list(feat.astype(np.float32)), pa.list_(pa.float32()))
        return pa.table({"id": rows["id"], "feature": values})


def _collect(
    segment: Folder, synthetic: Folder, folder: Folder, parts: int
) -> tuple[pa.Table, NDArray[np.float32]]:
    """Manifest rows (real, then synthetic) and their features in the same order."""
    rows = pa.concat_tables([f.read_parquet("manifest.parquet") for f in (segment, synthetic)])
    feature: dict[str, Any] = {}
    for part in range(parts):
        table = folder.read_parquet(part_name(part), ["id", "feature"])
        values = table["feature"].combine_chunks()
        width = len(values[0]) if len(values) else 0
        matrix = np.asarray(values.flatten(), np.float32).reshape(len(values), width)
        feature.update(zip(table["id"].to_pylist(), matrix, strict=True))
    return rows, np.stack([feature[name] for name in rows["id"].to_pylist()])


def _reconstruct(config: Config, rows: pa.Table, feat_ND: Matrix) -> tuple[Matrix, Matrix, State]:
    """(reconstructed features of all rows, bank, its index' state). Bank cells do not see themselves."""
    in_bank = kept_in_bank(config, rows, feat_ND)
    grafr = GraFR(config.grafr)
    bank = np.ascontiguousarray(feat_ND[in_bank])
    inside = grafr.fit_transform(bank)
    out = np.empty((len(rows), inside.shape[1]), np.float32)
    out[in_bank] = inside
    if (~in_bank).any():
        out[~in_bank] = grafr.transform(np.ascontiguousarray(feat_ND[~in_bank]))
    return out, bank, grafr.state()


def kept_in_bank(config: Config, rows: pa.Table, feat_ND: Matrix) -> NDArray[np.bool_]:
    """Which rows form the bank: those of :func:`bank_rows`, or their coreset where one is asked for."""
    in_bank = bank_rows(rows)
    if config.grafr.coreset is None:
        return in_bank
    known = np.flatnonzero(in_bank)
    feat, label = np.ascontiguousarray(feat_ND[known]), labels(rows)[known]
    kept = np.zeros_like(in_bank)
    kept[known[coreset(feat, label, config.grafr.coreset, derive_seed(config.seed, 15))]] = True
    return kept


def _save_bank(folder: Folder, bank_ND: Matrix, state: State) -> None:
    """``bank.npy``, and what its index learned as safetensors (an exact search learns nothing)."""
    folder.write_bytes("bank.npy", array_bytes(bank_ND))
    kept = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()}
    folder.write_bytes("index.safetensors", save_tensors(kept))


def load_bank(at: StageRun) -> dict[str, torch.Tensor]:
    """``bank`` (N, D), mapped where the disk is local, and its index' state: a bundle's GraFR part."""
    folder = at.input("extract")
    if folder.is_local:
        bank = np.load(folder.at("bank.npy"), mmap_mode="c", allow_pickle=False)
    else:
        bank = read_array(folder.read_bytes("bank.npy"))
    return {"bank": torch.from_numpy(bank), **load_tensors(folder.read_bytes("index.safetensors"))}


def bank_rows(rows: pa.Table) -> NDArray[np.bool_]:
    """Which rows may form the bank: real cells of the training split."""
    real = column(rows, "source") == "real"
    return np.asarray(real & (column(rows, "split") == "train"))


def load_features(at: StageRun) -> tuple[pa.Table, NDArray[np.float32]]:
    """(manifest rows, reconstructed features) written by this stage."""
    folder = at.input("extract")
    return folder.read_parquet("manifest.parquet"), read_array(folder.read_bytes("features.npy")).astype(
        np.float32
    )


def select_rows(rows: pa.Table, splits: Sequence[str], source: str | None = None) -> NDArray[np.bool_]:
    """Labelled rows of the given splits (and source)."""
    keep = np.isin(column(rows, "split"), list(splits))
    if source:
        keep &= column(rows, "source") == source
    return np.asarray(keep & np.asarray([value is not None for value in rows["label"].to_pylist()]))


STAGE = Stage(
    name="extract",
    summary="backbone features and graph reconstruction of every cell",
    version=3,
    sections=("grafr",),
    needs=("train_backbone",),
    run=run,
)
