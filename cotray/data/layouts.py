"""Parsers of the layouts, pure: relative paths (and a text reader for CSVs) in, records out."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath

from cotray.config import DatasetConfig
from cotray.data.records import ImageRecord, Parsed
from cotray.errors import ClassError, DatasetNotFoundError, EmptyDatasetError, LabelFileError

Read = Callable[[str], str]
IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
NORMAL = {"normal", "benign", "healthy", "hem", "negative", "0", "control"}

_CNMC = re.compile(r"^UID_(H?\d+)_(\d+)_(\d+)_(all|hem)$", re.IGNORECASE)
_IDB = re.compile(r"^Im(\d+)_([01])$", re.IGNORECASE)


def images_below(files: Iterable[str]) -> list[str]:
    """Image files, naturally sorted; masks and hidden files are not images. Raises EmptyDatasetError."""
    found = [f for f in files if PurePosixPath(f).suffix.lower() in IMAGES and not _is_side(f)]
    if not found:
        raise EmptyDatasetError(
            "There is no image here.", cure="Check --root; png, jpg, bmp and tif files are read."
        )
    return sorted(found, key=natural)


def natural(path: str) -> list[tuple[int, int, str]]:
    """Sort key: digits by value, so that 2 comes before 10."""
    pieces = re.split(r"(\d+)", path.lower())
    return [(0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in pieces]


def _is_side(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return any(p.startswith(".") or p.lower().startswith("mask") for p in parts)


def parse_cnmc(files: Sequence[str], read: Read, config: DatasetConfig) -> Parsed:
    """C-NMC 2019: training folds by file name; the preliminary set by its CSV; the final set unlabelled."""
    labels = _cnmc_csv(files, read)
    records, rejected = [], []
    for path in images_below(files):
        record = _cnmc_record(path, labels)
        if record is None:
            rejected.append((path, "the name is not UID_<subject>_<image>_<cell>_{all,hem}"))
        else:
            records.append(record)
    return _some(records, rejected, "C-NMC 2019")


def _cnmc_record(path: str, labels: dict[str, tuple[str, int]]) -> ImageRecord | None:
    pure = PurePosixPath(path)
    match = _CNMC.match(pure.stem)
    if match:
        fold = next((p.lower() for p in pure.parts if p.lower().startswith("fold")), None)
        return _cnmc_cell(path, match[1].upper(), int(match[4].lower() == "all"), fold)
    if pure.name.lower() in labels:
        patient, label = labels[pure.name.lower()]
        return _cnmc_cell(path, patient.upper(), label, "preliminary")
    if pure.stem.isdigit():
        return ImageRecord(path, None, None, None, official_split="final")
    return None


def _cnmc_cell(path: str, subject: str, label: int, fold: str | None) -> ImageRecord:
    return ImageRecord(path, label, "all" if label else "hem", subject, official_split=fold)


def _cnmc_csv(files: Sequence[str], read: Read) -> dict[str, tuple[str, int]]:
    """new_names -> (patient, label) of the preliminary set's CSV; patients look like UID_57_29_1_all.bmp."""
    found: dict[str, tuple[str, int]] = {}
    for path in files:
        if path.lower().endswith(".csv") and "prelim" in path.lower():
            for row in read_csv(path, read, ("Patient_ID", "new_names", "labels")):
                match = _CNMC.match(PurePosixPath(row["Patient_ID"]).stem)
                subject = match[1] if match else row["Patient_ID"]
                if row["labels"] not in ("0", "1"):
                    raise LabelFileError(
                        f"The label of {row['new_names']} is '{row['labels']}'.",
                        where=path,
                        cure="Write 1 for all, 0 for hem.",
                    )
                found[row["new_names"].lower()] = (subject, int(row["labels"]))
    return found


def parse_idb(files: Sequence[str], read: Read, config: DatasetConfig) -> Parsed:
    """ALL-IDB1 and ALL-IDB2: ImXXX_1 is malignant, ImXXX_0 normal; masks by stem from masks*/ folders."""
    masks = _masks(files)
    records, rejected = [], []
    for path in images_below(files):
        stem = PurePosixPath(path).stem
        match = _IDB.match(stem)
        if match is None:
            rejected.append((path, "the name is not ImXXX_{1,0}"))
            continue
        label = int(match[2])
        name = "blast" if label else "healthy"
        records.append(ImageRecord(path, label, name, None, mask_path=masks.get(stem.lower())))
    return _some(records, rejected, "ALL-IDB")


def _masks(files: Sequence[str]) -> dict[str, str]:
    """Stem -> mask file; of several folders the first by name counts."""
    masks: dict[str, str] = {}
    for path in sorted(files, reverse=True):
        pure = PurePosixPath(path)
        if pure.suffix.lower() in IMAGES and any(p.lower().startswith("mask") for p in pure.parts[:-1]):
            masks[pure.stem.lower()] = path
    return masks


def parse_snam(files: Sequence[str], read: Read, config: DatasetConfig) -> Parsed:
    """SN-AM: folders named like B-ALL (positive) and MM."""
    records, rejected = [], []
    for path in images_below(files):
        where = "/".join(PurePosixPath(path).parts[:-1]).lower()
        if re.search(r"b[-_ ]?all", where):
            records.append(ImageRecord(path, 1, "B-ALL", None))
        elif re.search(r"(^|/|\b|_)mm(\b|_|/|$)|myeloma", where):
            records.append(ImageRecord(path, 0, "MM", None))
        else:
            rejected.append((path, "neither below a B-ALL nor an MM folder"))
    return _some(records, rejected, "SN-AM")


def parse_folder(files: Sequence[str], read: Read, config: DatasetConfig) -> Parsed:
    """Class folders: the innermost folder that the class map names decides. Raises ClassError."""
    found = images_below(files)
    labels = {k.lower(): (k, v) for k, v in (config.class_map or _infer(found)).items()}
    subjects = _subjects(config, read, set(found))
    records, rejected = [], []
    for path in found:
        folder = next((p for p in reversed(PurePosixPath(path).parts[:-1]) if p.lower() in labels), None)
        if folder is None:
            rejected.append((path, "in no folder that dataset.class_map names"))
            continue
        name, label = labels[folder.lower()]
        records.append(ImageRecord(path, label, name, subjects.get(path)))
    return _some(records, rejected, "class folders")


def _infer(files: Sequence[str]) -> dict[str, int]:
    """A class map where exactly one of two folders is named like normal; else ClassError with the cure."""
    names = sorted({PurePosixPath(f).parts[-2] for f in files if len(PurePosixPath(f).parts) > 1})
    normal = [name for name in names if name.lower() in NORMAL]
    if len(names) == 2 and len(normal) == 1:
        return {name: int(name not in normal) for name in names}
    example = (
        ", ".join(f"{n}: {int(n.lower() not in NORMAL)}" for n in names[:6]) or "Benign: 0, Malignant: 1"
    )
    raise ClassError(
        f"Which class folder is malignant is not known; found: {', '.join(names[:10]) or 'no folders'}.",
        cure=f"Say it with --set 'dataset.class_map={{{example}}}'.",
    )


def _subjects(config: DatasetConfig, read: Read, known: set[str]) -> dict[str, str]:
    if not config.subjects_csv:
        return {}
    rows = list(read_csv(config.subjects_csv, read, ("path", "subject")))
    missing = [row["path"] for row in rows if row["path"] not in known]
    if missing:
        raise LabelFileError(
            f"{len(missing)} files named there do not exist, the first: {missing[0]}.",
            where=config.subjects_csv,
            cure="Paths must be relative to --root, as in Benign/a.png.",
        )
    return {row["path"]: row["subject"] for row in rows}


def read_csv(path: str, read: Read, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV that must have some columns. Raises LabelFileError."""
    try:
        rows = list(csv.DictReader(io.StringIO(read(path))))
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise LabelFileError(f"Cannot read this CSV: {error}", where=path) from error
    lacking = [c for c in columns if not rows or c not in rows[0]]
    if lacking:
        raise LabelFileError(f"The CSV lacks the columns: {', '.join(lacking)}.", where=path)
    return rows


def _some(records: list[ImageRecord], rejected: list[tuple[str, str]], title: str) -> Parsed:
    if records:
        return Parsed(records, rejected)
    raise DatasetNotFoundError(
        f"No file fits the layout of {title}; the first is {rejected[0][0]}: {rejected[0][1]}.",
        cure="See `cotray datasets describe NAME`, or read it as class folders with --dataset folder.",
    )
