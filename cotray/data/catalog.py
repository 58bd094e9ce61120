"""The dataset layouts cotray reads, each as published: relative paths in, labelled records out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cotray.config import DatasetConfig
from cotray.data import layouts
from cotray.data.label_files import Read
from cotray.data.layout_cnmc import CELL
from cotray.data.names import folders_inside_out, images_below, stem, with_suffix
from cotray.data.records import ImageRecord, Parsed, Published
from cotray.errors import DatasetNotFoundError, UnknownNameError, nearest

Survey = Callable[[Sequence[str], Read, DatasetConfig], Parsed]


@dataclass(frozen=True)
class Layout:
    """How a public (or a lab's own) dataset lies on disk."""

    name: str
    title: str
    summary: str
    multi_cell: bool
    """Whether an image is a field with many cells."""
    survey: Survey
    """Pure: (relative paths, text reader, settings) -> records, rejected files and faults."""
    published: tuple[Published, ...] = ()
    """Counts as published, to compare a download with."""
    size: str = ""
    """Width and height of its images as published, in words."""
    centroids: int = 0
    """Published files of blast centroids."""

    def parse(self, files: Sequence[str], read: Read, config: DatasetConfig) -> Parsed:
        """:attr:`survey` of data that may be used. Raises its first fault, and DatasetNotFoundError."""
        parsed = self.survey(files, read, config)
        if parsed.faults:
            raise parsed.faults[0]
        if parsed.rejected and not parsed.records:
            raise self.misfit(parsed.rejected, config.root)
        return parsed

    def misfit(self, rejected: Sequence[tuple[str, str]], root: str | None) -> DatasetNotFoundError:
        """The error of a place where no file fits."""
        path, reason = rejected[0]
        return DatasetNotFoundError(
            f"No file fits the layout of {self.title}; the first is {path}: {reason}.",
            where=root,
            cure="See `cotray datasets describe NAME`, or read it as class folders with --dataset folder.",
        )


def _cnmc_counts() -> tuple[Published, ...]:
    folds = ((2397, 1130), (2418, 1163), (2457, 1096))
    return (
        *(
            Published(f"fold_{k}", kind, count)
            for k, counts in enumerate(folds)
            for kind, count in zip(("all", "hem"), counts, strict=True)
        ),
        Published("training", "all", 7272, 47),
        Published("training", "hem", 3389, 26),
        Published("preliminary", "all", 1219),
        Published("preliminary", "hem", 648),
        Published("final", "unlabelled", 2586),
    )


_LAYOUTS = (
    Layout(
        "c-nmc",
        "C-NMC 2019",
        "C-NMC_training_data/fold_K/{all,hem}/UID_<subject>_<image>_<cell>_{all,hem}.bmp: single cells on "
        "black; C-NMC_test_prelim_phase_data/*.bmp with its labels CSV (Patient_ID, new_names, labels); "
        "C-NMC_test_final_phase_data/*.bmp without labels. Subjects are named; each has one class.",
        False,
        layouts.parse_cnmc,
        _cnmc_counts(),
        "450x450",
    ),
    Layout(
        "all-idb1",
        "ALL-IDB1",
        "im/ImXXX_{1,0}.jpg: fields; 1 = from a leukemia patient. xyc/ImXXX_{1,0}.xyc: centroids of the "
        "blasts, one pair x y a line, empty where there are none. No subjects are named.",
        True,
        layouts.parse_idb1,
        (Published("", "blast", 49), Published("", "healthy", 59)),
        "1712x1368 or 2592x1944",
        centroids=108,
    ),
    Layout(
        "all-idb2",
        "ALL-IDB2",
        "img/ImXXX_{1,0}.tif: single cells; 1 = blast. Masks of the same stem in masks*/ are used. "
        "No subjects are named.",
        False,
        layouts.parse_idb2,
        (Published("", "blast", 130), Published("", "healthy", 130)),
        "257x257; some are smaller",
    ),
    Layout(
        "sn-am",
        "SN-AM",
        "B-ALL and MM folders (names vary) of bmp fields; B-ALL is the positive class. No subjects named.",
        True,
        layouts.parse_snam,
        (Published("", "B-ALL", 90), Published("", "MM", 100)),
        "2560x1920",
    ),
    Layout(
        "folder",
        "Class folders",
        "<root>/<class>/**/*.{png,jpg,bmp,tif}; classes by dataset.class_map, subjects by subjects_csv "
        "(columns path, subject).",
        False,
        layouts.parse_folder,
    ),
    Layout(
        "phantom",
        "Phantom",
        "Blood smears drawn by a program, with exact masks; no medical meaning. Needs no files.",
        False,
        lambda files, read, config: Parsed([], []),
    ),
)
DATASETS: dict[str, Layout] = {layout.name: layout for layout in _LAYOUTS}


LOOKS = {
    "c-nmc": "are named as C-NMC 2019 does",
    "all-idb1": "are named ImXXX_{1,0} and are jpg, or have .xyc files",
    "all-idb2": "are named ImXXX_{1,0}",
    "sn-am": "lie below B-ALL or MM",
    "folder": "have names of no published layout",
}
"""Layout -> what most images look like for it to be guessed."""


def guess_dataset(files: Sequence[str], root: str = "") -> tuple[str, str]:
    """(layout, why) by what most image names look like. Raises EmptyDatasetError where there is none."""
    images = images_below(files, root)
    numbered = any("c-nmc" in name.lower() for name in (root, *files))
    kinds = Counter(_kind(image, numbered) for image in images)
    name, count = max(kinds.items(), key=lambda item: (item[1], item[0] != "folder"))
    if name == "all-idb2" and with_suffix(files, ".xyc"):
        name = "all-idb1"
    return name, f"{count} of {len(images)} images {LOOKS[name]}"


def _kind(image: str, numbered: bool) -> str:
    """The layout that an image's path looks like; ``numbered``: numbers are names of C-NMC's test sets."""
    name, folders = stem(image), folders_inside_out(image)
    if CELL.match(name) or (numbered and name.isdigit()):
        return "c-nmc"
    if layouts.IDB.match(name):
        return "all-idb1" if image.lower().endswith((".jpg", ".jpeg")) else "all-idb2"
    plain = [folder for folder in folders if folder.lower() != "all"]
    return "sn-am" if any(layouts.B_ALL.search(f) or layouts.MYELOMA.search(f) for f in plain) else "folder"


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


__all__ = [
    "DATASETS",
    "ImageRecord",
    "Layout",
    "Parsed",
    "decode_cell_mask",
    "find_dataset",
    "guess_dataset",
    "limit_records",
]
