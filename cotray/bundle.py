"""The trained artifact: safetensors + JSON, every file hashed; no pickle anywhere.

::

    BUNDLE/
      bundle.json              format, config, operating point, figures, sha256 of every other file
      leusam.safetensors       cell segmentation: LeuSAM, or the rival that segment.model names
      backbone.safetensors     GMod + SMod
      grafr.safetensors        the bank of training features GraFR looks neighbours up in
      selection.safetensors    which reconstructed features are used
      hdlc.safetensors         the classifier, with its input scale
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

import cotray
from cotray.config import Config, validate
from cotray.errors import BundleError, ConfigError
from cotray.storage import Folder, absolute

FORMAT = 1
PARTS = ("leusam", "backbone", "grafr", "selection", "hdlc")


@dataclass(frozen=True)
class Bundle:
    """Everything that turns an image into an answer."""

    config: Config
    """Settings the parts were trained with (no paths, no tracking)."""
    tensors: Mapping[str, Mapping[str, Tensor]]
    """State by part: leusam (or its rival), backbone, grafr {bank}, selection {mask}, hdlc."""
    temperature: float
    """Divides HDLC's logit."""
    threshold: float
    """Probability from which a cell or image is called malignant; chosen on validation."""
    single_cell: bool
    """Whether images hold one cell each."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Dataset name, split digest, held-out metrics, version: for people and for comparisons."""
    version: str = ""
    """First 12 hex digits of the hash over the parts: names this model in every answer."""


def save_bundle(folder: Folder, bundle: Bundle) -> Bundle:
    """Write a bundle; returns it with its ``version``. Raises RunNotWritableError."""
    hashes: dict[str, str] = {}
    for part in PARTS:
        data = save_tensors({k: v.detach().cpu().contiguous() for k, v in bundle.tensors[part].items()})
        hashes[f"{part}.safetensors"] = hashlib.sha256(data).hexdigest()
        folder.write_bytes(f"{part}.safetensors", data)
    version = hashlib.sha256("".join(hashes[k] for k in sorted(hashes)).encode()).hexdigest()[:12]
    body = {
        "format": FORMAT,
        "cotray": cotray.__version__,
        "version": version,
        "config": portable(bundle.config).model_dump(mode="json"),
        "temperature": bundle.temperature,
        "threshold": bundle.threshold,
        "single_cell": bundle.single_cell,
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
    return Bundle(
        config=config,
        tensors=tensors,
        temperature=float(body["temperature"]),
        threshold=float(body["threshold"]),
        single_cell=bool(body["single_cell"]),
        facts=dict(body["facts"]),
        version=str(body["version"]),
    )


def portable(config: Config) -> Config:
    """The config without what belongs to one machine: paths, tracking, workers."""
    tree = config.model_dump(mode="json")
    tree["dataset"] |= {"root": None, "subjects_csv": None}
    tree["segment"]["checkpoint"] = None
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


def _read_part(folder: Folder, name: str, hashes: Mapping[str, str]) -> dict[str, Tensor]:
    try:
        data = folder.read_bytes(name)
    except FileNotFoundError as error:
        raise BundleError(f"{name} is missing.", where=folder.uri, cure=_RECOPY) from error
    if hashlib.sha256(data).hexdigest() != hashes.get(name):
        raise BundleError(f"{name} was altered: its hash differs.", where=folder.uri, cure=_RECOPY)
    return {key: torch.as_tensor(value) for key, value in load_tensors(data).items()}


def _body_hash(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


_RECOPY = "Copy the bundle again from where it was made, or run `cotray classify` and `cotray evaluate` anew."
