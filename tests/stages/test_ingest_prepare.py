"""Ingest prepares as the predictor does, counts stains left as they were, and keeps the files it read."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cotray.config import Config, load_config
from cotray.data.decode import decode_stored
from cotray.data.phantom import draw_phantom, phantom_index
from cotray.errors import InvalidValueError, WeightsError
from cotray.preparation import carried, prepare
from cotray.runs import Run
from cotray.stages.ingest import STAGE
from cotray.stages.pipeline import Request, run_pipeline

pytestmark = pytest.mark.usefixtures("ray_local")


def write(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sink = io.BytesIO()
    Image.fromarray(rgb).save(sink, "PNG")
    path.write_bytes(sink.getvalue())


def settings(root: Path, *more: str) -> Config:
    sets = ("dataset.name=folder", f"dataset.root={root}", "dataset.class_map={normal: 0, sick: 1}")
    return load_config("tiny", overrides=(*sets, "split.block=1", "tracking.enabled=false", *more))


def files(root: Path) -> dict[str, np.ndarray]:
    """Phantoms of both classes, and two pictures that no stain can be given."""
    specs = phantom_index("all-idb2", 12, 2, seed=0)
    drawn = {
        f"{'sick' if s.label else 'normal'}/{n:02d}.png": draw_phantom(s).rgb for n, s in enumerate(specs)
    }
    drawn["sick/white.png"] = np.full((64, 64, 3), 250, np.uint8)
    drawn["normal/grey.png"] = np.full((64, 64, 3), 120, np.uint8)
    for path, rgb in drawn.items():
        write(root / path, rgb)
    return drawn


def test_stain_is_normalised_counted_and_the_target_kept(tmp_path: Path) -> None:
    drawn = files(tmp_path / "data")
    write(tmp_path / "target.png", draw_phantom(phantom_index("fields", 12, 2, seed=0)[5]).rgb)
    target = f"enhance.stain_target={tmp_path / 'target.png'}"
    config = settings(tmp_path / "data", "enhance.stain=reinhard", target)
    record = run_pipeline(Request(str(tmp_path / "run"), config, until="ingest"))["ingest"]
    assert record.result.counts["stain_left"] == 2
    assert any("2 images kept their stain" in note for note in record.result.notes)
    folder = tmp_path / "run" / "ingest"
    rows = {row["id"]: row for row in pq.read_table(folder / "manifest.parquet").to_pylist()}
    left = {name for name, row in rows.items() if row["reason"]}
    assert left == {"sick/white.png", "normal/grey.png"}
    (tmp_path / "target.png").unlink()
    kept = carried(config, Run(str(tmp_path / "run")).stage("ingest"))
    for part in sorted((folder / "images").glob("*.parquet")):
        for row in pq.read_table(part).to_pylist():
            assert np.array_equal(decode_stored(row["image"]), prepare(drawn[row["id"]], kept))


def test_another_target_makes_the_stage_run_again(tmp_path: Path) -> None:
    files(tmp_path / "data")
    target = tmp_path / "target.png"
    config = settings(tmp_path / "data", "enhance.stain=reinhard", f"enhance.stain_target={target}")
    asked = []
    for number in (1, 5):
        write(target, draw_phantom(phantom_index("fields", 12, 2, seed=0)[number]).rgb)
        asked.append(STAGE.determinants(config))
    assert asked[0] != asked[1], "the stage's fingerprint is made of these"


def test_files_that_cannot_be_used_are_told_before_anything_runs(tmp_path: Path) -> None:
    files(tmp_path / "data")
    (tmp_path / "net.pt").write_bytes(b"no network")
    half = tmp_path / "half.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(torch.nn.AvgPool2d(2)), str(half))
    for sets, kind in (
        (("enhance.method=mirnet", f"enhance.mirnet_weights={tmp_path / 'net.pt'}"), WeightsError),
        (("enhance.method=mirnet", f"enhance.mirnet_weights={half}"), WeightsError),
        (("enhance.method=mirnet",), WeightsError),
        (("ingest.mask_regions=[[0.5, 0, 0.5, 1]]",), InvalidValueError),
        (("enhance.stain=macenko", f"enhance.stain_target={tmp_path / 'net.pt'}"), InvalidValueError),
    ):
        config = settings(tmp_path / "data", *sets)
        with pytest.raises(kind):
            run_pipeline(Request(str(tmp_path / "run"), config, until="ingest"))
        assert not (tmp_path / "run" / "ingest" / "images").exists()
