"""Nested state (dicts, lists, numbers, text, numpy arrays) <-> bytes, without pickle."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np

from cotray.errors import RunError

_ARRAY = "__array__"


def pack(state: Any) -> bytes:
    """One .npz: the arrays, and a JSON skeleton that says where each belongs."""
    arrays: dict[str, np.ndarray[Any, np.dtype[Any]]] = {}
    skeleton = json.dumps(_strip(state, arrays)).encode()
    sink = io.BytesIO()
    np.savez(sink, allow_pickle=False, skeleton=np.frombuffer(skeleton, np.uint8), **arrays)
    return sink.getvalue()


def unpack(data: bytes) -> Any:
    """Inverse of :func:`pack`. Raises RunError where the bytes are damaged."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return _fill(json.loads(arrays["skeleton"].tobytes()), arrays)
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise RunError("A saved state is damaged.", cure="Redo the stage with --force.") from error


def _strip(value: Any, arrays: dict[str, Any]) -> Any:
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {_ARRAY: name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {str(key): _strip(item, arrays) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strip(item, arrays) for item in value]
    return value


def _fill(value: Any, arrays: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            return arrays[value[_ARRAY]]
        return {key: _fill(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, arrays) for item in value]
    return value
