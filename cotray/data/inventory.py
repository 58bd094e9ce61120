"""What was found at a place, against what was published: counts by part and class, sizes, what is missing."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from cotray.config import DatasetConfig
from cotray.data.catalog import Layout
from cotray.data.label_files import Read
from cotray.data.names import archives, stem, with_suffix
from cotray.data.records import ImageRecord, Parsed, Published
from cotray.errors import DataError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
HEAD = 65536
"""Bytes of a file in which its size almost always stands."""
Heads = Callable[[Sequence[str]], Iterator[bytes]]
"""Paths -> the first bytes of each, in order; empty where they cannot be read."""
Open = Callable[[str], BinaryIO]
"""Path -> the file, seekable: for those whose size stands further behind."""


@dataclass(frozen=True)
class Line:
    """Images of one class in one part."""

    part: str
    class_name: str
    images: int
    subjects: int
    published: int | None = None
    published_subjects: int | None = None


@dataclass(frozen=True)
class Sizes:
    """Widths and heights, from the files' headers."""

    counts: tuple[tuple[int, int, int], ...] = ()
    """(width, height, images), the most frequent first."""
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inventory:
    """What a folder holds when it is read as one layout."""

    dataset: str
    lines: tuple[Line, ...]
    images: int
    """Image files, masks apart."""
    rejected: tuple[tuple[str, str], ...]
    """Image files that do not fit the layout, with the reason."""
    subjects: int
    masks: int
    """Images with a true mask."""
    centroid_files: int
    centroids: int
    missing: tuple[str, ...]
    """In words: what was published and is not here."""
    notes: tuple[str, ...]
    """In words: what is odd, but no reason to refuse these data."""
    faults: tuple[DataError, ...]
    """Why ingest refuses these data."""
    sizes: Sizes | None = None
    """None: not read."""


def take_inventory(layout: Layout, files: Sequence[str], read: Read, config: DatasetConfig) -> Inventory:
    """Count a listing. Opens tables and centroid files, no image. Raises EmptyDatasetError, LabelFileError.

    Raises DatasetNotFoundError where no image fits the layout.
    """
    parsed = layout.survey(files, read, config)
    if parsed.rejected and not parsed.records:
        raise layout.misfit(parsed.rejected, config.root)
    records = parsed.records
    lines = tuple(_lines(records, layout.published))
    pointed = [record.centroids for record in records if record.centroids is not None]
    return Inventory(
        dataset=layout.name,
        lines=lines,
        images=len(records) + len(parsed.rejected),
        rejected=tuple(parsed.rejected),
        subjects=len({record.subject for record in records if record.subject}),
        masks=sum(record.mask_path is not None for record in records),
        centroid_files=len(pointed),
        centroids=sum(map(len, pointed)),
        missing=tuple(_missing(lines, layout, len(pointed))),
        notes=tuple(_notes(layout, lines, files, parsed, config)),
        faults=tuple(parsed.faults),
    )


def _part(record: ImageRecord) -> str:
    return record.official_split or ""


def _lines(records: Sequence[ImageRecord], published: Sequence[Published]) -> Iterator[Line]:
    """The published lines that can be compared, and whatever else was found."""
    groups: dict[tuple[str, str], list[ImageRecord]] = {}
    for record in records:
        groups.setdefault((_part(record), record.class_name or "unlabelled"), []).append(record)
    folds = any(part.startswith("fold_") for part, _ in groups)
    told = [p for p in published if folds or not p.part.startswith("fold_")]
    counted: set[tuple[str, str]] = set()
    for p in told:
        keys = [key for key in groups if key[1] == p.class_name and _counts_for(key[0], p.part)]
        counted.update(keys)
        here = [record for key in keys for record in groups[key]]
        yield Line(p.part, p.class_name, len(here), _subjects(here), p.images, p.subjects)
    for part, name in sorted(set(groups) - counted):
        here = groups[part, name]
        yield Line(part, name, len(here), _subjects(here))


def _counts_for(part: str, line: str) -> bool:
    """Whether images of a part count in a line; `training` is every fold, and images in no fold."""
    if line == "training":
        return part not in {"preliminary", "final"}
    return part == line


def _subjects(records: Iterable[ImageRecord]) -> int:
    return len({record.subject for record in records if record.subject})


def _missing(lines: Sequence[Line], layout: Layout, centroid_files: int) -> Iterator[str]:
    folds = any(line.part.startswith("fold_") for line in lines)
    for line in lines:
        where = "/".join(filter(None, (line.part, line.class_name)))
        told = folds and line.part == "training"  # by its folds
        if not told and line.published is not None and line.images < line.published:
            gap = f"{line.published - line.images:,} missing"
            yield f"{where}: {line.images:,} found, published {line.published:,} ({gap})"
        if line.published_subjects is not None and line.subjects < line.published_subjects:
            yield f"{where}: {line.subjects} subjects found, published {line.published_subjects}"
    if centroid_files < layout.centroids:
        yield f"centroid files: {centroid_files} found, published {layout.centroids}"


def _notes(
    layout: Layout, lines: Sequence[Line], files: Sequence[str], parsed: Parsed, config: DatasetConfig
) -> Iterator[str]:
    records = parsed.records
    packed = archives(files)
    if packed:
        yield f"not unpacked: {', '.join(packed[:5])}{' ...' if len(packed) > 5 else ''}"
    for line in lines:
        if line.published is not None and line.images > line.published:
            more = f"{line.images - line.published:,} more than published"
            yield f"{'/'.join(filter(None, (line.part, line.class_name)))}: {more}"
    if layout.name == "folder":
        yield from _notes_of_folders(records, config)
    unlabelled = sum(_part(record) == "preliminary" and record.label is None for record in records)
    if unlabelled:
        yield f"{unlabelled:,} preliminary images have no label: their labels CSV is not there"
    orphans = set(with_suffix(files, ".xyc")) - {stem(record.path) for record in records}
    if layout.centroids and orphans:
        yield f"{len(orphans)} centroid files have no image, the first: {min(orphans)}.xyc"


def _notes_of_folders(records: Sequence[ImageRecord], config: DatasetConfig) -> Iterator[str]:
    both = _two_classes(records)
    if both:
        yield f"{both} subjects have images in both classes; the split keeps each on one side"
    nameless = sum(record.subject is None for record in records)
    if config.subjects_csv and nameless:
        yield f"{nameless:,} images have no subject in {config.subjects_csv}"
    empty = set(config.class_map) - {record.class_name for record in records}
    if empty:
        yield f"no image is in a folder named {', '.join(sorted(empty))}, which the class map names"


def _two_classes(records: Sequence[ImageRecord]) -> int:
    pairs = {(r.subject, r.label) for r in records if r.subject and r.label is not None}
    return sum(count > 1 for count in Counter(subject for subject, _ in pairs).values())


def read_sizes(
    paths: Sequence[str], heads: Heads, open_file: Open, progress: Callable[[int], None] | None = None
) -> Sizes:
    """Width and height of images by their headers; pixels are not decoded."""
    counts: Counter[tuple[int, int]] = Counter()
    unreadable = []
    for number, (path, head) in enumerate(zip(paths, heads(paths), strict=True), 1):
        size = size_of(io.BytesIO(head)) or _size_behind(path, head, open_file)
        if size is None:
            unreadable.append(path)
        else:
            counts[size] += 1
        if progress is not None:
            progress(number)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return Sizes(tuple((*size, count) for size, count in ordered), tuple(unreadable))


def _size_behind(path: str, head: bytes, open_file: Open) -> tuple[int, int] | None:
    """The size where the header lies behind the first bytes, as a TIFF's may."""
    if len(head) < HEAD:
        return None  # that was the whole file
    try:
        with open_file(path) as file:
            return size_of(file)
    except OSError:
        return None


def size_of(file: BinaryIO) -> tuple[int, int] | None:
    """(width, height) by the header of an image file; None where it has none that is read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images and odd metadata
            with Image.open(file, formats=FORMATS) as image:
                return image.size
    except Exception:  # a damaged header makes Pillow raise what it likes
        return None
