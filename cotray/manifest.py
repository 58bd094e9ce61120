"""The one table that flows between stages: one row per image or per cell, Parquet on any filesystem.

Rows of images come from ingest; rows of cells from segment and synthesize. Bytes (the pixels) live in
part files beside the manifest, so that the manifest itself stays light; both follow this schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cotray.errors import ManifestError

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # image: relative path; cell: path#index
        pa.field("image_id", pa.string()),  # the image a cell was cut from
        pa.field("source", pa.string()),  # real | leugan
        pa.field("label", pa.int8()),  # 1 malignant, 0 normal, null unlabelled
        pa.field("class_name", pa.string()),  # the class as the dataset calls it
        pa.field("subject", pa.string()),  # never a model input: it can leak the label
        pa.field("group", pa.string()),  # never on two sides of the split
        pa.field("split", pa.string()),  # train | val | test | unlabelled
        pa.field("status", pa.string()),  # used | quarantined
        pa.field("reason", pa.string()),  # why quarantined; of a used image: why stain or mask were left
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("digest", pa.string()),  # sha256 of the decoded pixels
        pa.field("mask_digest", pa.string()),  # sha256 of the true cell mask, where there is one
        pa.field("phash", pa.uint64()),  # 64-bit perceptual hash
        pa.field("box", pa.list_(pa.int32())),  # x0, y0, x1, y1 in the image; x1, y1 exclusive
        pa.field("mask_rle", pa.list_(pa.int32())),  # see cotray.imaging.masks
        pa.field("score", pa.float32()),  # IoU that LeuSAM predicts for the mask
        pa.field("part", pa.int32()),  # number of the part file that holds the pixels
        pa.field("image", pa.binary()),  # bitmap or PNG; in part files only
        pa.field("mask", pa.binary()),  # PNG of the true cell mask; in part files only
    ]
)
PIXELS = ("image", "mask")


def table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """A table of the schema from row dicts; absent columns are null. Raises ManifestError."""
    listed = list(rows)
    unknown = sorted({key for row in listed for key in row} - set(SCHEMA.names))
    if unknown:
        raise ManifestError(f"Unknown manifest columns: {', '.join(unknown)}.")
    filled = [{name: row.get(name) for name in SCHEMA.names} for row in listed]
    try:
        return pa.Table.from_pylist(filled, schema=SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ManifestError(f"A row does not fit the manifest schema: {error}") from error


def light(rows: pa.Table) -> pa.Table:
    """The same rows without pixels."""
    for name in PIXELS:
        index = rows.schema.get_field_index(name)
        rows = rows.set_column(index, SCHEMA.field(name), pa.nulls(len(rows), pa.binary()))
    return rows


def check(rows: pa.Table) -> pa.Table:
    """``rows`` if it follows the schema and its ids are unique, else ManifestError."""
    if not rows.schema.equals(SCHEMA):
        missing = sorted(set(SCHEMA.names) - set(rows.schema.names))
        raise ManifestError(
            f"This table is no manifest; missing columns: {', '.join(missing) or 'none, but types differ'}.",
            cure="Redo the stage that wrote it: `cotray run ... --force STAGE`.",
        )
    if pc.count_distinct(rows["id"]).as_py() != len(rows):
        raise ManifestError("The manifest has duplicate ids.", cure="Remove duplicate files or rows.")
    return rows


def assign(rows: pa.Table, name: str, values: Sequence[Any]) -> pa.Table:
    """``rows`` with one column replaced."""
    index = rows.schema.get_field_index(name)
    return rows.set_column(index, SCHEMA.field(name), pa.array(values, SCHEMA.field(name).type))


def where(rows: pa.Table, **equal: Any) -> pa.Table:
    """The rows whose columns equal the given values."""
    for name, value in equal.items():
        rows = rows.filter(pc.equal(rows[name], value))
    return rows


def count(rows: pa.Table, name: str) -> dict[str, int]:
    """How many rows have each value of a column, by value."""
    pairs = rows[name].value_counts().to_pylist()
    return dict(sorted((str(p["values"]), int(p["counts"])) for p in pairs))
