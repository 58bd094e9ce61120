"""What a layout's parser gives, and what its publishers counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cotray.errors import DataError


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
    centroids: tuple[tuple[float, float], ...] | None = None
    """(x, y) in pixels of every blast, where the dataset points them out; empty: none in this image."""


class Parsed(NamedTuple):
    """What a parser makes of a listing."""

    records: list[ImageRecord]
    """Images that fit the layout."""
    rejected: list[tuple[str, str]]
    """Image files that do not, with the reason."""
    faults: Sequence[DataError] = ()
    """Why these data must not be used as they are: wrong tables, duplicate ids, contradictions."""


class Published(NamedTuple):
    """Images of one class in one part of a dataset, as its publishers count them."""

    part: str
    """`fold_K`, `training` (all folds), `preliminary`, `final`; empty where a dataset has no parts."""
    class_name: str
    images: int
    subjects: int | None = None
