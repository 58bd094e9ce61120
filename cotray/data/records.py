"""What a layout's parser gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class ImageRecord:
    """One image file and what its place and name say about it."""

    path: str
    """Relative posix path below the root; also its id."""
    label: int | None
    """1 malignant, 0 normal, None unlabelled."""
    class_name: str | None
    """The class as the dataset calls it."""
    subject: str | None
    """Subject id, where the dataset names one."""
    mask_path: str | None = None
    """A mask of the cell, where there is one."""
    official_split: str | None = None
    """Fold or phase as published."""


class Parsed(NamedTuple):
    """Records, and image files that do not fit the layout with the reason."""

    records: list[ImageRecord]
    rejected: list[tuple[str, str]]
