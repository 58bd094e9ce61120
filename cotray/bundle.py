"""The trained artifact: safetensors + JSON, every file hashed; no pickle anywhere.

::

    BUNDLE/
      bundle.json              format, config, operating point, figures, sha256 of every other file
      leusam.safetensors       cell segmentation: LeuSAM, or the rival that segment.model names
      backbone.safetensors     the backbone
      grafr.safetensors        the bank of training features GraFR looks neighbours up in, and its index
      selection.safetensors    which reconstructed features are used
      hdlc.safetensors         the classifier, with its input scale
      mirnet.pt stain-target   only where the settings ask for them: TorchScript, and an image

On a local disk tensors are mapped, not read: a bank of gigabytes takes no memory of its own, and all
processes that serve it share one copy. cotray replaces files and never writes into one, so a bundle in use
stays whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from safetensors.torch import save_file
from torch import Tensor

import cotray
from cotray.classification.conformal import ClassSets
from cotray.config import Config, validate
from cotray.errors import BundleError, ConfigError, RunNotWritableError
from cotray.preparation import COPIES, carried, carry, files_used
from cotray.storage import Folder, absolute

FORMAT = 1
PARTS = ("leusam", "backbone", "grafr", "selection", "hdlc")


@dataclass(frozen=True)
class Bundle:
    """Everything that turns an image into an answer."""

    config: Config
    """Settings the parts were trained with (no paths but the bundle's own files, no tracking)."""
    tensors: Mapping[str, Mapping[str, Tensor]]
    """State by part: leusam (or its rival), backbone, grafr {bank, index}, selection {mask}, hdlc."""
    temperature: float
    """Divides HDLC's logit."""
    threshold: float
    """Probability from which a cell or image is called malignant; chosen on validation."""
    single_cell: bool
    """Whether images hold one cell each."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Dataset name, split digest, held-out metrics, version: for people and for comparisons."""
    sets: ClassSets | None = None
    """When a class belongs to an answer's set; None in bundles made before there were any."""
    version: str = ""
    """First 12 hex digits of the hash over the parts: names this model in every answer."""


def save_bundle(folder: Folder, bundle: Bundle) -> Bundle:
    """Write a bundle; returns it with its ``version``. Raises RunNotWritableError."""
    hashes: dict[str, str] = {}
    for part in PARTS:
        name = f"{part}.safetensors"
        hashes[name] = _write_part(folder, name, bundle.tensors[part])
    names = [COPIES[key] for key in files_used(carry(bundle.config, folder).enhance)]
    hashes |= {name: hashlib.sha256(folder.read_bytes(name)).hexdigest() for name in names}
    version = hashlib.sha256("".join(hashes[k] for k in sorted(hashes)).encode()).hexdigest()[:12]
    body = {
        "format": FORMAT,
        "cotray": cotray.__version__,
        "version": version,
        "config": portable(bundle.config).model_dump(mode="json"),
        "temperature": bundle.temperature,
        "threshold": bundle.threshold,
        "single_cell": bundle.single_cell,
        "sets": bundle.sets.as_dict() if bundle.sets else None,
        "facts": bundle.facts,
        "sha256": hashes,
    }
    body["sha256_body"] = _body_hash(body)
    folder.write_json("bundle.json", body)
    return load_bundle(folder.uri)


def load_bundle(uri: str) -> Bundle:
    """Read and verify a bundle. Raises BundleError where a file is missing or was altered."""
    folder = Folder(absolute(uri))
    body = _read_body(folder)
    tensors = {part: _read_part(folder, f"{part}.safetensors", body["sha256"]) for part in PARTS}
    try:
        config = validate(body["config"])
    except ConfigError as error:
        raise BundleError(
            f"The bundle's settings do not fit this version of cotray: {error.what}",
            where=uri,
            cure=f"Use cotray {body.get('cotray')}, which made it.",
        ) from error
    config = carried(config, folder)
    for key in files_used(config.enhance):
        _read_file(folder, COPIES[key], body["sha256"])
    return Bundle(
        config=config,
        tensors=tensors,
        temperature=float(body["temperature"]),
        threshold=float(body["threshold"]),
        single_cell=bool(body["single_cell"]),
        facts=dict(body["facts"]),
        sets=ClassSets.from_dict(body["sets"]) if body.get("sets") else None,
        version=str(body["version"]),
    )


def portable(config: Config) -> Config:
    """The config without what belongs to one machine: paths, tracking, workers."""
    tree = config.model_dump(mode="json")
    tree["dataset"] |= {"root": None, "subjects_csv": None}
    tree["segment"]["checkpoint"] = None
    used = files_used(config.enhance)
    tree["enhance"] |= {key: name if key in used else None for key, name in COPIES.items()}
    tree.pop("tracking")
    tree.pop("compute")
    return validate(tree)


def is_bundle(uri: str) -> bool:
    """Whether a folder looks like a bundle."""
    return Folder(absolute(uri)).exists("bundle.json")


def _read_body(folder: Folder) -> dict[str, Any]:
    if not folder.exists("bundle.json"):
        raise BundleError(
            "There is no bundle here.",
            where=folder.uri,
            cure="A finished run has one in RUN/classify/bundle.",
        )
    try:
        body = json.loads(folder.read_bytes("bundle.json"))
        stated = body.pop("sha256_body")
    except (json.JSONDecodeError, KeyError, AttributeError) as error:
        raise BundleError("bundle.json is damaged.", where=folder.uri, cure=_RECOPY) from error
    if body.get("format") != FORMAT or stated != _body_hash(body):
        raise BundleError("bundle.json was altered or is of another format.", where=folder.uri, cure=_RECOPY)
    return dict(body)


def _write_part(folder: Folder, name: str, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors, atomically and without a copy in memory where the disk is local; returns the hash."""
    ready = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    if not folder.is_local:
        data = save_tensors(ready)
        folder.write_bytes(name, data)
        return hashlib.sha256(data).hexdigest()
    path = Path(folder.at(name))
    temporary = path.with_name(f"{name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(ready, temporary)
        with temporary.open("rb+") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        cure = "Choose another place with --run, or free space and permissions there."
        raise RunNotWritableError(f"Cannot write: {error}.", where=path, cure=cure) from error
    return digest


def _read_part(folder: Folder, name: str, hashes: Mapping[str, str]) -> dict[str, Tensor]:
    """A part's tensors, verified; mapped where the disk is local."""
    if not folder.is_local:
        return {key: torch.as_tensor(v) for key, v in load_tensors(_read_file(folder, name, hashes)).items()}
    path = Path(folder.at(name))
    if not path.is_file():
        raise BundleError(f"{name} is missing.", where=folder.uri, cure=_RECOPY)
    _require_hash(folder, name, _file_hash(path), hashes)
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in sorted(file.keys())}


def _read_file(folder: Folder, name: str, hashes: Mapping[str, str]) -> bytes:
    """A file's bytes, verified."""
    try:
        data = folder.read_bytes(name)
    except FileNotFoundError as error:
        raise BundleError(f"{name} is missing.", where=folder.uri, cure=_RECOPY) from error
    _require_hash(folder, name, hashlib.sha256(data).hexdigest(), hashes)
    return data


def _require_hash(folder: Folder, name: str, found: str, hashes: Mapping[str, str]) -> None:
    if found != hashes.get(name):
        raise BundleError(f"{name} was altered: its hash differs.", where=folder.uri, cure=_RECOPY)


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _body_hash(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


_RECOPY = "Copy the bundle again from where it was made, or run `cotray classify` and `cotray evaluate` anew."
