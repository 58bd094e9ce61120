"""Backbones of timm by name, to compare with: `resnet18`, `vgg16`, `vit_base_patch32_224`, ...

Shapes: B images of (3, S, S), D features.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from cotray.config import BackboneConfig
from cotray.errors import InvalidValueError, UnknownNameError, WeightsError, nearest
from cotray.features.backbone import BACKBONES, Backbone
from cotray.segmentation._torchvision import ensure_torchvision

OWN = "backbone/"
"""What names of weights begin with in a run's own `backbone.safetensors`."""


def build_backbone(cfg: BackboneConfig) -> Backbone:
    """The configured backbone with fresh weights. Raises UnknownNameError, InvalidValueError."""
    if cfg.name in BACKBONES:
        return BACKBONES[cfg.name](cfg)
    return TimmBackbone(cfg)


class TimmBackbone(Backbone):
    """A model of timm without its classifier; its pooled features are the feature vector."""

    mean: Tensor
    std: Tensor

    def __init__(self, cfg: BackboneConfig) -> None:
        net = _create(cfg.name, cfg.image_size)
        super().__init__(int(getattr(net, "head_hidden_size", None) or net.num_features))
        self.net = net
        for name in ("mean", "std"):
            value = torch.tensor(net.pretrained_cfg.get(name, (0.5, 0.5, 0.5))).view(3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    @property
    def maps(self) -> torch.nn.Module | None:
        """The last layer that timm names as giving maps, if it is one of convolutions."""
        known = getattr(self.net, "feature_info", None) or [{}]
        name = list(known)[-1].get("module", "")
        layer = self.net.get_submodule(name) if name else None
        convolves = layer is not None and any(isinstance(m, torch.nn.Conv2d) for m in layer.modules())
        return layer if convolves else None

    def features(self, x_B3SS: Tensor) -> Tensor:
        """(B, D), the images normed as the model's makers did."""
        out: Tensor = self.net(((x_B3SS + 1) / 2 - self.mean) / self.std)
        return out


def _create(name: str, side: int) -> Any:
    ensure_torchvision()
    import timm

    if not timm.is_model(name):
        raise UnknownNameError(
            f"Unknown backbone '{name}': neither cotray's nor timm's.",
            cure=f"{nearest(name, [*BACKBONES, *_near(name)])} All of timm's: timm.list_models().",
        )
    with _told(name, side):
        try:
            return timm.create_model(name, num_classes=0, img_size=side)  # transformers are built for a side
        except TypeError:
            return timm.create_model(name, num_classes=0)  # convolutions take any


@torch.no_grad()
def require_side(backbone: Backbone, cfg: BackboneConfig) -> None:
    """Raise InvalidValueError where the backbone cannot see images of the configured side; one is tried."""
    with _told(cfg.name, cfg.image_size):
        backbone.eval()(torch.zeros(1, 3, cfg.image_size, cfg.image_size))


@contextmanager
def _told(name: str, side: int) -> Iterator[None]:
    try:
        yield
    except (ValueError, AssertionError, RuntimeError) as error:
        raise InvalidValueError(
            f"{name} does not take images of {side} x {side}: {str(error)[:200]}",
            where="backbone.image_size",
            cure="Give a side that its patches divide, such as 224.",
        ) from error


def _near(name: str) -> list[str]:
    import difflib

    import timm

    return difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)


# ---- weights to start from -----------------------------------------------------------------------------


def start_from(backbone: Backbone, state: Mapping[str, Tensor]) -> None:
    """Load weights that were learned elsewhere: a timm model's, or another run's backbone. In place.

    A timm model's classifier is left out. Raises WeightsError where the weights are another architecture's.
    """
    if any(key.startswith(OWN) for key in state):
        own = {key.removeprefix(OWN): value for key, value in state.items()}
        _load(backbone, own, allowed=())
    elif isinstance(backbone, TimmBackbone):
        net: Any = backbone.net
        fitted = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
        heads = net.pretrained_cfg.get("classifier") or ()
        _load(
            net, fitted(dict(state), net) if fitted else state, (heads,) if isinstance(heads, str) else heads
        )
    else:
        raise WeightsError(
            "These weights are not of a cotray run's backbone.",
            cure="Give train_backbone/backbone.safetensors of a run with the same backbone settings.",
        )


def _load(net: torch.nn.Module, state: Mapping[str, Tensor], allowed: tuple[str, ...]) -> None:
    try:
        missing, unexpected = net.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:  # shapes differ
        missing, unexpected = [str(error).splitlines()[1].strip()[:200]], []
    foreign = [key for key in unexpected if not key.startswith(allowed or ("\0",))]
    wrong = [*missing, *foreign]
    if wrong:
        raise WeightsError(
            f"These weights are of another architecture: {len(wrong)} names or shapes do not fit, the first: "
            f"{wrong[0]}.",
            cure="Set backbone.name, image_size and the other backbone settings to those it was made with.",
        )
