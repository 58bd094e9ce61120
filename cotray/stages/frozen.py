"""The frozen split, verified: whatever a stage reads must lie where ``split.json`` put it.

Ingest divides the images once and writes who is where, under one digest, into ``split.json``. Every later
stage takes the sides from the manifests of the stages before it; if one of those were edited, an image
could be trained on and tested. So before a stage works, all of them are held against the file, the file
against its digest, and the digest against what ingest reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cotray.data.splits import check_disjoint, split_digest
from cotray.errors import DataError, SplitChangedError
from cotray.runs import Run
from cotray.storage import Folder

FILE, MANIFEST = "split.json", "manifest.parquet"
CELLS = ("segment", "synthesize", "extract")
"""Stages whose manifests carry the split on to cells."""
Sides = dict[str, tuple[str, str]]
"""Image id -> (side, group)."""


def verify_split(run: Run, earlier: Sequence[str]) -> None:
    """Raise SplitChangedError where ``split.json``, or a manifest of an ``earlier`` stage, was changed.

    MissingStageError, RunError where ingest is not complete or a file of it is damaged.
    """
    ingest, notes = run.stage("ingest"), run.need("ingest").result.notes
    frozen = _read(ingest)
    sides: Sides = {name: (place[0], place[1]) for name, place in frozen["rows"].items()}
    _check_file(frozen, sides, notes, ingest.at(FILE))
    images = _manifest(ingest, "id")
    if images != {name: {place} for name, place in sides.items()}:
        raise _changed("The images' manifest does not agree with the frozen split.", ingest.at(MANIFEST))
    for name in CELLS:
        if name in earlier and run.record(name):
            _check_cells(sides, run.stage(name), name)


def _read(ingest: Folder) -> dict[str, Any]:
    frozen = ingest.read_json(FILE)
    try:
        return {"sha256": str(frozen["sha256"]), "mode": frozen.get("mode"), "rows": dict(frozen["rows"])}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _changed("This is no frozen split: rows or digest are missing.", ingest.at(FILE)) from None


def _check_file(frozen: dict[str, Any], sides: Sides, notes: list[str], where: str) -> None:
    split, group = ([place[i] for place in sides.values()] for i in (0, 1))
    digest = split_digest(list(sides), split, group)
    # Ingest's record holds the digest's beginning: a split that was changed with its digest is found too.
    told = [note.removeprefix("split ") for note in notes if note.startswith("split ")]
    if digest != frozen["sha256"] or any(not digest.startswith(begin) for begin in told):
        raise _changed("The frozen split was changed after it was made: its digest does not fit.", where)
    if frozen.get("mode") == "disjoint":
        try:
            check_disjoint(group, split)
        except DataError as error:
            raise _changed(error.what, where) from None


def _manifest(folder: Folder, name: str) -> dict[str, set[tuple[str, str]]]:
    """Image id -> where the rows of a manifest say that it is; LeuGAN's cells are no images."""
    rows = folder.read_parquet(MANIFEST, [name, "split", "group", "source"]).to_pylist()
    places: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        key = str(row[name]) if row["source"] == "real" else ""
        places.setdefault(key, set()).add((str(row["split"]), str(row["group"])))
    return places


def _check_cells(sides: Sides, folder: Folder, stage: str) -> None:
    places = _manifest(folder, "image_id")
    synthetic = places.pop("", set())
    if any(split != "train" for split, _ in synthetic):
        raise _changed("A synthetic cell is outside the training split.", folder.at(MANIFEST), stage)
    for name, found in places.items():
        if found != {sides.get(name)}:
            what = f"The cells of {name} are not where the frozen split put their image."
            raise _changed(what, folder.at(MANIFEST), stage)


def _changed(what: str, where: str, stage: str = "ingest") -> SplitChangedError:
    return SplitChangedError(
        what,
        where=where,
        cure=f"Restore the file, or do the work again: `cotray run ... --force {stage}`.",
    )
