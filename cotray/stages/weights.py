"""What a training leaves on disk: best weights as safetensors, history as JSON; arrays without pickle."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from cotray.errors import WeightsError
from cotray.learning import Weights
from cotray.stages.base import StageRun


@dataclass(frozen=True)
class Fitted:
    """A trained model."""

    weights: Weights
    """Best epoch's weights by network."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One dict per epoch."""


def save_fitted(at: StageRun, name: str, fitted: Fitted) -> None:
    """``NAME.history.json`` and, last, ``NAME.safetensors``."""
    at.folder.write_json(f"{name}.history.json", fitted.history)
    flat = {f"{net}/{key}": t.contiguous() for net, ws in fitted.weights.items() for key, t in ws.items()}
    at.folder.write_bytes(f"{name}.safetensors", save_safetensors(flat))


def load_fitted(at: StageRun, name: str) -> Fitted | None:
    """What :func:`save_fitted` wrote, or None."""
    if not at.folder.exists(f"{name}.safetensors"):
        return None
    weights = parse_weights(
        at.folder.read_bytes(f"{name}.safetensors"), f"{at.folder.uri}/{name}.safetensors"
    )
    return Fitted(weights, at.folder.read_json(f"{name}.history.json"))


def parse_weights(data: bytes, where: str) -> Weights:
    """Networks' state dicts from safetensors bytes. Raises WeightsError where damaged."""
    try:
        flat = load_safetensors(data)
    except Exception as error:  # safetensors raises its own, untyped here
        raise WeightsError(f"Cannot read these weights: {error}", where=where) from error
    weights: Weights = {}
    for name, tensor in flat.items():
        net, _, key = name.partition("/")
        weights.setdefault(net, {})[key] = tensor
    return weights


def array_bytes(array: NDArray[Any]) -> bytes:
    """An array as .npy bytes (no pickle)."""
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=False)
    return sink.getvalue()


def read_array(data: bytes) -> NDArray[Any]:
    """Inverse of :func:`array_bytes`."""
    array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array
