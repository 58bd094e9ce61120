from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cotray.config import GanConfig, load_config
from cotray.synthesis.leugan import Discriminator, Generator, init_weights

TINY = GanConfig(image_size=32, channels=32, latent=16)


def traced(net: nn.Sequential) -> list[Tensor]:
    """Filled with the outputs of the layers at each forward."""
    seen: list[Tensor] = []
    for layer in net:
        if isinstance(layer, (nn.ConvTranspose2d, nn.Conv2d)):
            layer.register_forward_hook(lambda _, __, out: seen.append(out))
    return seen


def test_the_paper_preset_has_the_paper_s_generator() -> None:
    cfg = load_config("paper").gan
    with torch.device("meta"):
        generator = Generator(cfg)
        seen = traced(generator.up)
        out = generator(torch.empty(2, 128))
    assert generator.dense.in_features == 128
    assert generator.dense.out_features == 1024 * 16 * 16
    assert [tuple(x.shape[1:]) for x in seen] == [
        (512, 32, 32),
        (256, 64, 64),
        (128, 128, 128),
        (3, 256, 256),
    ]
    assert out.shape == (2, 3, 256, 256)
    assert isinstance(generator.up[-1], nn.Tanh)


def test_the_paper_preset_has_four_strided_convolutions_and_one_logit() -> None:
    cfg = load_config("paper").gan
    with torch.device("meta"):
        discriminator = Discriminator(cfg)
        seen = traced(discriminator.down)
        out = discriminator(torch.empty(2, 3, 256, 256))
    assert [tuple(x.shape[1:]) for x in seen] == [
        (128, 128, 128),
        (256, 64, 64),
        (512, 32, 32),
        (1024, 16, 16),
    ]
    assert out.shape == (2,)
    assert not any("parametrizations" in name for name, _ in discriminator.named_parameters()), "as printed"


@pytest.mark.parametrize("side", [32, 48, 64])
def test_small_sizes_follow_the_same_plan(side: int) -> None:
    cfg = TINY.model_copy(update={"image_size": side})
    torch.manual_seed(0)
    generator, discriminator = Generator(cfg), Discriminator(cfg)
    image = generator(generator.draw_latent(3, torch.device("cpu")))
    assert image.shape == (3, 3, side, side)
    assert image.abs().max() <= 1
    assert discriminator(image).shape == (3,)


def test_latents_are_uniform_in_minus_one_to_one_and_seeded() -> None:
    generator, device = Generator(TINY), torch.device("cpu")
    z = generator.draw_latent(2000, device, torch.Generator().manual_seed(1))
    assert z.shape == (2000, 16)
    assert -1 <= z.min() < -0.99 and 0.99 < z.max() <= 1
    assert abs(z.mean()) < 0.02 and abs(z.var() - 1 / 3) < 0.01
    assert torch.equal(z, generator.draw_latent(2000, device, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("on", [True, False])
def test_spectral_norm_bounds_each_layer_s_gain(on: bool) -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(TINY.model_copy(update={"spectral_norm": on}))
    layers = [m for m in discriminator.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        for layer in layers:  # far from a gain of one, were it not normalised
            target = layer.parametrizations.weight.original if on else layer.weight
            target.mul_(50)
        for _ in range(20):  # each forward improves the estimate of the gain
            discriminator(torch.rand(2, 3, 32, 32) * 2 - 1)
        gains = [float(torch.linalg.matrix_norm(layer.weight.flatten(1), 2)) for layer in layers]
    assert len(gains) == 5
    if on:
        assert gains == pytest.approx([1.0] * 5, abs=0.05)
    else:
        assert min(gains) > 5
    assert any(isinstance(m, nn.BatchNorm2d) for m in discriminator.modules()) is not on


def test_fresh_weights_are_narrow_and_biases_zero() -> None:
    torch.manual_seed(0)
    generator = Generator(GanConfig(image_size=64, channels=64))
    init_weights(generator)
    for layer in generator.modules():
        if isinstance(layer, (nn.ConvTranspose2d, nn.Linear)):
            assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
            assert layer.bias is not None and not layer.bias.any()


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    generator, discriminator = Generator(TINY), Discriminator(TINY)
    discriminator(generator(torch.rand(2, 16))).sum().backward()
    parts = {"generator": generator, "discriminator": discriminator}
    without = [f"{k}.{n}" for k, net in parts.items() for n, p in net.named_parameters() if p.grad is None]
    assert without == []
