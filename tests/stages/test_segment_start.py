"""`segment.start`: the shipped weights as they are, or as where training begins. Real Ray."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from discs import discs
from safetensors.torch import load_file

from cotray.config import Config, load_config
from cotray.data.phantom import draw_phantom, phantom_files, phantom_index
from cotray.errors import InvalidValueError
from cotray.imaging.masks import decode_rle, iou
from cotray.runs import Run, StageRecord
from cotray.segmentation.shipped import load_shipped
from cotray.stages.base import StageRun
from cotray.stages.pictures import history_figures
from cotray.stages.pipeline import Request, fingerprints, run_pipeline
from cotray.stages.segment_start import require_start, start_mark
from cotray.stages.segment_training import segmenter_job
from cotray.stages.training import fit

SHIPPED = "segment.start=shipped"


def settings(*sets: str) -> Config:
    return load_config("tiny", overrides=("tracking.enabled=false", "compute.cpus_per_worker=1", *sets))


# ---- what fits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (("segment.embed_dim=48",), "segment.embed_dim=48 (shipped: 96)."),
        (("segment.model=unet",), "segment.model=unet (shipped: leusam)."),
        (("segment.variant=vit_b",), "segment.variant=vit_b (shipped: tiny)."),
        (
            ("segment.image_size=128", "segment.context=2"),
            "segment.image_size=128 (shipped: 256), segment.context=2.0 (shipped: 1.6).",
        ),
    ],
)
def test_another_network_cannot_start_from_them_and_is_told_why(
    other: tuple[str, ...], named: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        run_pipeline(Request(str(tmp_path / "run"), settings(SHIPPED, *other), until="segment"))
    assert caught.value.what.endswith(named)
    assert "scratch" in (caught.value.cure or "")
    assert not (tmp_path / "run" / "ingest").exists(), "said before any stage begins"


def test_settings_that_do_not_make_the_network_may_differ() -> None:
    require_start(settings(SHIPPED, "segment.train.epochs=1", "segment.cell_size=64", "segment.jitter=0.3"))


def test_the_stage_is_done_anew_where_the_shipped_file_is_another() -> None:
    assert start_mark(settings(SHIPPED)) == {"shipped_weights": load_shipped().digest}
    assert start_mark(settings("segment.start=scratch")) == {}
    a, b = (fingerprints(settings(s)) for s in (SHIPPED, "segment.start=scratch"))
    assert a["ingest"] == b["ingest"] and a["segment"] != b["segment"]


# ---- as they are ---------------------------------------------------------------------------------------


def write(files: Iterable[tuple[str, bytes]], root: Path) -> None:
    for name, data in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


@pytest.fixture(scope="module")
def untrained(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StageRecord]:
    """A run up to segment on a folder of drawn cells without masks, and segment's record."""
    home = tmp_path_factory.mktemp("untrained")
    write(phantom_files(phantom_index("all-idb2", 30, 1, seed=9)), home / "data")
    sets = ("dataset.name=all-idb2", f"dataset.root={home / 'data'}", "split.block=1")
    config = settings(SHIPPED, *sets)
    return home / "run", run_pipeline(Request(str(home / "run"), config, until="segment"))["segment"]


def test_without_masks_the_shipped_weights_are_used_as_they_are(untrained: tuple[Path, StageRecord]) -> None:
    run, record = untrained
    kept = load_file(run / "segment" / record.result.artifacts["weights"])
    shipped = load_shipped().weights
    assert {f"leusam/{name}" for name in shipped} == set(kept)
    assert all(torch.equal(kept[f"leusam/{name}"], value) for name, value in shipped.items())
    assert record.result.notes[0] == "LeuSAM as it comes with cotray, untrained here: too few masks"
    assert record.result.counts["cells"] == record.result.counts["images"] == 30


def test_its_masks_are_those_of_the_cells(untrained: tuple[Path, StageRecord]) -> None:
    rows = pq.read_table(untrained[0] / "segment" / "manifest.parquet").to_pylist()
    drawn = {spec.path: draw_phantom(spec) for spec in phantom_index("all-idb2", 30, 1, seed=9)}
    found = [
        iou(
            decode_rle(row["mask_rle"], row["height"], row["width"]),
            drawn[row["image_id"]].instances > 0,
        )
        for row in rows
    ]
    assert len(found) == 30 and np.mean(found) > 0.93


def test_a_report_has_no_curve_of_what_was_not_trained(untrained: tuple[Path, StageRecord]) -> None:
    assert json.loads((untrained[0] / "segment" / "leusam.history.json").read_text()) == []
    assert history_figures(StageRun("evaluate", Run(str(untrained[0])), "print")) == {}


# ---- as a start ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ray_local")
def test_training_begins_from_them_and_changes_them(tmp_path: Path) -> None:
    """One step at a rate that hardly moves them leaves weights that are near to them."""
    config = settings(SHIPPED, "segment.train.epochs=1", "segment.train.lr=1e-6")
    windows = discs(8, 0, config.segment)
    at = StageRun("segment", Run(str(tmp_path)), "print")
    trained = fit(segmenter_job(config, windows, windows, at), config.compute, at).weights["leusam"]
    begun = load_shipped().weights
    away = max(float((trained[name] - value).abs().max()) for name, value in begun.items())
    assert 0 < away < 1e-4
