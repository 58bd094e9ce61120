"""timm's models as backbones: built, trained, started from files' tensors, refused where they do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cotray.config import BackboneConfig, validate
from cotray.errors import ConfigError, InvalidValueError, UnknownNameError, WeightsError
from cotray.evaluation.explain import grad_cam
from cotray.features.learner import BackboneLearner
from cotray.features.zoo import TimmBackbone, build_backbone, require_side, start_from
from cotray.segmentation._torchvision import ensure_torchvision

ensure_torchvision()  # these tests import timm themselves

PLAIN = (1.0, 1.0)


def named(name: str, side: int = 64, **more: object) -> BackboneConfig:
    return BackboneConfig.model_validate({"name": name, "image_size": side, **more})


@pytest.mark.parametrize(
    ("name", "width"),
    [("resnet18", 512), ("vit_base_patch32_224", 768), ("efficientnet_b1", 1280), ("convnext_atto", 320)],
)
def test_features_then_one_logit(name: str, width: int) -> None:
    net = build_backbone(named(name)).eval()
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        assert net.feature_dim == width
        assert net.features(x).shape == (2, width)
        assert net(x).shape == (2,)


@pytest.mark.slow
@pytest.mark.long
def test_vgg16_keeps_its_dense_layers() -> None:
    net = build_backbone(named("vgg16", 96)).eval()
    assert net.features(torch.zeros(1, 3, 96, 96)).shape == (1, 4096)


def test_images_are_normed_as_the_models_makers_did() -> None:
    """-1..1 -> 0..1 -> less the mean, over the deviation of ImageNet, written out."""
    net = build_backbone(named("resnet18"))
    assert isinstance(net, TimmBackbone)
    seen: list[Tensor] = []
    net.net.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net.eval().features(torch.full((1, 3, 64, 64), 0.5))
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        expected = torch.full((64, 64), (0.75 - mean) / std)
        torch.testing.assert_close(seen[0][0, channel], expected)


def test_the_classifier_is_ours_and_learns() -> None:
    learner = BackboneLearner(named("convnext_atto", 32, augment={"stain": 0.0}), 0, PLAIN)
    learner.prepare(torch.device("cpu"), lambda net: net, 12)
    torch.manual_seed(0)
    label = torch.arange(16) % 2
    image = (torch.rand(16, 32, 32, 3) * 60 + label.view(-1, 1, 1, 1) * 180).to(torch.uint8)
    losses = [learner.train_step({"image": image, "label": label})["loss"] for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]


# ---- starting from weights -----------------------------------------------------------------------------


def test_a_timm_models_own_weights_are_taken_without_its_classifier() -> None:
    """A file of timm's has a classifier for a thousand classes."""
    import timm

    published = timm.create_model("resnet18", num_classes=1000).state_dict()
    learner = BackboneLearner(named("resnet18"), 0, PLAIN, published)
    backbone = learner.nets["backbone"]
    assert isinstance(backbone, TimmBackbone)
    for key, value in backbone.net.state_dict().items():
        assert torch.equal(value, published[key])


def test_positions_of_a_transformer_are_fitted_to_the_side() -> None:
    import timm

    published = timm.create_model("vit_tiny_patch16_224", num_classes=1000).state_dict()
    net = build_backbone(named("vit_tiny_patch16_224", 96))
    start_from(net, published)
    assert isinstance(net, TimmBackbone)
    assert net.net.pos_embed.shape[1] == 1 + 36  # 6 x 6 patches and the class token
    assert torch.equal(net.net.blocks[0].attn.qkv.weight, published["blocks.0.attn.qkv.weight"])


@pytest.mark.parametrize("name", ["cotconet", "resnet18"])
def test_another_runs_backbone_is_taken_whole(name: str) -> None:
    one, other = build_backbone(named(name)), build_backbone(named(name))
    start_from(other, {f"backbone/{key}": value for key, value in one.state_dict().items()})
    for key, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


def test_weights_of_another_architecture_are_refused() -> None:
    import timm

    other = timm.create_model("resnet34", num_classes=1000).state_dict()
    with pytest.raises(WeightsError, match=r"another architecture.*layer1\.2"):
        start_from(build_backbone(named("resnet18")), other)
    wider = {f"backbone/{k}": v for k, v in build_backbone(named("cotconet", 96)).state_dict().items()}
    with pytest.raises(WeightsError, match="another architecture"):
        start_from(build_backbone(named("cotconet", 64)), wider)
    with pytest.raises(WeightsError, match="not of a cotray run's backbone"):
        start_from(build_backbone(named("cotconet")), other)


# ---- names, sides, maps ----------------------------------------------------------------------------------


def test_unknown_names_tell_the_nearest_of_both() -> None:
    with pytest.raises(UnknownNameError, match="resnet18"):
        build_backbone(named("resnet_18"))
    with pytest.raises(UnknownNameError, match="Did you mean 'cotconet'"):
        build_backbone(named("cotconnet"))


def test_sides_are_checked_by_whoever_knows() -> None:
    with pytest.raises(ConfigError, match="multiple of 32"):
        validate({"backbone": {"image_size": 80}})
    assert named("resnet18", 80).image_size == 80
    for name, side in (("inception_v4", 64), ("xcit_nano_12_p16_224", 40)):
        cfg = named(name, side)
        with pytest.raises(InvalidValueError, match=f"{name} does not take images of {side} x {side}"):
            require_side(build_backbone(cfg), cfg)
    require_side(build_backbone(named("resnet18", 80)), named("resnet18", 80))


def test_convolutions_show_where_they_look_and_transformers_do_not() -> None:
    net = build_backbone(named("resnet18"))
    assert isinstance(net.maps, nn.Module)
    assert grad_cam(net, net.maps, torch.rand(2, 3, 64, 64)).shape == (2, 64, 64)
    assert build_backbone(named("vit_base_patch32_224")).maps is None
    assert build_backbone(named("gmod")).maps is None
    assert build_backbone(named("smod")).maps is not None
