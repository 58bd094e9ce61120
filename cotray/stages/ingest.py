"""Ingest: folder or dataset -> checked, enhanced images with labels, groups and a frozen split."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from cotray import manifest
from cotray.config import Config
from cotray.data.catalog import find_dataset, limit_records
from cotray.data.label_files import text_of
from cotray.data.phantom import phantom_index
from cotray.data.splits import check_disjoint, group_records, make_split, split_digest
from cotray.errors import DatasetNotFoundError, EmptyDatasetError
from cotray.preparation import carry, digests, prepare
from cotray.runs import StageResult
from cotray.stages.base import Stage, StageRun
from cotray.stages.parts import Plan, chunk_size, chunks, read_parts, run_parts
from cotray.stages.reading import MASK_FAULT, Reader, quarantined
from cotray.stages.reading import Item as Item  # stages take these from here
from cotray.stages.reading import read_pixels as read_pixels
from cotray.storage import Folder, absolute

READ_AGAIN = "read-again.json"
"""With ``ingest.store=reference``: the settings under which :mod:`cotray.stages.images` reads files again."""


def run(config: Config, at: StageRun) -> StageResult:
    """Read every file; quarantine what cannot be used; group, split and freeze.

    Raises DatasetNotFoundError, EmptyDatasetError, ClassError, TooFewGroupsError.
    """
    config = carry(config, at.folder)  # workers elsewhere and later stages read the copies
    if config.ingest.store == "reference":
        at.folder.write_json(READ_AGAIN, config.model_dump(mode="json"))
    items, rejected = list_items(config)
    parts = chunks(items, chunk_size(len(items), config.ingest.blocks_per_cpu))
    work = functools.partial(Reader, config)
    run_parts(Plan("images", work, parts, at.folder / "images"), config.compute, at)
    rows = read_parts(at.folder / "images", len(parts))
    rows = pa.concat_tables([rows, manifest.table(quarantined(path, why) for path, why in rejected)])
    used = manifest.where(rows, status="used")
    if not len(used):
        raise EmptyDatasetError(
            f"None of the {len(rows)} files could be used; the first: {rows['reason'][0].as_py()}.",
            where=config.dataset.root,
            cure="See quarantine.parquet in the run's ingest folder for every reason.",
        )
    used, digest = split_rows(used, config, at)
    at.folder.write_parquet("manifest.parquet", manifest.check(used))
    at.folder.write_parquet("quarantine.parquet", manifest.where(rows, status="quarantined"))
    result = _result(rows, used, digest, len(parts))
    at.tracker.dataset(config.dataset.name, digest, config.dataset.root or "drawn on the spot", result.counts)
    return result


def list_items(config: Config) -> tuple[list[Item], list[tuple[str, str]]]:
    """What to read, and (path, reason) of image files whose names do not fit the layout."""
    dataset = config.dataset
    layout = find_dataset(dataset.name)
    if dataset.name == "phantom":
        specs = phantom_index("all-idb2", dataset.phantom_subjects, dataset.phantom_cells, config.seed)
        return list(limit_records(specs, dataset.limit) if dataset.limit else specs), []
    folder = dataset_folder(config)
    parsed = layout.parse(folder.files(), folder.read_text, dataset)
    records = limit_records(parsed.records, dataset.limit) if dataset.limit else parsed.records
    return list(records), list(parsed.rejected)


def dataset_folder(config: Config) -> Folder:
    """The dataset's root. Raises UnknownNameError, DatasetNotFoundError (not given, or not there)."""
    find_dataset(config.dataset.name)
    if not config.dataset.root:
        raise DatasetNotFoundError(
            f"The dataset '{config.dataset.name}' needs a folder.", cure="Give it with --root DIR."
        )
    folder = Folder(absolute(config.dataset.root))
    if not folder.exists():
        raise DatasetNotFoundError(
            "There is no such folder.", where=config.dataset.root, cure="Check --root."
        )
    return folder


def listing(config: Config) -> Mapping[str, Any]:
    """Marks of content for the fingerprint: of the images names, sizes and modification; of other files
    sha256."""
    used = digests(config)
    if config.dataset.name == "phantom":
        return {"files": used} if used else {}
    folder, subjects = dataset_folder(config), config.dataset.subjects_csv
    if subjects:  # it may lie outside of the root
        text = text_of(subjects, folder.read_text)
        used["dataset.subjects_csv"] = hashlib.sha256(text.encode()).hexdigest()
    files = {"files": used} if used else {}
    sizes = folder.sizes().items()
    marks = "\n".join(f"{path}\t{size}\t{mark}" for path, (size, mark) in sizes)
    return {"listing": hashlib.sha256(marks.encode()).hexdigest(), **files}


def check_tools(config: Config) -> None:
    """Raise WeightsError or InvalidValueError where `enhance` or `mask_regions` cannot work on any image."""
    prepare(np.full((64, 64, 3), 200, np.uint8), config)


def single_cell(config: Config) -> bool:
    """Whether images hold one cell each: as configured, else as the layout says."""
    if config.dataset.multi_cell is not None:
        return not config.dataset.multi_cell
    return not find_dataset(config.dataset.name).multi_cell


def split_rows(used: pa.Table, config: Config, at: StageRun) -> tuple[pa.Table, str]:
    """Group near-duplicates and subjects, split, freeze in ``split.json``; returns rows and digest."""
    labels, subjects = used["label"].to_pylist(), used["subject"].to_pylist()
    ids = used["id"].to_pylist()
    hashes = np.asarray(used["phash"].to_pylist(), np.uint64)
    groups = group_records(ids, labels, subjects, hashes, config.split)
    splits = make_split(groups, labels, config.split, config.seed)
    if config.split.mode == "disjoint":
        check_disjoint(groups, splits)
    digest = split_digest(ids, splits, groups)
    frozen = {i: [s, g] for i, s, g in zip(ids, splits, groups, strict=True)}
    at.folder.write_json("split.json", {"sha256": digest, "mode": config.split.mode, "rows": frozen})
    return manifest.assign(manifest.assign(used, "group", groups), "split", splits), digest


def _result(rows: pa.Table, used: pa.Table, digest: str, parts: int) -> StageResult:
    quarantined = len(rows) - len(used)
    counts = {"in": len(rows), "used": len(used), "quarantined": quarantined, "parts": parts}
    counts |= {f"split_{k}": v for k, v in manifest.count(used, "split").items()}
    counts |= {f"label_{k}": v for k, v in manifest.count(used, "label").items()}
    counts["groups"] = len(set(used["group"].to_pylist()))
    notes = [f"split {digest[:12]}", f"{len(rows)} files in = {len(used)} used + {quarantined} quarantined"]
    reasons = [reason for reason in used["reason"].to_pylist() if reason]
    if without := sum(MASK_FAULT in reason for reason in reasons):
        counts["masks_not_used"] = without
        notes.append(f"{without} images are used without their mask: see `reason` in manifest.parquet")
    if left := sum(not reason.startswith(MASK_FAULT) for reason in reasons):
        counts["stain_left"] = left
        notes.append(f"{left} images kept their stain: see `reason` in manifest.parquet")
    return StageResult(counts, {}, {"manifest": "manifest.parquet", "split": "split.json"}, notes)


STAGE = Stage(
    name="ingest",
    summary="read, check, enhance and split the images",
    version=2,
    sections=("dataset", "ingest", "enhance", "split"),
    needs=(),
    run=run,
    listing=listing,
    check=check_tools,
)
