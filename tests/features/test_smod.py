"""SMod: orders of a block, halving, widths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cotray.config import SmodConfig
from cotray.features.smod import SMod, sfl_block


@pytest.mark.parametrize(
    ("order", "kinds"),
    [
        ("eq9", [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.Dropout]),
        ("alg1", [nn.MaxPool2d, nn.Conv2d, nn.BatchNorm2d, nn.Dropout]),
    ],
)
def test_block_has_its_order_and_halves_the_side(order: str, kinds: list[type]) -> None:
    block = sfl_block(5, 7, SmodConfig.model_validate({"order": order, "dropout": 0.4}))
    assert [type(layer) for layer in block] == kinds
    assert block[-1].p == 0.4
    assert block(torch.rand(2, 5, 16, 24)).shape == (2, 7, 8, 12)


@pytest.mark.parametrize("order", ["eq9", "alg1"])
def test_block_by_hand(order: str) -> None:
    torch.manual_seed(0)
    block = sfl_block(3, 4, SmodConfig.model_validate({"order": order})).eval()
    conv, norm = (next(m for m in block if isinstance(m, kind)) for kind in (nn.Conv2d, nn.BatchNorm2d))
    norm.running_mean.uniform_()
    norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 8, 8)

    def normed(y: torch.Tensor) -> torch.Tensor:
        mean, var = norm.running_mean[:, None, None], norm.running_var[:, None, None]
        return (y - mean) / (var + norm.eps).sqrt()

    def pooled(y: torch.Tensor) -> torch.Tensor:
        return y.view(2, -1, 4, 2, 4, 2).amax(dim=(3, 5))

    by_hand = pooled(normed(conv(x)).clamp(min=0)) if order == "eq9" else normed(conv(pooled(x)))
    torch.testing.assert_close(block(x), by_hand)


@pytest.mark.parametrize("order", ["eq9", "alg1"])
@pytest.mark.parametrize("side", [32, 64, 96])
def test_width_is_256_times_the_area_over_1024(order: str, side: int) -> None:
    smod = SMod(SmodConfig.model_validate({"order": order})).eval()
    assert smod(torch.rand(2, 3, side, side)).shape == (2, 256 * (side // 32) ** 2)


def test_filters_are_the_papers() -> None:
    convs = [m for m in SMod(SmodConfig(), channels=6).modules() if isinstance(m, nn.Conv2d)]
    assert [conv.in_channels for conv in convs] == [6, 32, 64, 128, 256]
    assert [conv.out_channels for conv in convs] == [32, 64, 128, 256, 256]
    assert all(conv.kernel_size == (3, 3) and conv.padding == (1, 1) for conv in convs)


def test_flattened_channel_by_channel() -> None:
    smod = SMod(SmodConfig()).eval()
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(smod(x), smod.blocks(x).reshape(1, -1))


def block_by_hand(block: nn.Sequential, x_BCHW: np.ndarray, order: str) -> np.ndarray:
    """Eq. 9 (or Alg. 1), pixel by pixel: same padding, statistics of the batch, the greatest of four."""
    conv, norm = (next(m for m in block if isinstance(m, kind)) for kind in (nn.Conv2d, nn.BatchNorm2d))
    weight, bias = conv.weight.detach().double().numpy(), conv.bias.detach().double().numpy()

    def convolved(x: np.ndarray) -> np.ndarray:
        padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
        out = np.empty((len(x), len(weight), *x.shape[2:]))
        for b, f, row, column in np.ndindex(*out.shape):
            out[b, f, row, column] = (
                padded[b, :, row : row + 3, column : column + 3] * weight[f]
            ).sum() + bias[f]
        return out

    def standard(x: np.ndarray) -> np.ndarray:
        mean, var = x.mean(axis=(0, 2, 3), keepdims=True), x.var(axis=(0, 2, 3), keepdims=True)
        gain, shift = (p.detach().double().numpy()[:, None, None] for p in (norm.weight, norm.bias))
        return np.asarray((x - mean) / np.sqrt(var + norm.eps) * gain + shift)

    def pooled(x: np.ndarray) -> np.ndarray:
        out = np.empty((*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2))
        for b, c, row, column in np.ndindex(*out.shape):
            out[b, c, row, column] = x[b, c, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].max()
        return out

    if order == "eq9":
        return pooled(np.maximum(standard(convolved(x_BCHW)), 0))
    return standard(convolved(pooled(x_BCHW)))


@pytest.mark.parametrize("order", ["eq9", "alg1"])
def test_a_block_in_training_is_equation_9_pixel_by_pixel(order: str) -> None:
    torch.manual_seed(3)
    block = sfl_block(2, 3, SmodConfig.model_validate({"order": order, "dropout": 0.0})).train()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 2, 6, 8)
    expected = block_by_hand(block, x.double().numpy(), order)
    np.testing.assert_allclose(block(x).detach().numpy(), expected, atol=1e-4)
