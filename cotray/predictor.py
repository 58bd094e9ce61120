"""The whole method on one image: a bundle in, answers out. Stages use the same functions, so that a
served answer is the one that was evaluated.

Shapes: N cells, S cell side, D features, H W pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from cotray.bundle import Bundle
from cotray.classification.calibration import apply_temperature, sigmoid
from cotray.classification.hdlc import HDLC
from cotray.config import Config
from cotray.errors import BundleError
from cotray.evaluation.aggregate import aggregate_cells
from cotray.features.grafr import GraFR
from cotray.features.learner import to_input
from cotray.features.zoo import build_backbone
from cotray.imaging.masks import cut_cell
from cotray.imaging.resize import resize_square
from cotray.imaging.roi import find_cells
from cotray.preparation import decode as decode  # stages take it from here
from cotray.preparation import load_tools, prepare_noted
from cotray.preparation import prepare as prepare  # stages take it from here
from cotray.segmentation.registry import SEGMENTERS, Segmenter

Rgb = NDArray[np.uint8]
CLASSES = ("normal", "malignant")


@dataclass(frozen=True)
class Cell:
    """A leukocyte found in an image."""

    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]
    score: float
    """IoU that the segmenter predicts for the mask."""
    image: Rgb
    """(S, S, 3), the cell on black."""


@dataclass(frozen=True)
class Answer:
    """What is said about one image."""

    label: str
    """`normal`, `malignant`, or `no_cell` where no leukocyte was found."""
    probability: float | None
    """Calibrated probability of malignant; None without a cell."""
    cells: list[dict[str, Any]]
    """Per cell: box (x0, y0, x1, y1), probability, mask_score."""
    model_version: str
    set: list[str] | None = None
    """Classes that cannot be ruled out at the bundle's level (:mod:`cotray.classification.conformal`);
    None where the bundle knows no sets."""
    note: str | None = None
    """Why the image's stain could not be normalised, where the bundle was trained on stains that were."""

    @property
    def refer(self) -> bool | None:
        """Whether a hematologist should look: the set does not hold one class alone."""
        return None if self.set is None else len(self.set) != 1

    @property
    def box(self) -> list[int] | None:
        """Box of the most suspicious cell."""
        top = max(self.cells, key=lambda c: c["probability"], default=None)
        return list(top["box"]) if top else None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form: what HTTP and the CLI answer."""
        return {
            "class": self.label,
            "probability": self.probability,
            "set": self.set,
            "refer": self.refer,
            "box": self.box,
            "cells": self.cells,
            "model_version": self.model_version,
            **({"note": self.note} if self.note else {}),
        }


def cut_cells(rgb: Rgb, segmenter: Segmenter, config: Config, *, single: bool) -> list[Cell]:
    """Boxes from the region-of-interest step, masks from LeuSAM (or a rival), cut-outs on black."""
    boxes = [region.box for region in find_cells(rgb, config.roi, single=single)]
    if not boxes:
        return []
    masks, scores = segmenter.segment(rgb, boxes)
    size, margin = config.segment.cell_size, config.segment.cell_margin
    return [
        Cell(box, mask, float(score), cut_cell(rgb, mask, size, margin))
        for box, mask, score in zip(boxes, masks, scores, strict=True)
        if mask.any()
    ]


def load_net(net: nn.Module, state: Mapping[str, Tensor], what: str) -> nn.Module:
    """``net`` with its weights, ready to predict. Raises BundleError where they do not fit."""
    try:
        net.load_state_dict(dict(state))
    except RuntimeError as error:
        raise BundleError(f"The {what} weights do not fit their settings: {str(error)[:200]}") from error
    # Convolutions are up to 1.7 times as fast with channels last, with the same sums but for rounding.
    return convert_conv2d_weight_memory_format(net.eval(), torch.channels_last)


def build_segmenter(config: Config, state: Mapping[str, Tensor], device: str = "cpu") -> Segmenter:
    """What `segment.model` names, with its weights, behind its numpy API. Raises BundleError."""
    segment = config.segment
    if segment.detail and not any(name.startswith("detail.") for name in state):
        # A bundle of before the fine path and drawn prompts; vit_* has neither.
        segment = segment.model_copy(update={"detail": 0, "drawn_prompts": False})
    kind = SEGMENTERS[segment.model]
    net = load_net(kind.build_net(segment), state, kind.title) if kind.build_net else None
    return kind.build_segmenter(net, segment, device)


class Embedder:
    """Backbone features of cells, in batches."""

    def __init__(self, config: Config, state: Mapping[str, Tensor], device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.size = config.backbone.image_size
        self.net: Any = load_net(build_backbone(config.backbone), state, "backbone").to(self.device)

    @torch.no_grad()
    def __call__(self, cells_NSS3: NDArray[np.uint8], batch: int = 64) -> NDArray[np.float32]:
        """(N, S, S, 3) uint8 -> (N, D) float32."""
        out = [np.zeros((0, self.net.feature_dim), np.float32)]
        for start in range(0, len(cells_NSS3), batch):
            images = resize_square(cells_NSS3[start : start + batch], self.size)
            x = to_input(torch.from_numpy(images).to(self.device))
            out.append(self.net.features(x).float().cpu().numpy())
        return np.concatenate(out)


class Classifier:
    """GraFR + selection + HDLC + calibration: backbone features -> probability."""

    def __init__(self, bundle: Bundle) -> None:
        known = {name: value.numpy() for name, value in bundle.tensors["grafr"].items()}
        self.grafr = GraFR(bundle.config.grafr).fit(known.pop("bank"), known)
        self.mask = bundle.tensors["selection"]["mask"].numpy().astype(bool)
        self.hdlc = load_net(HDLC(bundle.config.hdlc, int(self.mask.sum())), bundle.tensors["hdlc"], "HDLC")
        self.temperature = bundle.temperature

    @torch.no_grad()
    def __call__(self, feat_ND: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N, D) float32 -> (N,) calibrated probability of malignant."""
        if not len(feat_ND):
            return np.zeros(0)
        return self.from_reconstructed(self.grafr.transform(feat_ND))

    @torch.no_grad()
    def from_reconstructed(self, rec_ND: NDArray[np.float32]) -> NDArray[np.float64]:
        """The same from features that went through GraFR already."""
        logits = self.hdlc(torch.from_numpy(np.ascontiguousarray(rec_ND[:, self.mask]))).numpy()
        return np.asarray(sigmoid(apply_temperature(logits.astype(np.float64), self.temperature)))


class Predictor:
    """Answers images with a bundle; CPU, no Ray."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.config = bundle, bundle.config
        load_tools(self.config.enhance)  # what is missing is told now, not at the first image
        self.segmenter = build_segmenter(self.config, bundle.tensors["leusam"])
        self.embed = Embedder(self.config, bundle.tensors["backbone"])
        self.classify = Classifier(bundle)

    def predict(self, data: bytes) -> Answer:
        """Answer one encoded image. Raises DecodeError."""
        return self.predict_many([data])[0]

    def predict_many(self, images: Sequence[bytes]) -> list[Answer]:
        """Answer several; one forward for all their cells. Raises DecodeError."""
        ready = [prepare_noted(decode(data, self.config), self.config) for data in images]
        found = [self._cells(image.rgb) for image in ready]
        cells = [cell for group in found for cell in group]
        size = self.config.segment.cell_size
        stack = np.stack([c.image for c in cells]) if cells else np.zeros((0, size, size, 3), np.uint8)
        probability = self.classify(self.embed(stack))
        answers, start = [], 0
        for image, group in zip(ready, found, strict=True):
            answer = self._answer(group, probability[start : start + len(group)])
            answers.append(dataclasses.replace(answer, note=image.stain_left))
            start += len(group)
        return answers

    def _cells(self, rgb: Rgb) -> list[Cell]:
        return cut_cells(rgb, self.segmenter, self.config, single=self.bundle.single_cell)

    def _answer(self, cells: list[Cell], probability_N: NDArray[np.float64]) -> Answer:
        rows = [
            {"box": list(c.box), "probability": round(float(p), 6), "mask_score": round(c.score, 4)}
            for c, p in zip(cells, probability_N, strict=True)
        ]
        if not rows:
            unknown = list(CLASSES) if self.bundle.sets else None
            return Answer("no_cell", None, [], self.bundle.version, unknown)
        index = np.zeros(len(rows), np.int64)
        overall = float(aggregate_cells(probability_N, index, 1, self.config.evaluate.aggregate)[0])
        threshold, sets = self.bundle.threshold, self.bundle.sets
        label = CLASSES[int(overall >= threshold)]
        named = sets.names(overall, threshold) if sets else None
        return Answer(label, round(overall, 6), rows, self.bundle.version, named)
