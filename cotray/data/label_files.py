"""The text files beside images: CSVs of labels or subjects, and ALL-IDB's files of blast centroids."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence

from cotray.errors import DuplicateIdError, LabelFileError

Read = Callable[[str], str]
"""Path below the root (or a URI) -> the file's text."""


def read_csv(path: str, read: Read, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV, only the columns asked for, in their spelling; the header may differ in case.

    Commas or semicolons part the fields. Raises LabelFileError (unreadable, a column or a value lacks).
    """
    text = text_of(path, read)
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=";" if ";" in header else ",")
    named = {name.strip().casefold(): name for name in reader.fieldnames or () if name}
    lacking = [column for column in columns if column.casefold() not in named]
    if lacking:
        raise LabelFileError(
            f"The CSV lacks the columns: {', '.join(lacking)}; it has {', '.join(named.values()) or 'none'}.",
            where=path,
            cure=f"Its first line must name {', '.join(columns)}.",
        )
    rows = []
    for row in reader:
        values = {column: (row[named[column.casefold()]] or "").strip() for column in columns}
        if any(values.values()):
            rows.append(_whole(values, f"{path}:{reader.line_num}"))
    return rows


def _whole(row: dict[str, str], where: str) -> dict[str, str]:
    empty = [column for column, value in row.items() if not value]
    if empty:
        raise LabelFileError(
            f"A row has no {' and no '.join(empty)}.", where=where, cure="Fill it in, or remove the row."
        )
    return row


def text_of(path: str, read: Read) -> str:
    """The text of a table. Raises LabelFileError where it is not there, may not be read or is no text."""
    try:
        return read(path)
    except UnicodeDecodeError:
        raise LabelFileError(
            "This file is not text in UTF-8.", where=path, cure="Save it as UTF-8."
        ) from None
    except OSError as error:
        what = error.strerror or str(error) or type(error).__name__
        raise LabelFileError(f"Cannot read this file: {what}.", where=path, cure="Check its path.") from None


def no_contradiction(pairs: Iterable[tuple[str, str]], path: str) -> dict[str, str]:
    """File -> value from a table's rows. Raises DuplicateIdError where one file has two different values."""
    found: dict[str, str] = {}
    for key, value in pairs:
        if found.setdefault(key, value) != value:
            raise DuplicateIdError(
                f"'{key}' has two rows that differ: '{found[key]}' and '{value}'.",
                where=path,
                cure="Keep the row that is right.",
            )
    return found


def read_centroids(path: str, read: Read) -> tuple[tuple[float, float], ...]:
    """(x, y) in pixels from an `.xyc` file: one pair a line, parted by white space; empty: no blast.

    Raises LabelFileError naming the line.
    """
    points = []
    for number, line in enumerate(text_of(path, read).splitlines(), 1):
        words = line.split()
        if words:
            points.append(_point(words, f"{path}:{number}"))
    return tuple(points)


def _point(words: Sequence[str], where: str) -> tuple[float, float]:
    try:
        x, y = (float(word) for word in words)
    except ValueError:
        x = y = math.nan
    if not (0 <= x < math.inf and 0 <= y < math.inf):
        raise LabelFileError(
            f"'{' '.join(words)[:60]}' is no centroid.",
            where=where,
            cure="Each line of an .xyc file holds x and y in pixels, parted by white space.",
        )
    return x, y
