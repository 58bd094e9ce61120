"""What happens to every image before cells are looked for: known shortcuts blanked, stain normalised,
contrast enhanced. Ingest, training on phantoms, the predictor and the server all call :func:`prepare`.

Two settings of ``enhance`` name files: a restoration network and a stain target. A run keeps copies of them
in its ingest folder, a bundle keeps them among its parts; a process reads them once.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cotray.config import Config, EnhanceConfig
from cotray.data.decode import decode_image
from cotray.errors import DecodeError, InvalidValueError, WeightsError
from cotray.imaging.enhance import enhance, load_network, no_weights
from cotray.imaging.regions import blank_regions
from cotray.imaging.stain import StainNormaliser
from cotray.storage import Folder, absolute

if TYPE_CHECKING:
    from torch import nn

Rgb = NDArray[np.uint8]

COPIES = {"mirnet_weights": "mirnet.pt", "stain_target": "stain-target"}
"""Setting of ``enhance`` that names a file -> name of its copy in a run or a bundle."""
LARGEST, SMALLEST = 50_000_000, 16
"""A stain target's most pixels and shortest side."""


@dataclass(frozen=True)
class Prepared:
    """An image, ready for cells to be looked for."""

    rgb: Rgb
    """(H, W, 3) uint8."""
    stain_left: str | None
    """Why the stain was left as it was although its normalisation was asked for."""


def decode(data: bytes, config: Config) -> Rgb:
    """Image bytes -> RGB. Raises DecodeError."""
    return decode_image(data, max_pixels=config.ingest.max_pixels, min_side=config.ingest.min_side)


def prepare(rgb: Rgb, config: Config) -> Rgb:
    """Blank known shortcuts, normalise the stain, enhance: (H, W, 3) uint8 -> the same.

    Raises WeightsError, InvalidValueError where a file that ``config.enhance`` names cannot be used.
    """
    return prepare_noted(rgb, config).rgb


def prepare_noted(rgb: Rgb, config: Config) -> Prepared:
    """:func:`prepare`, with a note where the stain could not be normalised."""
    tools = load_tools(config.enhance)
    rgb, left = blank_regions(rgb, config.ingest.mask_regions), None
    if tools.normaliser:
        rgb, left = tools.normaliser(rgb)
    return Prepared(enhance(rgb, config.enhance, tools.network), left)


# ---- what is loaded once per process ---------------------------------------------------------------


@dataclass(frozen=True)
class Tools:
    """What :func:`prepare` needs beside the image and the settings."""

    network: nn.Module | None
    normaliser: StainNormaliser | None


def load_tools(cfg: EnhanceConfig) -> Tools:
    """Network and stain normaliser of these settings, loaded anew only where a local file has changed.

    Raises WeightsError (no such file, not TorchScript), InvalidValueError (the stain target).
    """
    return _load_tools(cfg, tuple(_mark(uri) for uri in files_used(cfg).values()))


@functools.lru_cache(maxsize=4)
def _load_tools(cfg: EnhanceConfig, marks: tuple[tuple[int, int] | None, ...]) -> Tools:
    uris = files_used(cfg)
    if cfg.method == "mirnet" and "mirnet_weights" not in uris:
        raise no_weights(cfg)
    network = uris.get("mirnet_weights")
    return Tools(
        load_network(_read(network, WeightsError, "mirnet_weights"), network) if network else None,
        None if cfg.stain == "none" else StainNormaliser(cfg, _target(uris.get("stain_target"))),
    )


def _mark(uri: str) -> tuple[int, int] | None:
    """When a local file was changed, and its size; None elsewhere, where asking costs a round trip."""
    try:
        found = Path(uri).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _target(uri: str | None) -> Rgb | None:
    if uri is None:
        return None
    try:
        data = _read(uri, InvalidValueError, "stain_target")
        return decode_image(data, max_pixels=LARGEST, min_side=SMALLEST)
    except DecodeError as error:
        raise InvalidValueError(
            f"The stain target cannot be used: {error.what}", where=uri, cure="Check enhance.stain_target."
        ) from error


def _read(uri: str, kind: type[WeightsError] | type[InvalidValueError], key: str) -> bytes:
    parent, _, name = uri.rpartition("/")
    try:
        return Folder(parent or "/").read_bytes(name)
    except OSError as error:
        raise kind(
            f"This file cannot be read: {error.strerror or error}.", where=uri, cure=f"Check enhance.{key}."
        ) from error


# ---- files that travel with a run and with a bundle ------------------------------------------------


def files_used(cfg: EnhanceConfig) -> dict[str, str]:
    """Setting -> absolute URI of the files that are read under these settings."""
    wanted = {
        "mirnet_weights": cfg.mirnet_weights if cfg.method == "mirnet" else None,
        "stain_target": cfg.stain_target if cfg.stain != "none" else None,
    }
    return {key: absolute(uri) for key, uri in wanted.items() if uri}


def digests(config: Config) -> dict[str, str]:
    """Setting -> sha256 of its file. Raises WeightsError, InvalidValueError where it cannot be read."""
    return {key: hashlib.sha256(data).hexdigest() for key, data in _contents(config).items()}


def carry(config: Config, folder: Folder) -> Config:
    """Copy the files into ``folder``; the settings then name the copies. Raises as :func:`digests`."""
    for key, data in _contents(config).items():
        folder.write_bytes(COPIES[key], data)
    return carried(config, folder)


def carried(config: Config, folder: Folder) -> Config:
    """The settings, naming the copies that :func:`carry` made in ``folder``."""
    copies = {key: f"{folder.uri}/{COPIES[key]}" for key in files_used(config.enhance)}
    return config.model_copy(update={"enhance": config.enhance.model_copy(update=copies)})


def _contents(config: Config) -> dict[str, bytes]:
    return {
        key: _read(uri, WeightsError if key == "mirnet_weights" else InvalidValueError, key)
        for key, uri in files_used(config.enhance).items()
    }
