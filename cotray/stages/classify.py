"""Classify: HDLC on the selected features; temperature, threshold, class sets from validation; the bundle."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from cotray.bundle import Bundle, save_bundle
from cotray.classification.hdlc import HDLC
from cotray.classification.learner import HdlcLearner
from cotray.config import Config
from cotray.fitting.job import Arrays, Job
from cotray.learning import Weights, derive_seed
from cotray.predictor import load_net
from cotray.preparation import carried
from cotray.runs import StageResult
from cotray.segmentation.registry import SEGMENTERS
from cotray.stages.base import Stage, StageRun
from cotray.stages.cells import class_weight, labels
from cotray.stages.extract import load_bank, load_features, select_rows
from cotray.stages.ingest import single_cell
from cotray.stages.train_backbone import require_two_classes
from cotray.stages.training import fit
from cotray.stages.trust import Calibration, calibrate, too_few_groups
from cotray.stages.weights import load_fitted, read_array


def run(config: Config, at: StageRun) -> StageResult:
    """Train HDLC, calibrate it on validation and write the bundle. Raises ClassError, TrainingError."""
    rows, feat = load_features(at)
    mask = read_array(at.input("select").read_bytes("mask.npy")).astype(bool)
    label = labels(rows)
    train, valid = select_rows(rows, ("train",)), select_rows(rows, ("val",), "real")
    require_two_classes(label[train])
    job = hdlc_job(config, _arrays(feat, label, train, mask), _arrays(feat, label, valid, mask))
    fitted = fit(job, config.compute, at)
    logit = _logits(config, fitted.weights, feat[valid][:, mask])
    known = calibrate(config, rows.filter(pa.array(valid)), logit)
    bundle = save_bundle(at.folder / "bundle", _bundle(config, at, mask, fitted.weights, known))
    counts = {"train_cells": int(train.sum()), "val_cells": int(valid.sum()), "features": int(mask.sum())}
    metrics = {"temperature": known.temperature, "threshold": known.threshold, **known.metrics}
    notes = [f"bundle {bundle.version}", *filter(None, [too_few_groups(known.sets)])]
    return StageResult(counts, metrics, {"bundle": "bundle"}, notes)


def hdlc_job(config: Config, train: Arrays, valid: Arrays) -> Job:
    """HDLC as a training job."""
    seed = derive_seed(config.seed, 30)
    width = train["feature"].shape[1]
    weight = class_weight(train["label"])
    # Double precision: in single, a constant feature of many cells gets a deviation above zero.
    wide = train["feature"].astype(np.float64)
    scale = (wide.mean(0).astype(np.float32), wide.std(0).astype(np.float32))
    build = functools.partial(build_learner, config, width, seed, weight, scale)
    return Job("hdlc", build, train, valid, config.hdlc.train, seed)


def build_learner(
    config: Config,
    width: int,
    seed: int,
    weight: tuple[float, float],
    scale: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> HdlcLearner:
    """An HDLC learner that standardises its input by the training split's mean and deviation."""
    learner = HdlcLearner(config.hdlc, width, seed, weight)
    hdlc = learner.nets["hdlc"]
    assert isinstance(hdlc, HDLC)
    hdlc.set_scale(torch.from_numpy(scale[0]), torch.from_numpy(scale[1]))
    return learner


def _arrays(
    feat_ND: NDArray[np.float32], label_N: NDArray[np.int64], keep: NDArray[np.bool_], mask: NDArray[np.bool_]
) -> Arrays:
    return {"feature": np.ascontiguousarray(feat_ND[keep][:, mask]), "label": label_N[keep]}


@torch.no_grad()
def _logits(config: Config, weights: Weights, feat_ND: NDArray[np.float32]) -> NDArray[np.float64]:
    hdlc = load_net(HDLC(config.hdlc, feat_ND.shape[1]), weights["hdlc"], "HDLC")
    logit: NDArray[np.float64] = hdlc(torch.from_numpy(np.ascontiguousarray(feat_ND))).double().numpy()
    return logit


def _bundle(
    config: Config,
    at: StageRun,
    mask: NDArray[np.bool_],
    weights: Weights,
    known: Calibration,
) -> Bundle:
    def trained(stage: str, name: str) -> Weights:
        if name in SEGMENTERS and SEGMENTERS[name].build_net is None:
            return {name: {}}  # it has nothing to learn
        fitted = load_fitted(StageRun(stage, at.run, ""), name)
        assert fitted is not None  # that stage is complete
        return fitted.weights

    model = config.segment.model
    return Bundle(
        config=carried(config, at.run.stage("ingest")),
        tensors={
            "leusam": trained("segment", model)[model],
            "backbone": trained("train_backbone", "backbone")["backbone"],
            "grafr": load_bank(at),
            "selection": {"mask": torch.from_numpy(mask)},
            "hdlc": weights["hdlc"],
        },
        temperature=known.temperature,
        threshold=known.threshold,
        sets=known.sets,
        single_cell=single_cell(config),
        facts={"dataset": config.dataset.name, "preset": config.preset, "seed": config.seed},
    )


STAGE = Stage(
    name="classify",
    summary="train HDLC on the selected features; calibrate; write the bundle",
    version=3,
    sections=("hdlc",),
    needs=("extract", "select"),
    run=run,
    extra=lambda config: {"aggregate": config.evaluate.aggregate},
)
