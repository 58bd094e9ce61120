"""The stage that draws synthetic cells, on a run whose segment stage is made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blobs import Cells, blobs

from cotray import manifest
from cotray.config import Config, load_config
from cotray.data.decode import decode_stored, encode_png
from cotray.runs import Run, StageRecord, StageResult
from cotray.stages import synthesize
from cotray.stages.base import StageRun
from cotray.stages.cells import synthetic_cells
from cotray.stages.synthetic import Judgement, judge_features, judge_pixels, keep_pictures
from cotray.synthesis.alarms import Alarms

QUICK = (
    *("gan.image_size=32", "gan.channels=16", "gan.latent=16", "gan.use=always", "gan.grid_every=2"),
    *("gan.train.epochs=5", "gan.train.batch_size=32", "segment.cell_size=32", "compute.cpus_per_worker=1"),
)


def settings(*more: str) -> Config:
    return load_config("tiny", overrides=[*QUICK, *more])


def row(number: int, split: str, label: int, image: Any) -> dict[str, Any]:
    name = f"{split}-{label}-{number:03d}"
    return {
        "id": name, "image_id": name, "source": "real", "label": label, "class_name": "ab"[label],
        "group": name, "split": split, "status": "used", "width": 32, "height": 32, "part": 0,
        "image": encode_png(image),
    }  # fmt: skip


def begun(home: Path, normal: int, malignant: int, seed: int = 7) -> StageRun:
    """A run with so many training cells, and ten of each class beside them that differ by ``seed``."""
    run = Run(str(home))
    own = blobs(malignant, 1)
    rows = [row(n, "train", 1, cell) for n, cell in enumerate(own)]
    rows += [row(n, "train", 0, cell) for n, cell in enumerate(blobs(normal, seed, (40, 200, 40)))]
    rows += [
        row(n, split, label, cell)
        for split in ("val", "test")
        for label in (0, 1)
        for n, cell in enumerate(blobs(10, seed + label, (200, 40, 40)))
    ]
    table = manifest.table(rows)
    folder = run.stage("segment")
    (folder / "cells").write_parquet("part-00000.parquet", table)
    folder.write_parquet("manifest.parquet", manifest.light(table))
    run.complete(StageRecord("segment", "print", 1.0, "now", StageResult()))
    return StageRun("synthesize", run, "print")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_it_learns_from_the_training_splits_smaller_class_alone(tmp_path: Path) -> None:
    """Other cells may be whatever they like: what is drawn is the same. And fewer cells than a batch do."""
    drawn = []
    for seed in (7, 8):
        at = begun(tmp_path / str(seed), normal=30, malignant=20, seed=seed)
        result = synthesize.run(settings(), at)
        assert result.counts["synthetic_cells"] == 10
        at.run.complete(StageRecord("synthesize", "print", 1.0, "now", result))
        cells = synthetic_cells(at)
        assert set(cells.rows["split"].to_pylist()) == {"train"} and set(cells.label_N) == {1}
        assert set(cells.rows["source"].to_pylist()) == {"leugan"}
        drawn.append(cells.image_NSS3)
    assert np.array_equal(*drawn)
    files = at.folder.files()
    grids = [name for name in files if name.startswith("leugan-epochs/")]
    assert grids == [f"leugan-epochs/epoch-{epoch:05d}.png" for epoch in (1, 2, 4, 5)]
    assert decode_stored(at.folder.read_bytes(grids[0])).shape == (64, 256, 3)
    assert {"samples.png", "over_time.png", "pairs.png", "distances.png"} <= set(files)
    assert result.metrics["pixels_pca_precision"] >= 0


@pytest.mark.parametrize(
    ("cells", "sets", "why"),
    [
        ((40, 15), (), "only 15 cells to learn from"),
        ((20, 20), (), "classes are balanced"),
        (
            (40, 20),
            ("gan.use=never",),
            "gan.use=never (on real cells LeuGAN's brought nothing; gan.use=auto tries)",
        ),
    ],
)
def test_without_work_it_says_why_and_draws_nothing(
    cells: tuple[int, int], sets: tuple[str, ...], why: str, tmp_path: Path
) -> None:
    result = synthesize.run(settings(*sets), begun(tmp_path, *cells))
    assert result.counts["synthetic_cells"] == 0
    (note,) = result.notes
    assert note.startswith(f"nothing to synthesize: {why}")


# ---- what is said of drawn cells ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "alarms", "precision", "why"),
    [
        ("auto", Alarms(), 0.9, ""),
        ("auto", Alarms(), 0.1, "only 10% of LeuGAN's cells look like real ones"),
        ("auto", Alarms(copies="copies"), 0.9, "LeuGAN's cells raise an alarm"),
        ("auto", Alarms(collapse="collapse"), 0.9, "LeuGAN's cells raise an alarm"),
        ("always", Alarms("copies", "collapse"), 0.0, ""),
    ],
)
def test_cells_are_used_if_the_settings_say_so(use: str, alarms: Alarms, precision: float, why: str) -> None:
    judged = Judgement({"pixels_pca_precision": precision}, alarms)
    assert synthesize._refused(settings(f"gan.use={use}"), judged) == why


REAL = blobs(40, seed=0)


@pytest.mark.parametrize(
    ("drawn", "alarm"),
    [
        (blobs(40, seed=1), ""),
        (REAL[:20], "pixels_pca_copy_alarm"),
        (blobs(1, seed=1).repeat(30, axis=0), "pixels_pca_collapse_alarm"),
    ],
)
def test_alarms_are_figures_notes_and_pictures(drawn: Cells, alarm: str) -> None:
    judged = judge_pixels(REAL, drawn, seed=0)
    raised = {name: value for name, value in judged.metrics.items() if name.endswith("alarm")}
    assert raised == {f"pixels_pca_{kind}_alarm": float(kind in alarm) for kind in ("copy", "collapse")}
    assert len(judged.alarms.notes()) == bool(alarm)
    assert set(judged.pictures) == {"pairs", "distances"}
    assert judge_pixels(REAL, drawn[:4], seed=0) == Judgement()


def test_pictures_are_kept_with_the_grids_as_one_strip(tmp_path: Path) -> None:
    at = StageRun("synthesize", Run(str(tmp_path)), "print")
    keep_pictures(at, {"pairs": b"png"}, "leugan-epochs")
    assert at.folder.files() == ["pairs.png"]
    for epoch in (1, 10, 200):
        tiled = np.concatenate([np.concatenate(REAL[:8], axis=1)] * 2)
        at.folder.write_bytes(f"leugan-epochs/epoch-{epoch:05d}.png", encode_png(tiled))
    keep_pictures(at, {}, "leugan-epochs")
    assert decode_stored(at.folder.read_bytes("over_time.png")).shape[0] > 300


def test_by_features_they_are_held_against_training_cells_of_their_class() -> None:
    """The other class, validation and test are far away: were they looked at, figures would say so."""
    rng = np.random.default_rng(0)
    kinds = [("real", "train", 1, 50, 0), ("leugan", "train", 1, 30, 0), ("real", "train", 0, 50, 9)]
    kinds += [("real", "val", 1, 20, 99), ("real", "test", 1, 20, -99)]
    rows = [
        {"id": f"{k}-{n}", "source": source, "split": split, "label": label}
        for k, (source, split, label, count, _) in enumerate(kinds)
        for n in range(count)
    ]
    feat = np.concatenate([rng.normal(away, 1, (count, 24)) for *_, count, away in kinds]).astype(np.float32)
    judged = judge_features(manifest.table(rows), feat, seed=0)
    assert judged.metrics["backbone_precision"] > 0.7 and judged.metrics["backbone_recall"] > 0.7
    assert judged.alarms == Alarms()
    feat[50:80] = feat[:30]
    assert judge_features(manifest.table(rows), feat, seed=0).alarms.copies
    without = manifest.table(row | {"source": "real"} for row in rows)
    assert judge_features(without, feat, seed=0) == Judgement()
