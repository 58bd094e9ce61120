"""Ingest: folder or dataset -> checked, enhanced images with labels, groups and a frozen split."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cotray import manifest
from cotray.config import Config
from cotray.data.catalog import ImageRecord, decode_cell_mask, find_dataset, limit_records
from cotray.data.decode import decode_mask_file, encode_png
from cotray.data.hashing import perceptual_hash, pixel_digest
from cotray.data.label_files import text_of
from cotray.data.phantom import PhantomSpec, draw_phantom, phantom_index
from cotray.data.splits import check_disjoint, group_records, make_split, split_digest
from cotray.errors import DatasetNotFoundError, DecodeError, EmptyDatasetError
from cotray.predictor import decode
from cotray.preparation import carry, digests, load_tools, prepare_noted
from cotray.runs import StageResult
from cotray.stages.base import Stage, StageRun
from cotray.stages.parts import Plan, chunk_size, chunks, read_parts, run_parts
from cotray.storage import Folder, absolute

Item = ImageRecord | PhantomSpec
READ_AGAIN = "read-again.json"
"""With ``ingest.store=reference``: the settings under which :mod:`cotray.stages.images` reads files again."""
MASK_FAULT = "its mask is not used"
"""Part of the reason of an image that is used without its mask."""


def run(config: Config, at: StageRun) -> StageResult:
    """Read every file; quarantine what cannot be used; group, split and freeze.

    Raises DatasetNotFoundError, EmptyDatasetError, ClassError, TooFewGroupsError.
    """
    config = carry(config, at.folder)  # workers elsewhere and later stages read the copies
    if config.ingest.store == "reference":
        at.folder.write_json(READ_AGAIN, config.model_dump(mode="json"))
    items, rejected = list_items(config)
    parts = chunks(items, chunk_size(len(items), config.ingest.blocks_per_cpu))
    work = functools.partial(_Reader, config)
    run_parts(Plan("images", work, parts, at.folder / "images"), config.compute, at)
    rows = read_parts(at.folder / "images", len(parts))
    rows = pa.concat_tables([rows, manifest.table(_quarantined(path, why) for path, why in rejected)])
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
    """Raise WeightsError or InvalidValueError where a file that `enhance` names cannot be used."""
    load_tools(config.enhance)


def single_cell(config: Config) -> bool:
    """Whether images hold one cell each: as configured, else as the layout says."""
    if config.dataset.multi_cell is not None:
        return not config.dataset.multi_cell
    return not find_dataset(config.dataset.name).multi_cell


class _Reader:
    """Reads the items of one part in a Ray worker."""

    def __init__(self, config: Config) -> None:
        self.config = config
        cv2.setNumThreads(1)  # there is a task for every core already

    def __call__(self, part: int, items: Sequence[Item]) -> pa.Table:
        return manifest.table(self._row(item) for item in items)

    def _row(self, item: Item) -> dict[str, Any]:
        try:
            return self._used(item)
        except DecodeError as error:
            return _quarantined(item.path, error.what)
        except OSError as error:
            return _quarantined(item.path, f"cannot be read: {error.strerror or error}")
        except cv2.error as error:
            return _quarantined(item.path, f"cannot be enhanced: {error.err}")

    def _used(self, item: Item) -> dict[str, Any]:
        rgb, mask = read_pixels(item, self.config)
        height, width = rgb.shape[:2]
        prepared = prepare_noted(rgb, self.config)
        notes = [prepared.stain_left] if prepared.stain_left else []
        if mask is None and getattr(item, "mask_path", None):
            notes.append(f"{MASK_FAULT}: it cannot be read, or is of another size")
        return {
            "id": item.path,
            "image_id": item.path,
            "source": "real",
            "label": item.label,
            "class_name": item.class_name,
            "subject": item.subject,
            "status": "used",
            "width": width,
            "height": height,
            "digest": pixel_digest(rgb),
            "phash": perceptual_hash(rgb),
            "mask_digest": None if mask is None else pixel_digest(mask),
            "reason": "; ".join(notes) or None,
            **(self._pixels(prepared.rgb, mask) if self.config.ingest.store == "bytes" else {}),
        }

    def _pixels(self, rgb: NDArray[np.uint8], mask: NDArray[np.bool_] | None) -> dict[str, bytes | None]:
        return {
            "image": encode_png(rgb),
            "mask": None if mask is None else encode_png(mask.astype(np.uint8) * 255),
        }


@functools.lru_cache(maxsize=1)
def _root(uri: str) -> Folder:
    """The dataset's folder, opened once in each process."""
    return Folder(absolute(uri))


def read_pixels(item: Item, config: Config) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """(raw RGB, true cell mask or None) of an item; None, too, for a mask that is damaged or of another size.

    Raises DecodeError, OSError where the image cannot be read.
    """
    if isinstance(item, PhantomSpec):
        drawn = draw_phantom(item)
        return drawn.rgb, drawn.instances > 0
    folder = _root(str(config.dataset.root))
    rgb = decode(folder.read_bytes(item.path), config)
    if item.mask_path is None:
        return rgb, None
    try:
        raw = decode_mask_file(folder.read_bytes(item.mask_path))
    except (DecodeError, OSError):
        return rgb, None  # the image is none the worse for it
    mask = decode_cell_mask(config.dataset.name, raw, item.mask_path)
    return rgb, mask if mask.shape == rgb.shape[:2] else None


def _quarantined(path: str, reason: str) -> dict[str, Any]:
    return {"id": path, "image_id": path, "source": "real", "status": "quarantined", "reason": reason}


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
    extra=listing,
    check=check_tools,
)
