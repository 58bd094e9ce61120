"""The learned parts at the paper's size: shapes, parameters counted from formulas, one real training step.

Formulas: a dense layer has in * out + out parameters, a k x k convolution k * k * in * out + out, a norm
layer two per channel. B batch, S side, D features.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from cotray.classification.hdlc import HDLC
from cotray.classification.learner import HdlcLearner
from cotray.config import Config, load_config
from cotray.features.gmod import GMod
from cotray.features.grafr import GraFR
from cotray.features.learner import BackboneLearner
from cotray.features.smod import SMod
from cotray.features.zoo import build_backbone
from cotray.learning import Learner
from cotray.synthesis.learner import LeuGanLearner
from cotray.synthesis.leugan import Discriminator, Generator

PAPER = load_config("paper")
FILTERS = (3, 32, 64, 128, 256, 256)
WIDTH = 256 * (256 // 32) ** 2
"""The paper's 16,384 spatial features."""


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def dense(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def conv(inputs: int, outputs: int, kernel: int) -> int:
    return kernel * kernel * inputs * outputs + outputs


def paper(*overrides: str) -> Config:
    return load_config("paper", overrides=overrides)


# ---- counted -----------------------------------------------------------------------------------------------


def test_gmod() -> None:
    d, tokens, layers = 16 * 16 * 3, (256 // 16) ** 2, 12
    layer = 2 * 2 * d + dense(d, 3 * d) + dense(d, d) + dense(d, 4 * d) + dense(4 * d, d)
    with torch.device("meta"):
        net = GMod(PAPER.backbone)
        assert net(torch.empty(2, 3, 256, 256)).shape == (2, 3, 256, 256)
        assert net.tokens(torch.empty(2, 3, 256, 256)).shape == (2, tokens + 1, d)
    assert parameters(net) == dense(d, d) + d + (tokens + 1) * d + layers * layer + 2 * d


@pytest.mark.parametrize("order", ["eq9", "alg1"])
def test_smod(order: str) -> None:
    cfg = paper(f"backbone.smod.order={order}").backbone.smod
    with torch.device("meta"):
        net = SMod(cfg)
        sides = [64 * 4, 128, 64, 32, 16, 8]
        x = torch.empty(2, 3, 256, 256)
        for block, (inputs, outputs), side in zip(net.blocks, pairwise(FILTERS), sides[1:], strict=True):
            assert x.shape[1] == inputs
            x = block(x)
            assert x.shape == (2, outputs, side, side)
        assert net(torch.empty(2, 3, 256, 256)).shape == (2, WIDTH)
    assert parameters(net) == sum(conv(a, b, 3) + 2 * b for a, b in pairwise(FILTERS))


@pytest.mark.parametrize("order", ["eq9", "alg1"])
def test_backbone(order: str) -> None:
    cfg = paper(f"backbone.smod.order={order}").backbone
    with torch.device("meta"):
        net, gmod, smod = build_backbone(cfg), GMod(cfg), SMod(cfg.smod)
        assert net.features(torch.empty(2, 3, 256, 256)).shape == (2, WIDTH)
        assert net(torch.empty(2, 3, 256, 256)).shape == (2,)
    assert WIDTH == 16_384
    assert parameters(net) == parameters(gmod) + parameters(smod) + dense(WIDTH, 1)


def test_generator() -> None:
    maps = (1024, 512, 256, 128, 3)
    with torch.device("meta"):
        net = Generator(PAPER.gan)
        assert net(torch.empty(2, 128)).shape == (2, 3, 256, 256)
    norms = sum(2 * m for m in maps[:-1])
    assert parameters(net) == dense(128, 1024 * 16 * 16) + norms + sum(
        conv(a, b, 4) for a, b in pairwise(maps)
    )


def test_discriminator() -> None:
    maps = (3, 128, 256, 512, 1024)
    with torch.device("meta"):
        net = Discriminator(PAPER.gan)
        assert net(torch.empty(2, 3, 256, 256)).shape == (2,)
    norms = sum(2 * m for m in maps[2:])
    assert parameters(net) == sum(conv(a, b, 4) for a, b in pairwise(maps)) + norms + dense(1024 * 16 * 16, 1)


@pytest.mark.parametrize("selected", [1, 2000, 2 * WIDTH])
def test_hdlc(selected: int) -> None:
    widths = (selected, 1024, 512, 256, 128, 64, 1)
    with torch.device("meta"):
        net = HDLC(PAPER.hdlc, selected)
        assert net(torch.empty(3, selected)).shape == (3,)
    convolution = 3 * 1 * 128 + 128
    assert parameters(net) == convolution + dense(128, 1) + sum(dense(a, b) for a, b in pairwise(widths))


@pytest.mark.parametrize("mode", ["concat", "replace"])
@pytest.mark.parametrize("k", [10, None])
def test_grafr(mode: str, k: int | None) -> None:
    """Sixty cells of 16,384 features against the equations in double precision."""
    cfg = paper(f"grafr.mode={mode}", f"grafr.k={'null' if k is None else k}").grafr
    rng = np.random.default_rng(0)
    bank, queries = (np.maximum(rng.normal(size=(n, WIDTH)), 0).astype(np.float32) for n in (60, 5))
    made = GraFR(cfg).fit(bank).transform(queries)
    assert made.shape == (5, 2 * WIDTH if mode == "concat" else WIDTH)
    if mode == "concat":
        np.testing.assert_array_equal(made[:, :WIDTH], queries)
    for query, x_hat in zip(queries.astype(float), made[:, -WIDTH:], strict=True):
        distance = np.sqrt(((bank - query) ** 2).sum(axis=1))
        near = np.argsort(distance)[:k]
        similarity = 1 / (distance[near] + cfg.eps)
        np.testing.assert_allclose(x_hat, similarity @ bank[near] / similarity.sum(), rtol=1e-4, atol=1e-5)


# ---- one real step -----------------------------------------------------------------------------------------


def trained(learner: Learner, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    """One step of training; every weight got a finite gradient, some of it not zero, and moved."""
    learner.prepare(torch.device("cpu"), lambda net: net, 10)
    learner.set_train(True)
    learner.schedule()
    before = learner.weights()
    torch.manual_seed(0)
    figures = learner.train_step(batch)
    after = learner.weights()
    for name, net in learner.nets.items():
        for key, parameter in net.named_parameters():
            assert parameter.grad is not None, f"{name}.{key}"
            assert parameter.grad.isfinite().all(), f"{name}.{key}"
            assert not torch.equal(before[name][key], after[name][key]), f"{name}.{key}"
    assert all(np.isfinite(value) for value in figures.values())
    return figures


def images(count: int) -> torch.Tensor:
    return torch.randint(
        256, (count, 256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("settings", [(), ("backbone.name=smod", "backbone.smod.order=alg1")])
def test_backbone_learns_at_full_size(settings: tuple[str, ...]) -> None:
    """GMod and SMod as published, and SMod alone in Algorithm 1's order."""
    learner = BackboneLearner(paper(*settings).backbone, 0, (1.0, 1.0))
    figures = trained(learner, {"image": images(2), "label": torch.tensor([0, 1])})
    assert 0 < figures["loss"] < 20


@pytest.mark.long
@pytest.mark.slow
def test_leugan_learns_at_full_size() -> None:
    figures = trained(LeuGanLearner(PAPER.gan, 0), {"image": images(2)})
    assert 0 < figures["real_score"] < 1


@pytest.mark.slow
@pytest.mark.long
def test_hdlc_learns_at_full_size() -> None:
    """On all 32,768 reconstructed features: a selection only makes it smaller."""
    learner = HdlcLearner(PAPER.hdlc, 2 * WIDTH, 0, (1.0, 1.0))
    feature = torch.randn(4, 2 * WIDTH, generator=torch.Generator().manual_seed(0))
    figures = trained(learner, {"feature": feature, "label": torch.tensor([0, 1, 0, 1])})
    assert 0 < figures["loss"] < 20
