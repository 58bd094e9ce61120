"""SAM checkpoints: read without running what is in them, told apart, fitted to the window's side."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from hashlib import sha256
from typing import BinaryIO

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cotray.config import SegmentConfig
from cotray.errors import WeightsError
from cotray.segmentation.leusam import VIT, build_leusam

OWN_FILES = "Use a file from the Segment Anything project, such as sam_vit_b_*.pth."


def read_sam(file: BinaryIO, where: str, *, shapes_only: bool = False) -> dict[str, Tensor]:
    """A SAM checkpoint's tensors by name, as :func:`read_archive` reads them. Raises WeightsError."""
    return read_archive(file, where, "SAM checkpoint", OWN_FILES, shapes_only=shapes_only)


def read_archive(
    file: BinaryIO, where: str, what: str, cure: str, *, shapes_only: bool = False
) -> dict[str, Tensor]:
    """Tensors by name from a torch archive; on the meta device, without their bytes, if ``shapes_only``.

    Nothing is unpickled before the archive has been found whole and its pickle found to name nothing but
    tensors; and then by torch's weights-only reader. Raises WeightsError.
    """
    try:
        _refuse_foreign(file, where, what, cure)
        file.seek(0)
        place = "meta" if shapes_only else "cpu"
        state = torch.load(file, map_location=place, weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # a zip of something else, a damaged directory; torch raises pickle errors too
        raise WeightsError(f"This is not a {what}: {_first_line(error)}", where=where, cure=cure) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError("This file holds something else than named tensors.", where=where, cure=cure)
    return state


def _refuse_foreign(file: BinaryIO, where: str, what: str, cure: str) -> None:
    """Raise WeightsError where the file is no whole torch archive, or its pickle asks for code."""
    if not zipfile.is_zipfile(file):
        told = f"This is not a {what}: it is no torch archive, or a truncated one."
        raise WeightsError(told, where=where, cure=cure)
    file.seek(0)
    code = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    if code:
        raise WeightsError(
            f"This file would run code if it were unpickled ({', '.join(sorted(code)[:3])}); it was not.",
            where=where,
            cure=f"Do not use it. {cure}",
        )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def checkpoint_digest(file: BinaryIO) -> str:
    """Content of a torch archive by the names, sizes and CRCs in its directory; '' if it is none."""
    if not zipfile.is_zipfile(file):
        return ""
    with zipfile.ZipFile(file) as archive:
        marks = sorted(
            (info.filename.partition("/")[2], info.CRC, info.file_size) for info in archive.infolist()
        )
    return sha256(repr(marks).encode()).hexdigest()


# ---- which one -----------------------------------------------------------------------------------------


def variant_of(state: Mapping[str, Tensor]) -> str | None:
    """Which published SAM a state dict has the width and depth of; None where it is none of them."""
    patch = state.get("image_encoder.patch_embed.proj.weight")
    depth = sum(name.startswith("image_encoder.blocks.") and name.endswith(".norm1.weight") for name in state)
    sizes = {(size["embed_dim"], size["depth"]): name for name, size in VIT.items()}
    return None if patch is None else sizes.get((len(patch), depth))


def require_variant(state: Mapping[str, Tensor], cfg: SegmentConfig, where: str) -> None:
    """Raise WeightsError where these tensors are not those of ``cfg.variant``; shapes are enough."""
    if not any(name.startswith("image_encoder.") for name in state):
        raise WeightsError("These tensors are no Segment Anything model's.", where=where, cure=OWN_FILES)
    looks = variant_of(state)
    if looks is not None and looks != cfg.variant:
        raise WeightsError(
            f"This checkpoint looks like {looks}, and segment.variant is {cfg.variant}.",
            where=where,
            cure=f"Use --set segment.variant={looks}, or give the file of {cfg.variant}.",
        )
    with torch.device("meta"):
        model = build_leusam(cfg)
    try:
        _fitted(model, state)
    except WeightsError as error:
        raise WeightsError(error.what, where=where, cure=error.cure) from error


# ---- into a model --------------------------------------------------------------------------------------


def load_sam_checkpoint(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put a SAM checkpoint's tensors into a LeuSAM, resizing its positions to the window's side.

    Raises WeightsError where a tensor is missing or does not fit; the model is then as it was.
    """
    model.load_state_dict(_fitted(model, state))


def _fitted(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    if missing:
        raise WeightsError(
            f"The SAM checkpoint lacks {len(missing)} tensors, e.g. '{missing[0]}'.",
            cure="Use the checkpoint of the configured segment.variant.",
        )
    return {name: _fit(name, state[name], own[name]) for name in own}


def _fit(name: str, given: Tensor, own: Tensor) -> Tensor:
    """``given`` in the shape of ``own``; positions are interpolated, anything else must match."""
    if given.shape == own.shape:
        return given
    if name.endswith("pos_embed") and given.ndim == 4 and given.shape[-1] == own.shape[-1]:
        grid = F.interpolate(given.permute(0, 3, 1, 2), own.shape[1:3], mode="bicubic", align_corners=False)
        return grid.permute(0, 2, 3, 1)
    if ".rel_pos_" in name and given.ndim == 2 and given.shape[-1] == own.shape[-1]:
        return F.interpolate(given.T[None], len(own), mode="linear")[0].T
    raise WeightsError(
        f"The checkpoint's '{name}' is {tuple(given.shape)}, and {tuple(own.shape)} is needed.",
        cure="Use the checkpoint of the configured segment.variant.",
    )
