"""What bf16, channels last and HDLC's product of windows bring on a CPU; each side in turn, in CPU time.

Shapes: B batch, N cells, S features, F filters.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.training_rounds import CPU, sized, timed, varied, with_spread
from benchmarks.training_sides import BACKBONES, ours, settings
from cotray.classification.hdlc import HDLC
from cotray.config import Config
from cotray.features.zoo import build_backbone
from cotray.fitting.job import length
from cotray.predictor import load_net

WAYS = (("fp32", False), ("fp32", True), ("bf16", False), ("bf16", True))
"""train.precision, train.channels_last; the first is what the others are measured against."""


def on_cpu(config: Config, given: Any) -> Iterator[list[str]]:
    """A line for each model: plain fp32's rate, and what the other ways bring."""
    ways = [f"{precision}{', channels last' * last}" for precision, last in WAYS[1:]]
    yield ["model", "batch", "fp32, images/s", *ways, "features, channels last"]
    for model in given.models:
        section = settings(model, config)
        made = sized(model, varied(section, False, False, "fp32"), given, CPU)
        fits = [ours(replace(made, config=varied(section, False, last, p).train), CPU) for p, last in WAYS]
        found = [[timed(fit.epoch, CPU) for fit in fits] for _ in range(given.rounds + 1)][1:]
        rate = length(made.train) / median(row[0][0] for row in found)
        told = [with_spread([row[0][1] / row[way][1] for row in found]) for way in range(1, len(WAYS))]
        features = with_spread(predicted(section, given.rounds)) if model in BACKBONES else "-"
        yield [model, str(section.train.batch_size), f"{rate:.4g}", *told, features]


@torch.no_grad()
def predicted(section: Any, rounds: int) -> list[float]:
    """A round's CPU time for features of a batch as torch builds the network, by that as cotray loads it."""
    plain = build_backbone(section).eval()
    loaded = load_net(build_backbone(section), plain.state_dict(), "backbone")
    x_B3SS = torch.rand(64, 3, section.image_size, section.image_size)
    work = [functools.partial(net, x_B3SS) for net in (plain, loaded)]
    found = [[timed(one, CPU)[1] for one in work] for _ in range(rounds + 1)][1:]
    return [row[0] / row[1] for row in found]


# ---- HDLC's first layers ---------------------------------------------------------------------------------


class Convolved(HDLC):
    """HDLC as the paper words it."""

    def forward(self, feat_NS: Tensor) -> Tensor:
        """(N, S) float32 -> logits of malignant (N,)."""
        maps_NFS = torch.relu(self.conv(((feat_NS - self.mean) * self.scale)[:, None]))
        out: Tensor = self.dense(self.merge(maps_NFS.transpose(1, 2))[..., 0])[:, 0]
        return out


def hdlc_ways(config: Config, given: Any) -> Iterator[list[str]]:
    """A line for each number of features: a step of each way, forward and backward."""
    yield ["features", "precision", "convolution, ms", "windows, ms", "ratio (single rounds)"]
    for features in (64, 512, 4608):
        nets = [kind(config.hdlc, features) for kind in (Convolved, HDLC)]
        feat = torch.randn(config.hdlc.train.batch_size, features)
        for precision in ("fp32", "bf16"):
            steps = [functools.partial(hdlc_step, net, feat, precision == "bf16") for net in nets]
            found = [[timed(step, CPU)[1] for step in steps] for _ in range(given.rounds + 1)][1:]
            told = [f"{1e3 * median(row[side] for row in found):.1f}" for side in (0, 1)]
            yield [str(features), precision, *told, with_spread([row[0] / row[1] for row in found])]


def hdlc_step(net: HDLC, feat_NS: Tensor, mixed: bool) -> None:
    """Forward and backward, without the optimizer."""
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        logit = net(feat_NS)
    logit.float().square().mean().backward()
