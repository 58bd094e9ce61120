"""The dataset layouts cotray reads, each as published: relative paths in, labelled records out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cotray.config import DatasetConfig
from cotray.data import layouts
from cotray.data.records import ImageRecord, Parsed
from cotray.errors import UnknownNameError, nearest

Parse = Callable[[Sequence[str], Callable[[str], str], DatasetConfig], Parsed]


@dataclass(frozen=True)
class Layout:
    """How a public (or a lab's own) dataset lies on disk."""

    name: str
    title: str
    summary: str
    multi_cell: bool
    """Whether an image is a field with many cells."""
    parse: Parse
    """Pure: (relative paths, text reader, settings) -> records and rejected files."""
    published: Mapping[str, int] = field(default_factory=dict)
    """Counts as published, to compare a download with."""


DATASETS: dict[str, Layout] = {
    "c-nmc": Layout(
        "c-nmc",
        "C-NMC 2019",
        "C-NMC_training_data/fold_K/{all,hem}/UID_<subject>_<image>_<cell>_{all,hem}.bmp: single cells on "
        "black; the preliminary set with its labels CSV; subjects are named.",
        False,
        layouts.parse_cnmc,
        {
            "training malignant": 7272,
            "training normal": 3389,
            "subjects malignant": 47,
            "subjects normal": 26,
        },
    ),
    "all-idb1": Layout(
        "all-idb1",
        "ALL-IDB1",
        "im/ImXXX_{1,0}.jpg: fields; 1 = from a leukemia patient.",
        True,
        layouts.parse_idb,
        {"malignant": 49, "normal": 59},
    ),
    "all-idb2": Layout(
        "all-idb2",
        "ALL-IDB2",
        "img/ImXXX_{1,0}.tif: single cells; 1 = blast. Masks of the same stem in masks*/ are used.",
        False,
        layouts.parse_idb,
        {"malignant": 130, "normal": 130},
    ),
    "sn-am": Layout(
        "sn-am",
        "SN-AM",
        "B-ALL and MM folders of 2560x1920 bmp fields; B-ALL is the positive class.",
        True,
        layouts.parse_snam,
        {"malignant": 90, "normal": 100},
    ),
    "folder": Layout(
        "folder",
        "Class folders",
        "<root>/<class>/**/*.{png,jpg,bmp,tif}; classes by dataset.class_map, subjects by subjects_csv.",
        False,
        layouts.parse_folder,
    ),
    "phantom": Layout(
        "phantom",
        "Phantom",
        "Blood smears drawn by a program, with exact masks; no medical meaning. Needs no files.",
        False,
        lambda files, read, config: Parsed([], []),
    ),
}


def find_dataset(name: str) -> Layout:
    """A layout by name. Raises UnknownNameError with the nearest."""
    if name not in DATASETS:
        raise UnknownNameError(f"Unknown dataset '{name}'.", cure=nearest(name, DATASETS))
    return DATASETS[name]


class _Classed(Protocol):
    @property
    def class_name(self) -> str | None: ...


Classed = TypeVar("Classed", bound=_Classed)


def limit_records(records: Sequence[Classed], limit: int) -> list[Classed]:
    """At most ``limit`` records (or phantom specs): the same share of each class, evenly over the listing.

    A rare class keeps at least one, where there are as many places as classes.
    """
    if len(records) <= limit:
        return list(records)
    by_class: dict[str | None, list[int]] = {}
    for index, record in enumerate(records):
        by_class.setdefault(record.class_name, []).append(index)
    chosen: list[int] = []
    shares = _shares([len(members) for members in by_class.values()], limit)
    for members, share in zip(by_class.values(), shares, strict=True):
        picks = np.linspace(0, len(members) - 1, share).round().astype(int)
        chosen += [members[pick] for pick in picks]
    return [records[index] for index in sorted(chosen)]


def _shares(sizes: Sequence[int], limit: int) -> list[int]:
    """``limit`` places (fewer than there are items) dealt to classes: one each, then to who lacks most."""
    due = [size * limit / sum(sizes) for size in sizes]
    shares = [0] * len(sizes)
    for _ in range(limit):
        shares[max(range(len(sizes)), key=lambda i: (shares[i] == 0, due[i] - shares[i]))] += 1
    return shares


def decode_cell_mask(dataset: str, raw: NDArray[np.uint8], mask_path: str) -> NDArray[np.bool_]:
    """(H, W, 3) painted mask -> (H, W) bool of the whole cell (nucleus and cytoplasm).

    Masks on white (Putzu's of ALL-IDB2): whatever is not white. Others: whatever is not black.
    """
    corners = raw[[0, 0, -1, -1], [0, -1, 0, -1]]
    if (corners.min(axis=1) > 200).sum() >= 2:
        return np.asarray(raw.min(axis=2) <= 200)
    return np.asarray(raw.max(axis=2) > 20)


__all__ = ["DATASETS", "ImageRecord", "Layout", "Parsed", "decode_cell_mask", "find_dataset", "limit_records"]
