"""The LeuSAM that comes with cotray: a `tiny` one that has seen drawn cells only.

Its file is safetensors: half-precision weights, and in the header the settings it was trained with, how it
was made and a hash over the weights. It was made by ``python -m benchmarks.shipped_weights``.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from cotray.config import EnhanceConfig, SegmentConfig
from cotray.errors import WeightsError

FORMAT = "1"
KEPT_WHOLE = "gaussian_matrix"
"""Positions are sines of up to hundreds of radians; half precision would move them."""
NO_PART = {
    *("train", "phantom_cells", "jitter", "points", "checkpoint", "cell_size", "cell_margin"),
    *("lora_rank", "cache", "turned_copies", "unet_width", "unet_stride", "start"),
}
"""Settings that leave a trained `tiny` LeuSAM as it is."""
_REINSTALL = "Install cotray again: pip install --force-reinstall cotray."


@dataclass(frozen=True)
class Shipped:
    """Weights with what they go with."""

    segment: SegmentConfig
    enhance: EnhanceConfig
    """How images were enhanced before LeuSAM saw them."""
    weights: dict[str, Tensor]
    """State of LeuSAM, float32."""
    digest: str
    """sha256 over the weights as stored."""
    made: dict[str, Any]
    """How: command, seed, steps, seconds, figures on phantoms that it was not trained on."""


def shipped_path() -> Path:
    """Where the file is."""
    return Path(str(importlib.resources.files("cotray"))) / "weights" / "leusam-tiny.safetensors"


def load_shipped(path: Path | None = None) -> Shipped:
    """Read and verify. Raises WeightsError where the file is missing, damaged or of another version."""
    path = path or shipped_path()
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            stored = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except Exception as error:  # safetensors raises its own, untyped here
        raise WeightsError(f"Cannot read these weights: {error}", where=path, cure=_REINSTALL) from error
    if facts.get("format") != FORMAT or facts.get("sha256") != digest(stored):
        raise WeightsError(
            "These weights were altered, or are of another format.", where=path, cure=_REINSTALL
        )
    try:
        segment = SegmentConfig.model_validate_json(facts["segment"])
        enhance = EnhanceConfig.model_validate_json(facts["enhance"])
    except ValidationError as error:
        raise WeightsError(
            "These weights' settings do not fit this version of cotray.", where=path, cure=_REINSTALL
        ) from error
    weights = {name: value.float() for name, value in stored.items()}
    return Shipped(segment, enhance, weights, facts["sha256"], json.loads(facts["made"]))


def pack(
    segment: SegmentConfig, enhance: EnhanceConfig, weights: Mapping[str, Tensor], made: Mapping[str, Any]
) -> bytes:
    """The file's bytes: what :func:`load_shipped` reads."""
    stored = {name: _stored(name, value.detach().cpu()) for name, value in weights.items()}
    facts = {
        "format": FORMAT,
        "segment": segment.model_dump_json(),
        "enhance": enhance.model_dump_json(),
        "sha256": digest(stored),
        "made": json.dumps(dict(made), sort_keys=True),
    }
    return bytes(save(stored, facts))


def _stored(name: str, value: Tensor) -> Tensor:
    half = value.is_floating_point() and KEPT_WHOLE not in name
    return (value.half() if half else value).contiguous()


def digest(weights: Mapping[str, Tensor]) -> str:
    """sha256 over names, kinds, shapes and values, whatever their order."""
    total = hashlib.sha256()
    for name in sorted(weights):
        value = np.ascontiguousarray(weights[name].numpy())
        total.update(f"{name} {value.dtype} {value.shape} ".encode())
        total.update(value.tobytes())
    return total.hexdigest()


def fits(segment: SegmentConfig, shipped: Shipped) -> bool:
    """Whether the shipped network is the one that these settings describe, and sees images alike."""
    return not differing(segment, shipped)


def differing(segment: SegmentConfig, shipped: Shipped) -> dict[str, tuple[Any, Any]]:
    """Settings of the network, and of what it sees, where the two differ: name -> (mine, theirs)."""
    mine, theirs = segment.model_dump(), shipped.segment.model_dump()
    names = (name for name in mine if name not in NO_PART and mine[name] != theirs[name])
    return {name: (mine[name], theirs[name]) for name in names}
