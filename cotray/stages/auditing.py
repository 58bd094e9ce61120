"""Audit: duplicates, and what gives the class away, in the images as they were given; nothing is trained
but small forests. Part of every evaluation's report, and of `cotray datasets audit`.

N images.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cotray.config import Config
from cotray.data.decode import encode_png
from cotray.errors import ClassError, CotrayError
from cotray.evaluation.audit_report import SHOWN, Audit, as_json
from cotray.evaluation.leaks import AuditImage, Cluster, audit_leaks
from cotray.evaluation.probes import file_probes, pixel_probes
from cotray.evaluation.shortcuts import ShortcutAudit, audit_shortcuts
from cotray.imaging.regions import blank_regions
from cotray.imaging.roi import find_cells
from cotray.learning import derive_seed
from cotray.stages.base import StageRun
from cotray.stages.cells import column, labels
from cotray.stages.ingest import Item, dataset_folder, list_items, read_pixels, single_cell
from cotray.stages.parts import Plan, chunk_size, chunks, part_name, run_parts

MOST = 2000
"""Images that shortcuts are looked for in at most: enough to tell, and a bounded cost on any dataset."""
STRIP, STRIP_SIDE = 4, 160
"""Images of a cluster that are shown, and their height in pixels."""
Rgb = NDArray[np.uint8]


def audit_images(config: Config, at: StageRun) -> Audit:
    """Audit the images of a run's ingest; ``audit.json`` goes into the stage's folder."""
    images = at.input("ingest").read_parquet("manifest.parquet")
    items = {item.path: item for item in list_items(config)[0]}
    at.say("looking for copies, and for what gives the class away")
    leaks = audit_leaks(_known(images, items), config.split.near_duplicate_bits)
    shortcuts = _shortcuts(config, at, images, items)
    labelled = int((labels(images) >= 0).sum())
    strips = [_strip(config, cluster, items) for cluster in leaks.clusters[:SHOWN]]
    masked = config.ingest.mask_regions
    audit = Audit(leaks, shortcuts, labelled, config.split.mode, masked, strips, config.evaluate.confidence)
    at.folder.write_json("audit.json", as_json(audit))
    return audit


def metrics_of(audit: Audit) -> dict[str, float]:
    """AUROC of each probe, by ``shortcut_<probe>``, and how many clusters of copies there are."""
    probes = audit.shortcuts.probes if audit.shortcuts else ()
    told = {f"shortcut_{probe.name}": probe.auroc for probe in probes}
    return {**told, "duplicate_clusters": float(len(audit.leaks.clusters))}


# ---- copies ----------------------------------------------------------------------------------------


def _known(images: pa.Table, items: dict[str, Item]) -> list[AuditImage]:
    columns = ("id", "digest", "phash", "class_name", "label", "subject", "split")
    return [
        AuditImage(
            row["id"],
            row["digest"],
            row["phash"],
            row["class_name"] or "",
            row["label"],
            row["subject"],
            getattr(items.get(row["id"]), "official_split", None),
            row["split"],
        )
        for row in images.select(columns).to_pylist()
    ]


def _strip(config: Config, cluster: Cluster, items: dict[str, Item]) -> bytes:
    """The first images of a cluster side by side, different pictures first; one that is gone is left out."""
    first = {image.digest: image for image in reversed(cluster.images)}
    different = [image for image in cluster.images if first[image.digest] is image]
    order = different + [image for image in cluster.images if first[image.digest] is not image]
    shots = [_shot(config, items[image.id]) for image in order[:STRIP] if image.id in items]
    return encode_png(np.concatenate(shots, axis=1)) if shots else b""


def _shot(config: Config, item: Item) -> Rgb:
    try:
        rgb = read_pixels(item, config)[0]
    except (CotrayError, OSError):
        return np.zeros((STRIP_SIDE, STRIP_SIDE, 3), np.uint8)
    width = min(2 * STRIP_SIDE, max(1, round(rgb.shape[1] * STRIP_SIDE / rgb.shape[0])))
    small = np.asarray(cv2.resize(rgb, (width, STRIP_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    return np.pad(small, ((0, 0), (0, 4), (0, 0)), constant_values=255)


# ---- shortcuts -------------------------------------------------------------------------------------


def _shortcuts(
    config: Config, at: StageRun, images: pa.Table, items: dict[str, Item]
) -> ShortcutAudit | None:
    """None where a side of the split lacks a class."""
    rows = some_of(images, MOST)
    names, test = rows["id"].to_pylist(), column(rows, "split") == "test"
    probes = _probes(config, at, [items[name] for name in names])
    try:
        return audit_shortcuts(
            {name: _stack(probes[name]) for name in probes},
            labels(rows),
            column(rows, "group"),
            test,
            bootstrap=config.evaluate.bootstrap,
            confidence=config.evaluate.confidence,
            seed=derive_seed(config.seed, 42),
        )
    except ClassError:
        return None


def some_of(images: pa.Table, most: int) -> pa.Table:
    """At most so many labelled images, of each side and class its share, spread evenly over the listing."""
    rows = images.filter(pa.array(labels(images) >= 0))
    order = np.lexsort((labels(rows), column(rows, "split") == "test"))
    picks = np.linspace(0, len(order) - 1, min(most, len(order))).round().astype(np.int64)
    return rows.take(pa.array(np.sort(order[picks])))


def _probes(config: Config, at: StageRun, items: Sequence[Item]) -> dict[str, list[Any]]:
    """(N, D) numbers by probe, in the order of the items."""
    parts = chunks(items, chunk_size(len(items), config.ingest.blocks_per_cpu))
    plan = Plan("probes", functools.partial(_Prober, config), parts, at.folder / "probes")
    run_parts(plan, config.compute, at)
    tables = [(at.folder / "probes").read_parquet(part_name(part)) for part in range(len(parts))]
    table = pa.concat_tables(tables)
    return {name: table[name] for name in table.schema.names if name != "id"}


def _stack(values: Any) -> NDArray[np.float32]:
    flat = values.combine_chunks()
    return np.asarray(flat.flatten(), np.float32).reshape(len(flat), -1)


class _Prober:
    """Numbers of raw images (known shortcuts blanked, nothing enhanced) that should not tell their class."""

    def __init__(self, config: Config) -> None:
        self.config, self.single = config, single_cell(config)
        cv2.setNumThreads(1)  # there is a task for every core already

    def __call__(self, part: int, items: Sequence[Item]) -> pa.Table:
        return pa.Table.from_pylist([{"id": item.path, **self._one(item)} for item in items])

    def _one(self, item: Item) -> dict[str, list[float]]:
        rgb, mask = read_pixels(item, self.config)
        rgb = blank_regions(rgb, self.config.ingest.mask_regions)
        values = pixel_probes(rgb, self._boxes(rgb) if mask is None else mask)
        if self.config.dataset.name != "phantom":  # which is drawn: there is no file
            values |= file_probes(dataset_folder(self.config).read_bytes(item.path))
        return {name: value.tolist() for name, value in values.items()}

    def _boxes(self, rgb: Rgb) -> NDArray[np.bool_]:
        """Where cells are found, as a mask of their boxes."""
        cell = np.zeros(rgb.shape[:2], bool)
        for region in find_cells(rgb, self.config.roi, single=self.single):
            x0, y0, x1, y1 = region.box
            cell[y0:y1, x0:x1] = True
        return cell
