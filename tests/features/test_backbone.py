"""The backbone at the paper's size, its parts alone, its names."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cotray.config import BackboneConfig
from cotray.config.presets import PRESETS
from cotray.errors import UnknownNameError
from cotray.features.backbone import BACKBONES, CoTCoNet, GModOnly, without_effect
from cotray.features.gmod import split_patches
from cotray.features.zoo import build_backbone


def tiny(name: str = "cotconet", **settings: Any) -> BackboneConfig:
    """32 px, patches of 4, one layer."""
    return BackboneConfig.model_validate(
        {"name": name, "image_size": 32, "patch": 4, "layers": 1, **settings}
    )


def test_paper_backbone_has_the_published_shapes() -> None:
    net = build_backbone(BackboneConfig.model_validate(PRESETS["paper"]["backbone"])).eval()
    assert isinstance(net, CoTCoNet)
    assert len(net.gmod.blocks) == 12
    assert net.gmod.blocks[0].heads == 12
    assert net.gmod.position.shape == (1, 257, 768)
    parameters = sum(p.numel() for p in net.gmod.parameters())
    assert 85e6 < parameters < 87e6  # ViT-B: 86 million
    x = torch.rand(1, 3, 256, 256)
    assert split_patches(x, 16).shape == (1, 256, 768)
    with torch.no_grad():
        features = net.features(x)
    assert features.shape == (1, 16384) == (1, net.feature_dim)
    assert features.isfinite().all()


def test_settings_of_gmod_are_named_where_there_is_none() -> None:
    usual = tiny("smod")
    assert without_effect(usual, usual) == []
    changed = usual.model_copy(update={"layers": 4, "gmod_scale": 1.0, "image_size": 128})
    assert without_effect(changed, usual) == ["layers", "gmod_scale"]
    assert without_effect(changed.model_copy(update={"name": "resnet18"}), usual) == ["layers", "gmod_scale"]
    assert without_effect(changed.model_copy(update={"name": "cotconet"}), usual) == []


@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_other_presets_fit_together(preset: str) -> None:
    cfg = BackboneConfig.model_validate(PRESETS[preset].get("backbone", {}))
    net = build_backbone(cfg).eval()
    with torch.no_grad():
        features = net.features(torch.rand(1, 3, cfg.image_size, cfg.image_size))
    assert features.shape == (1, 256 * (cfg.image_size // 32) ** 2)


@pytest.mark.parametrize(("name", "width"), [("cotconet", 256), ("gmod", 48), ("smod", 256)])
@pytest.mark.parametrize("skip", [False, True])
def test_features_then_one_logit(name: str, width: int, skip: bool) -> None:
    net = build_backbone(tiny(name, skip=skip)).eval()
    x = torch.rand(3, 3, 32, 32)
    features, logit = net.features(x), net(x)
    assert features.shape == (3, width) == (3, net.feature_dim)
    assert logit.shape == (3,)
    torch.testing.assert_close(logit, features @ net.head.weight[0] + net.head.bias)


def test_every_name_is_tried() -> None:
    assert set(BACKBONES) == {"cotconet", "gmod", "smod"}


def test_without_skip_smod_sees_gmods_map_alone() -> None:
    net = build_backbone(tiny(skip=False)).eval()
    assert isinstance(net, CoTCoNet)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(net.features(x), net.smod(net.gmod(x)))


def test_skip_puts_the_image_beside_the_map() -> None:
    net = build_backbone(tiny(skip=True)).eval()
    assert isinstance(net, CoTCoNet)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(net.features(x), net.smod(torch.cat([x, net.gmod(x)], dim=1)))


def test_gmods_map_begins_as_quiet_as_asked() -> None:
    x = torch.rand(2, 3, 32, 32)
    with torch.random.fork_rng():
        loud, quiet = (torch.manual_seed(0) and build_backbone(tiny(gmod_scale=s)).eval() for s in (1.0, 0.1))
    assert isinstance(loud, CoTCoNet)
    assert isinstance(quiet, CoTCoNet)
    torch.testing.assert_close(quiet.gmod(x), 0.1 * loud.gmod(x))
    paper = BackboneConfig.model_validate(PRESETS["paper"]["backbone"])
    assert (paper.gmod_scale, paper.train.smooth) == (1.0, 1)


def test_gmod_alone_gives_its_class_token() -> None:
    net = build_backbone(tiny("gmod")).eval()
    assert isinstance(net, GModOnly)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(net.features(x), net.gmod.tokens(x)[:, 0])


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_gradient_reaches_every_weight(name: str) -> None:
    """A weight without a gradient would never train, and would make DDP wait for it."""
    net = build_backbone(tiny(name))
    net(torch.rand(4, 3, 32, 32)).sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []


def test_unknown_name_tells_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"'cotconnet'.*cotconet"):
        build_backbone(tiny("cotconnet"))
