"""Anyone's table: a Parquet or CSV file, or a folder of Parquet files, on disk or at any fsspec URI."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cotray.errors import CotrayError, DataError, DatasetNotFoundError, FeatureError, LabelFileError
from cotray.selection.check import listed
from cotray.storage import Folder, absolute

TEXT = re.compile(r"\.(csv|tsv|txt)(\.(gz|bz2|zst|lz4))?$", re.IGNORECASE)
INDEX = re.compile(r"__index_level_\d+__")
"""How pandas names the index that it writes into Parquet: a row's number is no feature."""


@dataclass(frozen=True)
class TableFile:
    """A table as it was read."""

    uri: str
    rows: pa.Table
    digest: str
    """sha256 of its files' bytes."""


@dataclass(frozen=True)
class Columns:
    """A table taken apart; rows without a target or a group are left out."""

    features: Any
    """Frame of N rows."""
    target: NDArray[Any]
    groups: NDArray[Any] | None
    dropped: int
    """Rows left out."""
    notes: list[str]


def read_table(uri: str) -> TableFile:
    """Read a table. Raises DatasetNotFoundError, DataError (not a table, or no rows)."""
    folder = Folder(absolute(uri))
    digest, parts = hashlib.sha256(), []
    for name, data in _files(folder, uri):
        digest.update(hashlib.sha256(data).digest())
        parts.append(parse(name, data))
    try:
        rows = pa.concat_tables(parts)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"The files of this folder are not one table: {_first(error)}",
            where=uri,
            cure="Name one file, or a folder whose files have the same columns.",
        ) from None
    if not len(rows):
        raise DataError("This table has no rows.", where=uri)
    return TableFile(folder.uri, rows, digest.hexdigest())


def _files(folder: Folder, uri: str) -> Iterator[tuple[str, bytes]]:
    try:
        if not folder.exists():
            raise DatasetNotFoundError("There is no such table.", where=uri, cure="Check --features.")
        if not folder.fs.isdir(folder.path):
            yield folder.path, bytes(folder.fs.cat_file(folder.path))
            return
        found = [name for name in folder.files() if name.endswith((".parquet", ".pq"))]
        yield from ((name, folder.read_bytes(name)) for name in found)
    except CotrayError:
        raise
    except Exception as error:  # a remote filesystem raises what it likes
        raise DataError(f"Cannot read: {_first(error)}", where=uri, cure="Check --features.") from error
    if not found:
        raise DataError("This folder holds no Parquet file.", where=uri, cure="Name a file or such a folder.")


def parse(name: str, data: bytes) -> pa.Table:
    """A Parquet file, or a CSV file by its ending. Raises DataError."""
    if data[:4] != b"PAR1" and not TEXT.search(name):
        raise DataError(
            "This is no table.", where=name, cure="Give a Parquet file, or a CSV file named .csv."
        )
    try:
        return pq.read_table(pa.BufferReader(data)) if data[:4] == b"PAR1" else _csv(name, data)
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"This is no table, or a damaged one: {_first(error)}",
            where=name,
            cure="Give a Parquet file, or a CSV file (UTF-8, with a line of column names).",
        ) from None


def _csv(name: str, data: bytes) -> pa.Table:
    packed = TEXT.search(name)
    if packed and packed[3]:
        stream = pa.CompressedInputStream(pa.BufferReader(data), {"gz": "gzip"}.get(packed[3], packed[3]))
        data = stream.read()
    header = data.partition(b"\n")[0]
    return pacsv.read_csv(
        pa.BufferReader(data),
        # One block: a column's type follows from all of its values, not from those of the first megabyte.
        read_options=pacsv.ReadOptions(block_size=min(len(data) + 1, 2**31 - 1)),
        parse_options=pacsv.ParseOptions(delimiter=max(",;\t", key=lambda mark: header.count(mark.encode()))),
        convert_options=pacsv.ConvertOptions(strings_can_be_null=True),
    )


def _first(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def take_apart(table: TableFile, target: str, groups: str | None, drop: Sequence[str]) -> Columns:
    """Features, target and groups. Raises LabelFileError (no such column), FeatureError, DataError."""
    known = table.rows.column_names
    _check_names(known, target, groups, drop, table.uri)
    index = [name for name in known if INDEX.fullmatch(name)]
    notes = [f"the index of a pandas frame is no feature: {listed(index)}"] if index else []
    keep = pc.is_valid(table.rows[target])
    if groups:
        keep = pc.and_(keep, pc.is_valid(table.rows[groups]))
    rows = table.rows.filter(keep)
    dropped = len(table.rows) - len(rows)
    if dropped:
        lacking = "a target or a group" if groups else "a target"
        notes.append(f"left out, for want of {lacking}: {dropped} rows")
    if not len(rows):
        raise DataError("No row has a target.", where=f"{table.uri}: {target}", cure="Check --target.")
    if groups is None:
        notes.append("no --groups: every row counts as a subject of its own")
    features = rows.drop_columns(list({target, *drop, *index} | ({groups} if groups else set())))
    if not features.num_columns:
        raise FeatureError("No column is left to be a feature.", where=table.uri, cure="Check --drop.")
    return Columns(
        features.to_pandas(),
        rows[target].to_pandas().to_numpy(),
        rows[groups].to_pandas().to_numpy() if groups else None,
        dropped,
        notes,
    )


def _check_names(
    known: Sequence[str], target: str, groups: str | None, drop: Sequence[str], uri: str
) -> None:
    if len(set(known)) < len(known):
        twice = sorted(name for name, count in Counter(known).items() if count > 1)
        raise FeatureError(f"Names that are there twice: {listed(twice)}.", where=uri, cure="Rename them.")
    roles = [("--target", target), ("--groups", groups), *(("--drop", name) for name in dict.fromkeys(drop))]
    seen: dict[str, str] = {}
    for option, name in roles:
        if name is None:
            continue
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"Did you mean '{close[0]}'? " if close else ""
            raise LabelFileError(
                f"There is no column '{name}'.", where=option, cure=f"{hint}There are {listed(known)}."
            )
        if name in seen:
            both = f"Column '{name}' is named by {seen[name]} and by {option}."
            raise LabelFileError(both, where=uri, cure="Name each column once.")
        seen[name] = option
