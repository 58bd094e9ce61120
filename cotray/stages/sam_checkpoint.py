"""The user's SAM checkpoint: checked before any stage begins, read where the model is built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from torch import Tensor

from cotray.config import Config, SegmentConfig
from cotray.errors import WeightsError
from cotray.segmentation.checkpoint import checkpoint_digest, read_sam, require_variant
from cotray.storage import Folder, absolute


def fine_tunes(segment: SegmentConfig) -> bool:
    """Whether the segmenter starts from a SAM checkpoint."""
    return segment.model == "leusam" and segment.variant != "tiny"


def require_checkpoint(config: Config) -> None:
    """Raise WeightsError where `vit_*` has no checkpoint, or one of another variant, or a file that is none.

    Only names and shapes are read.
    """
    segment = config.segment
    if not fine_tunes(segment):
        return
    if not segment.checkpoint:
        raise WeightsError(
            f"segment.variant={segment.variant} fine-tunes a Segment Anything checkpoint, and none is given.",
            cure="Give the file with --set segment.checkpoint=FILE, or use --set segment.variant=tiny.",
        )
    with opened(segment.checkpoint, "segment.checkpoint") as file:
        state = read_sam(file, segment.checkpoint, shapes_only=True)
    require_variant(state, segment, segment.checkpoint)


def read_checkpoint(segment: SegmentConfig) -> dict[str, Tensor] | None:
    """The tensors that training starts from; None where it starts from nothing. Raises WeightsError."""
    if not fine_tunes(segment) or not segment.checkpoint:
        return None
    with opened(segment.checkpoint, "segment.checkpoint") as file:
        return read_sam(file, segment.checkpoint)


def checkpoint_mark(config: Config) -> dict[str, str]:
    """What the segment stage's outcome depends on beside its settings: what the checkpoint holds."""
    segment = config.segment
    if not fine_tunes(segment) or not segment.checkpoint:
        return {}
    try:
        with opened(segment.checkpoint, "segment.checkpoint") as file:
            return {"sam_checkpoint": checkpoint_digest(file)}
    except WeightsError:  # said by require_checkpoint, and only if the stage is to be done
        return {}


@contextmanager
def opened(uri: str, key: str) -> Iterator[BinaryIO]:
    """A file that the setting ``key`` names, to read from. Raises WeightsError where it cannot be."""
    parent, _, name = absolute(uri).rpartition("/")
    folder = Folder(parent or "/")
    try:
        file = folder.fs.open(folder.at(name), "rb")
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise WeightsError(
            "There is no such checkpoint." if missing else f"Cannot open this checkpoint: {error.strerror}.",
            where=uri,
            cure=f"Check {key}.",
        ) from error
    with file:
        yield file
