"""HDLC: its structure at the paper's size, and its arithmetic by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from cotray.classification.hdlc import HDLC
from cotray.config import HdlcConfig
from cotray.config.presets import PRESETS


def small(width: int = 9) -> HDLC:
    torch.manual_seed(0)
    return HDLC(HdlcConfig(filters=4, hidden=(8, 7, 6, 5, 4)), width).eval()


def test_structure_at_the_papers_size() -> None:
    cfg = HdlcConfig.model_validate(PRESETS["paper"]["hdlc"])
    net = HDLC(cfg, 2000).eval()
    assert (net.conv.in_channels, net.conv.out_channels, net.conv.kernel_size) == (1, 128, (3,))
    assert (net.merge.in_features, net.merge.out_features) == (128, 1)
    dense = [m for m in net.dense if isinstance(m, nn.Linear)]
    assert len(dense) == 6
    assert [layer.in_features for layer in dense] == [2000, *cfg.hidden]
    assert [layer.out_features for layer in dense] == [*cfg.hidden, 1]
    assert net(torch.randn(3, 2000)).shape == (3,)


def test_dense_layers_have_relu_between_and_a_bare_logit() -> None:
    layers = list(small().dense)
    assert isinstance(layers[-1], nn.Linear)
    after = [type(b) for a, b in pairwise(layers) if isinstance(a, nn.Linear)]
    assert after == [nn.ReLU] * 5


def by_hand(net: HDLC, feat_S: np.ndarray) -> float:
    """One cell, one place and one filter at a time."""
    state = {name: value.double().numpy() for name, value in net.state_dict().items()}
    padded = np.concatenate([[0.0], (feat_S - state["mean"]) * state["scale"], [0.0]])
    x = np.full(len(feat_S), state["merge.bias"][0])
    for place in range(len(feat_S)):
        for f, kernel in enumerate(state["conv.weight"][:, 0]):
            seen = sum(kernel[i] * padded[place + i] for i in range(3)) + state["conv.bias"][f]
            x[place] += state["merge.weight"][0, f] * max(0.0, seen)
    last = len(net.dense) - 1
    for number, layer in enumerate(net.dense):
        if isinstance(layer, nn.Linear):
            x = state[f"dense.{number}.weight"] @ x + state[f"dense.{number}.bias"]
            x = x if number == last else np.maximum(x, 0)
    return float(x[0])


@pytest.mark.parametrize("width", [1, 2, 9])
def test_forward_by_hand(width: int) -> None:
    net = small(width)
    net.set_scale(torch.randn(width), torch.rand(width) + 0.5)
    feat = torch.randn(5, width)
    expected = [by_hand(net, row) for row in feat.double().numpy()]
    np.testing.assert_allclose(net(feat).detach().numpy(), expected, atol=1e-5)


def test_scale_standardises() -> None:
    net, plain = small(), small()
    mean, std, feat = torch.randn(9), torch.rand(9) + 0.1, torch.randn(6, 9)
    net.set_scale(mean, std)
    torch.testing.assert_close(net(feat), plain((feat - mean) / std))


def test_a_constant_feature_says_nothing() -> None:
    net = small()
    std = torch.ones(9)
    std[[2, 5]] = 0.0
    net.set_scale(torch.full((9,), 3.0), std)
    feat = torch.randn(6, 9)
    other = feat.clone()
    other[:, [2, 5]] += 1e6
    assert net(feat).isfinite().all()
    assert torch.equal(net(feat), net(other))


def test_scale_travels_with_the_weights() -> None:
    net, other = small(), HDLC(HdlcConfig(filters=4, hidden=(8, 7, 6, 5, 4)), 9).eval()
    net.set_scale(torch.randn(9), torch.rand(9))
    other.load_state_dict(net.state_dict())
    feat = torch.randn(4, 9)
    assert torch.equal(net(feat), other(feat))
    assert not {"mean", "scale"} & {name for name, _ in net.named_parameters()}


def test_dropout_only_while_training() -> None:
    net = HDLC(HdlcConfig(), 9).eval()
    feat = torch.randn(4, 9)
    assert torch.equal(net(feat), net(feat))
    net.train()
    assert not torch.equal(net(feat), net(feat))
