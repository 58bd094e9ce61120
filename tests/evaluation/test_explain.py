from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cotray.config import BackboneConfig, SmodConfig
from cotray.errors import DataError, ModelError
from cotray.evaluation.explain import grad_cam, heat_overlay
from cotray.features.zoo import build_backbone


class BrightSquare(nn.Module):
    """Says malignant where there is light: a blur, brightness above a half, a sum."""

    def __init__(self, logits: int = 0) -> None:
        super().__init__()
        self.blur = nn.Conv2d(3, 1, 5, padding=2)
        nn.init.constant_(self.blur.weight, 1 / 75)
        nn.init.constant_(self.blur.bias, -0.5)
        self.noise = nn.Dropout(0.9)
        self.logits = logits

    def forward(self, x: Tensor) -> Tensor:
        light = self.noise(torch.relu(self.blur(x))).sum(dim=(1, 2, 3)) - 20
        if self.logits == 0:
            return light
        return light[:, None] if self.logits == 1 else torch.stack([-light, light], dim=1)


def squares(corners: list[tuple[int, int]]) -> Tensor:
    """Grey 48 x 48 images with one white 12 x 12 square each."""
    x = torch.full((len(corners), 3, 48, 48), 0.3)
    for image, (top, left) in zip(x, corners, strict=True):
        image[:, top : top + 12, left : left + 12] = 1
    return x


CORNERS = [(4, 6), (30, 10), (20, 32), (34, 34), (2, 34)]


@pytest.mark.parametrize("logits", [0, 1, 2])
def test_heat_lies_on_the_square(logits: int) -> None:
    net = BrightSquare(logits).eval()
    heat = grad_cam(net, net.blur, squares(CORNERS), batch=2)
    assert heat.shape == (5, 48, 48) and heat.dtype == np.float32
    assert heat.min() >= 0 and heat.max(axis=(1, 2)) == pytest.approx(np.ones(5))
    for map_, (top, left) in zip(heat, CORNERS, strict=True):
        assert map_[top : top + 12, left : left + 12].sum() > 0.9 * map_.sum()


def test_a_coarse_layer_is_brought_to_the_images_size() -> None:
    coarse = nn.Conv2d(3, 2, 4, stride=4)
    nn.init.constant_(coarse.weight, 1 / 48)
    nn.init.constant_(coarse.bias, -0.5)
    net = nn.Sequential(coarse, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1))
    nn.init.constant_(net[4].weight, 1.0)
    heat = grad_cam(net, coarse, squares([(4, 8)]))
    assert heat.shape == (1, 48, 48)
    assert heat[0, 6:14, 10:18].min() > 0.9 and heat[0, 24:, 28:].max() == 0


def test_batches_do_not_change_the_heat() -> None:
    net = BrightSquare().eval()
    whole, parts = (grad_cam(net, net.blur, squares(CORNERS), batch=b) for b in (32, 1))
    np.testing.assert_allclose(whole, parts, atol=1e-6)


def test_what_speaks_against_malignant_is_cold() -> None:
    head = nn.Linear(1, 1)
    net = nn.Sequential(BrightSquare(1).blur, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    nn.init.constant_(head.weight, -1.0)
    assert grad_cam(net, net[1], squares(CORNERS)).max() == 0
    nn.init.constant_(head.weight, 1.0)
    assert grad_cam(net, net[1], squares(CORNERS)).max() == 1


def test_the_network_is_left_as_it_was() -> None:
    net = BrightSquare().requires_grad_(False).train()
    net.blur.eval()
    x = squares(CORNERS)
    before = x.clone()
    with torch.no_grad():
        first, second = (grad_cam(net, net.blur, x) for _ in range(2))
    np.testing.assert_array_equal(first, second, "dropout is off while explaining")
    assert net.training and net.noise.training and not net.blur.training
    assert all(p.grad is None and not p.requires_grad for p in net.parameters())
    assert not net.blur._forward_hooks and not net.blur._backward_hooks
    assert not x.requires_grad and x.grad is None
    torch.testing.assert_close(x, before)


def test_weights_gather_no_gradients() -> None:
    net = BrightSquare()
    grad_cam(net, net.blur, squares(CORNERS[:1]))
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_no_images_give_no_maps() -> None:
    net = BrightSquare()
    assert grad_cam(net, net.blur, torch.zeros(0, 3, 48, 48)).shape == (0, 48, 48)


def test_a_backbone_can_be_explained() -> None:
    torch.manual_seed(0)
    config = BackboneConfig(image_size=32, layers=1, smod=SmodConfig(filters=(4, 4, 4, 4, 4)))
    net = build_backbone(config)
    last = [module for module in net.modules() if isinstance(module, nn.Conv2d)][-1]
    heat = grad_cam(net, last, torch.rand(3, 3, 32, 32))
    assert heat.shape == (3, 32, 32) and np.isfinite(heat).all()


def test_a_layer_without_maps_and_a_network_of_many_logits_are_refused() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(48, 1))
    with pytest.raises(ModelError, match="maps"):
        grad_cam(flat, flat[1], torch.rand(2, 3, 4, 4))
    many = nn.Sequential(nn.Conv2d(3, 5, 4), nn.Flatten())
    with pytest.raises(ModelError, match="logits"):
        grad_cam(many, many[0], torch.rand(2, 3, 4, 4))


def test_importing_explain_does_not_import_captum() -> None:
    code = "import sys, cotray.evaluation.explain; sys.exit('captum' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_overlay_warms_only_where_there_is_heat() -> None:
    rgb = np.full((20, 30, 3), 90, np.uint8)
    heat = np.zeros((20, 30), np.float32)
    heat[5:10, 5:10], heat[5:10, 20:25] = 1, 0.4
    out = heat_overlay(rgb, heat)
    assert out.dtype == np.uint8 and out.shape == rgb.shape and (rgb == 90).all()
    np.testing.assert_array_equal(out[heat == 0], rgb[heat == 0])
    strong, weak = out[7, 7].astype(int), out[7, 22].astype(int)
    assert strong[0] > weak[0] > 90 and strong[1] > 120 > weak[1], "red first, then yellow"
    assert strong[2] < weak[2] < 90


def test_overlay_refuses_heat_of_another_size() -> None:
    with pytest.raises(DataError, match="does not fit"):
        heat_overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.float32))
