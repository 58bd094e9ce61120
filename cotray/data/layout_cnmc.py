"""C-NMC 2019: training folds by file name, the preliminary set by its CSV, the unlabelled final set.

As published (and as mirrored, which differs by a folder above or below)::

    C-NMC_training_data/fold_{0,1,2}/{all,hem}/UID_<subject>_<image>_<cell>_{all,hem}.bmp
    C-NMC_test_prelim_phase_data/C-NMC_test_prelim_phase_data/<number>.bmp
    C-NMC_test_prelim_phase_data/C-NMC_test_prelim_phase_data_labels.csv   Patient_ID,new_names,labels
    C-NMC_test_final_phase_data/C-NMC_test_final_phase_data/<number>.bmp

The preliminary and the final set number their files alike (1.bmp ...): only the folder tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from cotray.config import DatasetConfig
from cotray.data.label_files import Read, no_contradiction, read_csv
from cotray.data.names import folders_inside_out, images_below, stem, with_suffix
from cotray.data.records import ImageRecord, Parsed
from cotray.errors import DataError, DuplicateIdError, LabelFileError, SubjectError

CELL = re.compile(r"^UID_(H?\d+)_(\d+)_(\d+)_(all|hem)$", re.IGNORECASE)
_FOLD = re.compile(r"^fold[ _-]?(\d+)$")
_PRELIMINARY = re.compile(r"prelim|^validation_data$")
_FINAL = re.compile(r"final[ _-]?phase|test[ _-]?final|^testing_data$")
COLUMNS = ("Patient_ID", "new_names", "labels")


def parse_cnmc(files: Sequence[str], read: Read, config: DatasetConfig) -> Parsed:
    """Records of all three phases; what contradicts itself is told as a fault. Raises EmptyDatasetError."""
    images = images_below(files, config.root)
    try:
        labels = _labels(files, read)
    except DataError as error:
        labels = _Labels(faults=[error])
    records, rejected = [], []
    for path in images:
        record = _record(path, _phase(path, config.root or ""), labels)
        if isinstance(record, str):
            rejected.append((path, record))
        else:
            records.append(record)
    faults = [*labels.faults, *_unnamed(labels, records), *duplicates(records), *_two_faced(records)]
    return Parsed(records, rejected, faults)


@dataclass
class _Labels:
    """What the preliminary set's CSV says, by lower-case stem of the image."""

    path: str | None = None
    subjects: dict[str, str] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    faults: list[DataError] = field(default_factory=list)


def _labels(files: Sequence[str], read: Read) -> _Labels:
    """The labels CSV: the one that its name (or its folder's) calls preliminary. Raises DataError."""
    tables = [f for f in with_suffix(files, ".csv").values() if _is_preliminary(f)]
    path = next((f for f in tables if "label" in stem(f)), next(iter(tables), None))
    if path is None:
        return _Labels()
    rows = read_csv(path, read, COLUMNS)
    subjects = no_contradiction(((stem(r["new_names"]), _subject(r["Patient_ID"])) for r in rows), path)
    classes = no_contradiction(((stem(r["new_names"]), r["labels"]) for r in rows), path)
    wrong = next((name for name, label in classes.items() if label not in ("0", "1")), None)
    if wrong is not None:
        raise LabelFileError(
            f"The label of {wrong} is '{classes[wrong]}'.", where=path, cure="Write 1 for all, 0 for hem."
        )
    return _Labels(path, subjects, classes)


def _is_preliminary(path: str) -> bool:
    return any(_PRELIMINARY.search(part.lower()) for part in path.split("/"))


def _subject(patient: str) -> str:
    """Patients are written UID_57_29_1_all.bmp; the subject is 57. Lower and upper case h are one."""
    match = CELL.match(stem(patient))
    return (match[1] if match else patient).upper()


def _phase(path: str, root: str) -> str | None:
    """`fold_K`, `preliminary` or `final` by the innermost folder that says so, two of the root included."""
    above = reversed(PurePosixPath(root).parts[-2:])
    for part in (*folders_inside_out(path), *above):
        fold = _FOLD.match(part.lower())
        if fold:
            return f"fold_{fold[1]}"
        for phase, pattern in (("preliminary", _PRELIMINARY), ("final", _FINAL)):
            if pattern.search(part.lower()):
                return phase
    return None


def _record(path: str, phase: str | None, labels: _Labels) -> ImageRecord | str:
    """The record, or why there is none."""
    match = CELL.match(stem(path))
    if match:
        return _named(path, match[1].upper(), match[4].lower(), phase)
    if not stem(path).isdigit():
        return "the name is not UID_<subject>_<image>_<cell>_{all,hem}"
    if phase == "final" or labels.path is None:
        return ImageRecord(path, None, None, None, official_split=phase)
    if stem(path) not in labels.classes:
        return f"{labels.path} does not name it"
    label = int(labels.classes[stem(path)])
    name = "all" if label else "hem"
    return ImageRecord(path, label, name, labels.subjects[stem(path)], official_split="preliminary")


def _named(path: str, subject: str, kind: str, phase: str | None) -> ImageRecord | str:
    folder = next((part.lower() for part in folders_inside_out(path)), "")
    if folder in {"all", "hem"} - {kind}:
        return f"the name says {kind}, the folder {folder}"
    return ImageRecord(path, int(kind == "all"), kind, subject, official_split=phase)


def _unnamed(labels: _Labels, records: Sequence[ImageRecord]) -> Iterator[DataError]:
    """Rows of the CSV whose image is not there."""
    here = {stem(r.path) for r in records if r.official_split == "preliminary"}
    missing = [name for name in labels.classes if name not in here]
    if missing:
        yield LabelFileError(
            f"{len(missing)} of the {len(labels.classes)} images named there do not exist, "
            f"the first: {missing[0]}.",
            where=labels.path,
            cure="Unpack the whole preliminary set beside it, or move this CSV out of the folder.",
        )


def duplicates(records: Sequence[ImageRecord]) -> Iterator[DataError]:
    """Two files of one name, where the names are the publisher's ids. Numbers count within their phase."""
    seen: dict[tuple[str | None, str], str] = {}
    twice = []
    for record in records:
        name = stem(record.path)
        first = seen.setdefault((record.official_split if name.isdigit() else None, name), record.path)
        if first != record.path:
            twice.append((first, record.path))
    if twice:
        yield DuplicateIdError(
            f"{len(twice)} images are there twice, the first as {twice[0][0]} and {twice[0][1]}.",
            where=twice[0][1],
            cure="Keep one copy: give --root the folder that you mean, or remove the other.",
        )


def _two_faced(records: Sequence[ImageRecord]) -> Iterator[DataError]:
    """A subject here has one class: a patient's cells are all malignant, a healthy person's all normal."""
    first: dict[str, ImageRecord] = {}
    both: dict[str, ImageRecord] = {}
    for record in records:
        if record.subject and first.setdefault(record.subject, record).label != record.label:
            both.setdefault(record.subject, record)
    for subject, record in list(both.items())[:1]:
        yield SubjectError(
            f"{len(both)} subjects are in two classes, the first: {subject} is {first[subject].class_name} "
            f"by {first[subject].path}, {record.class_name} by this file.",
            where=record.path,
            cure="In C-NMC 2019 a subject has one class: rename the file, or put it into its right place.",
        )
