"""The tables that `cotray segment` writes, a row per cell and a row per image, out of part files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from cotray.imaging.masks import encode_rle
from cotray.stages.segment_inputs import Item
from cotray.stages.segment_model import Ask, Found
from cotray.storage import Folder

CELLS = pa.schema(
    [
        pa.field("image", pa.string()),
        pa.field("cell", pa.int32()),  # its number in the label image
        *(pa.field(name, pa.int32()) for name in ("x0", "y0", "x1", "y1")),  # box; x1, y1 exclusive
        pa.field("area", pa.int32()),  # pixels
        pa.field("predicted_iou", pa.float32()),  # how good LeuSAM thinks its mask is, 0 to 1
        pa.field("mask_rle", pa.list_(pa.int32())),  # see cotray.imaging.masks; in the CSV, spaces between
    ]
)
IMAGES = pa.schema(
    [
        pa.field("image", pa.string()),
        pa.field("status", pa.string()),  # segmented | quarantined
        pa.field("reason", pa.string()),  # why quarantined
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("cells", pa.int32()),
        pa.field("single", pa.bool_()),  # taken to show one cell
        pa.field("seconds", pa.float32()),  # reading, segmenting and writing
        pa.field("asked", pa.string()),  # options that were given: --fields, --box ...
        pa.field("mark", pa.string()),  # size and time of change of the file
    ]
)
PART = pa.schema([*IMAGES, pa.field("found", pa.list_(pa.struct(list(CELLS))))])
"""One row per image with its cells: what a part file holds."""


def segmented_row(item: Item, ask: Ask, found: Found, seconds: float) -> dict[str, Any]:
    """PART row of an image that was segmented."""
    height, width = found.labels.shape
    return {
        "image": item.path,
        "status": "segmented",
        "width": width,
        "height": height,
        "cells": len(found.masks),
        "single": found.single,
        "seconds": seconds,
        "asked": str(ask),
        "mark": item.mark,
        "found": [_cell(item, found, index) for index in range(len(found.masks))],
    }


def _cell(item: Item, found: Found, index: int) -> dict[str, Any]:
    return {
        "image": item.path,
        "cell": index + 1,
        **dict(zip(("x0", "y0", "x1", "y1"), found.boxes[index], strict=True)),
        "area": int(np.count_nonzero(found.masks[index])),
        "predicted_iou": found.scores[index],
        "mask_rle": encode_rle(found.masks[index]),
    }


def quarantined_row(item: Item, ask: Ask, reason: str) -> dict[str, Any]:
    """PART row of a file that cannot be used."""
    said = {"status": "quarantined", "reason": reason, "cells": 0, "asked": str(ask), "found": []}
    return {"image": item.path, "mark": item.mark, **said}


def read_tables(out: Folder) -> tuple[pa.Table, pa.Table]:
    """(IMAGES, CELLS) of all that was done in a folder; a part's word counts more than the tables'."""
    images, cells = IMAGES.empty_table(), CELLS.empty_table()
    if out.exists("images.parquet") and out.exists("cells.parquet"):
        images, cells = out.read_parquet("images.parquet"), out.read_parquet("cells.parquet")
    if not out.exists("parts"):
        return images, cells
    folder = out / "parts"
    for name in (name for name in folder.files() if name.endswith(".parquet")):
        part = folder.read_parquet(name)
        images = pa.concat_tables([_without(images, part["image"]), part.select(IMAGES.names)])
        found = pc.list_flatten(part["found"].combine_chunks())
        rows = pa.Table.from_arrays(found.flatten(), schema=CELLS)
        cells = pa.concat_tables([_without(cells, part["image"]), rows])
    return images.sort_by("image"), cells.sort_by([("image", "ascending"), ("cell", "ascending")])


def _without(rows: pa.Table, names: pa.ChunkedArray) -> pa.Table:
    return rows.filter(pc.invert(pc.is_in(rows["image"], value_set=names.combine_chunks())))


def is_done(images: pa.Table, ask: Ask) -> Callable[[Item], bool]:
    """Whether an image was done as it is now; who asks for nothing special takes what is there."""
    columns = (images[name].to_pylist() for name in ("image", "mark", "asked"))
    known = {name: (mark, asked) for name, mark, asked in zip(*columns, strict=True)}

    def done(item: Item) -> bool:
        mark, asked = known.get(item.path, (None, ""))
        return mark == item.mark and str(ask) in ("", asked)

    return done


def of_images(rows: pa.Table, names: list[str]) -> pa.Table:
    """The rows of the images with these names."""
    return rows.filter(pc.is_in(rows["image"], value_set=pa.array(names, pa.string())))


def write_tables(out: Folder, images: pa.Table, cells: pa.Table) -> None:
    """Both as Parquet and as CSV, then the parts may go."""
    out.write_parquet("cells.parquet", cells)
    out.write_bytes("cells.csv", _csv(_spelled(cells)))
    out.write_parquet("images.parquet", images)
    out.write_bytes("images.csv", _csv(images.drop_columns(["mark"])))
    out.remove("parts")


def _spelled(cells: pa.Table) -> pa.Table:
    """Run lengths as text: a CSV has no lists."""
    text = [" ".join(map(str, counts)) for counts in cells["mask_rle"].to_pylist()]
    return cells.set_column(len(CELLS) - 1, "mask_rle", pa.array(text, pa.string()))


def _csv(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    csv.write_csv(rows, sink)
    return bytes(sink.getvalue().to_pybytes())


def counts(images: pa.Table) -> Mapping[str, int]:
    """Images by what became of them, and their cells."""
    status = images["status"].to_pylist()
    cells = [n for n, s in zip(images["cells"].to_pylist(), status, strict=True) if s == "segmented"]
    return {
        "images": len(images),
        "segmented": len(cells),
        "quarantined": len(images) - len(cells),
        "cells": sum(cells),
        "images_without_cell": cells.count(0),
    }
