"""The user's weights for a backbone to start from: checked before any stage begins, read in the worker."""

from __future__ import annotations

from hashlib import sha256
from typing import BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from cotray.config import BackboneConfig, Config
from cotray.errors import WeightsError
from cotray.features.zoo import build_backbone, require_side, start_from
from cotray.segmentation.checkpoint import checkpoint_digest, read_archive
from cotray.stages.sam_checkpoint import opened

KEY = "backbone.pretrained"
CURE = "Give a timm model's weights (.pth, .safetensors), or backbone.safetensors of another run."


def read_pretrained(cfg: BackboneConfig) -> dict[str, Tensor] | None:
    """Tensors by name; None where training starts from nothing. Raises WeightsError; nothing is unpickled
    that is no tensor."""
    if not cfg.pretrained:
        return None
    with opened(cfg.pretrained, KEY) as file:
        if not cfg.pretrained.endswith(".safetensors"):
            return read_archive(file, cfg.pretrained, "file of weights", CURE)
        try:
            state: dict[str, Tensor] = load_safetensors(file.read())
        except SafetensorError as error:
            raise WeightsError(
                f"Cannot read these weights: {error}", where=cfg.pretrained, cure=CURE
            ) from error
    return state


def require_backbone(config: Config) -> None:
    """Raise UnknownNameError, InvalidValueError or WeightsError where the backbone cannot be built or does
    not fit the weights that it is to start from; before any stage begins."""
    with torch.random.fork_rng(devices=[]):
        backbone = build_backbone(config.backbone)
    require_side(backbone, config.backbone)
    state = read_pretrained(config.backbone)
    if state is not None:
        try:
            start_from(backbone, state)
        except WeightsError as error:
            raise WeightsError(error.what, where=config.backbone.pretrained, cure=error.cure) from error


def pretrained_mark(config: Config) -> dict[str, str]:
    """What the outcome depends on beside the settings: what the file holds."""
    uri = config.backbone.pretrained
    if not uri:
        return {}
    try:
        with opened(uri, KEY) as file:
            return {"pretrained": checkpoint_digest(file) or _digest(file)}
    except WeightsError:  # said by require_backbone, and only if the stage is to be done
        return {}


def _digest(file: BinaryIO) -> str:
    file.seek(0)
    return sha256(file.read()).hexdigest()
