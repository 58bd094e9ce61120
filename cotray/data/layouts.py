"""Parsers of ALL-IDB, SN-AM and class folders, pure: relative paths (and a text reader) in, records out.

Each reads its layout as published, however many folders lie above or between, in any case of letters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from cotray.config import DatasetConfig
from cotray.data.label_files import Read, no_contradiction, read_centroids, read_csv
from cotray.data.layout_cnmc import duplicates, parse_cnmc
from cotray.data.names import (
    folders_inside_out,
    images_below,
    masks_by_stem,
    natural,
    stem,
    with_suffix,
)
from cotray.data.records import ImageRecord, Parsed
from cotray.errors import ClassError, DataError, LabelFileError

NORMAL = {"normal", "benign", "healthy", "hem", "negative", "0", "control"}
IDB = re.compile(r"^Im(\d+)_([01])$", re.IGNORECASE)
_WHICH_IDB = re.compile(r"all[ _-]?idb[ _-]?([12])", re.IGNORECASE)
B_ALL = re.compile(r"(?<![a-z])b[ _-]?all(?![a-z])|^all$", re.IGNORECASE)
MYELOMA = re.compile(r"(?<![a-z])mm(?![a-z])|myeloma", re.IGNORECASE)


def parse_idb1(files: Sequence[str], read: Read, config: DatasetConfig) -> Parsed:
    """ALL-IDB1: ``im/ImXXX_{1,0}.jpg`` with the blasts' centroids in ``xyc/ImXXX_{1,0}.xyc``."""
    parsed = _parse_idb("1", files, config)
    paths = with_suffix(files, ".xyc")
    points: dict[str, tuple[tuple[float, float], ...]] = {}
    faults = list(parsed.faults)
    for record in parsed.records:
        if stem(record.path) in paths:
            try:
                points[record.path] = read_centroids(paths[stem(record.path)], read)
            except DataError as error:
                faults.append(error)
    records = [_idb_record(r.path, r.mask_path, points.get(r.path)) for r in parsed.records]
    return Parsed(records, parsed.rejected, faults)


def parse_idb2(files: Sequence[str], read: Read, config: DatasetConfig) -> Parsed:
    """ALL-IDB2: ``img/ImXXX_{1,0}.tif``; masks of the same stem in masks*/ folders."""
    return _parse_idb("2", files, config)


def _parse_idb(which: str, files: Sequence[str], config: DatasetConfig) -> Parsed:
    masks = masks_by_stem(files)
    records, rejected = [], []
    for path in images_below(files, config.root):
        folders = (_WHICH_IDB.search(part) for part in folders_inside_out(path))
        said = next((match[1] for match in folders if match), which)
        if IDB.match(stem(path)) is None:
            rejected.append((path, "the name is not ImXXX_{1,0}"))
        elif said != which:
            rejected.append((path, f"it lies in a folder of ALL-IDB{said}"))
        else:
            records.append(_idb_record(path, masks.get(stem(path))))
    return Parsed(records, rejected, list(duplicates(records)))


def _idb_record(
    path: str, mask: str | None, centroids: tuple[tuple[float, float], ...] | None = None
) -> ImageRecord:
    label = int(stem(path)[-1])
    name = "blast" if label else "healthy"
    return ImageRecord(path, label, name, None, mask_path=mask, centroids=centroids)


def parse_snam(files: Sequence[str], read: Read, config: DatasetConfig) -> Parsed:
    """SN-AM: folders named like B-ALL (positive) and MM; the innermost that names one of the two decides."""
    records, rejected = [], []
    for path in images_below(files, config.root):
        label = next((b for b in map(_snam_label, folders_inside_out(path)) if b is not None), None)
        if label is None:
            rejected.append((path, "neither below a B-ALL nor an MM folder"))
        else:
            records.append(ImageRecord(path, label, "B-ALL" if label else "MM", None))
    return Parsed(records, rejected)


def _snam_label(folder: str) -> int | None:
    """1 B-ALL, 0 MM; None where the folder names neither, or both as SN-AM-BALL-MM does."""
    malignant, other = B_ALL.search(folder) is not None, MYELOMA.search(folder) is not None
    return None if malignant == other else int(malignant)


def parse_folder(files: Sequence[str], read: Read, config: DatasetConfig) -> Parsed:
    """Class folders: the innermost folder that the class map names decides. An unknown map is a fault.

    A subject may have images in two classes here: a patient has both kinds of cells, and the split keeps
    a subject whole in any case.
    """
    found = images_below(files, config.root)
    faults: list[DataError] = []
    try:
        mapped: dict[str, int | None] = dict(config.class_map or _infer(found, config.root))
    except ClassError as error:
        mapped, faults = {folders_inside_out(path)[0]: None for path in found if "/" in path}, [error]
    try:
        subjects = _subjects(config, read, found)
    except DataError as error:
        subjects, faults = {}, [*faults, error]
    return _classed(found, mapped, subjects, faults)


def _classed(
    found: Sequence[str], mapped: dict[str, int | None], subjects: dict[str, str], faults: list[DataError]
) -> Parsed:
    labels = {name.lower(): (name, label) for name, label in mapped.items()}
    records, rejected = [], []
    for path in found:
        folder = next((part for part in folders_inside_out(path) if part.lower() in labels), None)
        if folder is None:
            rejected.append((path, "in no folder that dataset.class_map names"))
            continue
        name, label = labels[folder.lower()]
        records.append(ImageRecord(path, label, name, subjects.get(path)))
    return Parsed(records, rejected, faults)


def _infer(files: Sequence[str], root: str | None) -> dict[str, int]:
    """A class map where exactly one of two folders is named like normal; else ClassError with the cure."""
    names = sorted({folders_inside_out(file)[0] for file in files if "/" in file})
    normal = [name for name in names if name.lower() in NORMAL]
    if len(names) == 2 and len(normal) == 1:
        return {name: int(name not in normal) for name in names}
    example = (
        ", ".join(f"{n}: {int(n.lower() not in NORMAL)}" for n in names[:6]) or "Benign: 0, Malignant: 1"
    )
    raise ClassError(
        f"Which class folder is malignant is not known; found: {', '.join(names[:10]) or 'no folders'}.",
        where=root,
        cure=f"Say it with --set 'dataset.class_map={{{example}}}'.",
    )


def _subjects(config: DatasetConfig, read: Read, found: Sequence[str]) -> dict[str, str]:
    """Image -> subject from the subjects CSV. Raises LabelFileError, DuplicateIdError."""
    if not config.subjects_csv:
        return {}
    rows = read_csv(config.subjects_csv, read, ("path", "subject"))
    known = {path.lower(): path for path in found} | {path: path for path in found}
    pairs, missing = [], []
    for row in rows:
        path = str(PurePosixPath(row["path"].replace("\\", "/")))
        here = known.get(path) or known.get(path.lower())
        if here is None:
            missing.append(path)
        else:
            pairs.append((here, row["subject"]))
    if missing:
        raise LabelFileError(
            f"{len(missing)} files named there do not exist, the first: {missing[0]}.",
            where=config.subjects_csv,
            cure="Paths must be relative to --root, as in Benign/a.png.",
        )
    return no_contradiction(pairs, config.subjects_csv)


__all__ = [
    "B_ALL",
    "IDB",
    "MYELOMA",
    "images_below",
    "natural",
    "parse_cnmc",
    "parse_folder",
    "parse_idb1",
    "parse_idb2",
    "parse_snam",
]
