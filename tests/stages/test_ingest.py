"""Bad files are quarantined with a reason; bad data sets are one clear error. Real Ray Data."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cotray.config import Config, load_config
from cotray.errors import (
    ClassError,
    DatasetNotFoundError,
    EmptyDatasetError,
    RunNotWritableError,
    TooFewGroupsError,
)
from cotray.runs import StageRecord
from cotray.stages.pipeline import Request, run_pipeline

pytestmark = pytest.mark.usefixtures("ray_local")


def picture(seed: int, side: int = 64) -> np.ndarray:
    """A smooth picture that no other seed's perceptual hash comes near."""
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind)
    return sink.getvalue()


def good_files(root: Path, per_class: int = 12) -> None:
    for label in ("normal", "sick"):
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            seed = number + (1000 if label == "sick" else 0)
            (root / label / f"{number:03d}.png").write_bytes(encoded(picture(seed)))


def unreadable_files(folder: Path) -> dict[str, bytes]:
    """Files whose reading fails, as on a bad sector, and without permission (which root does not need)."""
    (folder / "sector.png").symlink_to("/proc/self/mem")
    made = {"sector.png": b""}
    locked = folder / "locked.png"
    locked.write_bytes(encoded(picture(5006)))
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        locked.unlink()
        return made
    return made | {"locked.png": b""}


def settings(root: Path, *more: str) -> Config:
    sets = (
        "dataset.name=folder",
        f"dataset.root={root}",
        "dataset.class_map={normal: 0, sick: 1}",
        "split.block=2",
        "tracking.enabled=false",
        *more,
    )
    return load_config("tiny", overrides=sets)


def ingest(config: Config, run: Path) -> StageRecord:
    return run_pipeline(Request(str(run), config, until="ingest"))["ingest"]


def reasons(run: Path) -> dict[str, str]:
    rows = pq.read_table(run / "ingest" / "quarantine.parquet").to_pylist()
    return {Path(row["id"]).name: row["reason"] for row in rows}


def test_odd_files_are_decoded_or_quarantined_with_a_reason(tmp_path: Path) -> None:
    root, run = tmp_path / "data", tmp_path / "run"
    good_files(root)
    whole = encoded(picture(5001))
    grey16 = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    rgba = np.dstack([picture(5002), np.full((64, 64), 255, np.uint8)])
    readable = {
        "grey.png": encoded(picture(5003)[..., 0]),
        "rgba.png": encoded(rgba),
        "sixteen.png": encoded(grey16),
    }
    unusable = {
        "corrupt.png": whole[:40] + bytes(60) + whole[100:],
        "truncated.jpg": encoded(picture(5004), "JPEG")[:-200],
        "empty.png": b"",
        "text.png": b"I am no image",
        "eight.png": encoded(picture(5005, 8)),
        "huge.png": encoded(np.zeros((400, 400, 3), np.uint8)),
    }
    for name, data in (readable | unusable).items():
        (root / "sick" / name).write_bytes(data)
    unusable |= unreadable_files(root / "sick")
    record = ingest(settings(root, "ingest.max_pixels=100000"), run)
    counts = record.result.counts
    assert counts["in"] == 24 + len(readable) + len(unusable)
    assert counts["used"] == 24 + len(readable)
    assert counts["in"] == counts["used"] + counts["quarantined"]
    found = reasons(run)
    assert set(found) == set(unusable)
    assert all(found.values()), "every quarantined file has a reason"
    assert len(set(found.values())) >= 5, "reasons tell the cases apart"
    assert found["sector.png"].startswith("cannot be read")
    used = pq.read_table(run / "ingest" / "manifest.parquet")["id"].to_pylist()
    good = [path for path in root.rglob("*.png") if path.name not in unusable]
    assert sorted(used) == sorted(str(path.relative_to(root)) for path in good)
    assert any("files in" in note for note in record.result.notes)


def test_the_split_is_frozen_hashed_and_disjoint(tmp_path: Path) -> None:
    good_files(tmp_path / "data")
    first = ingest(settings(tmp_path / "data"), tmp_path / "a")
    ingest(settings(tmp_path / "data"), tmp_path / "b")
    frozen = [json.loads((tmp_path / run / "ingest" / "split.json").read_text()) for run in ("a", "b")]
    assert frozen[0] == frozen[1]
    assert len(frozen[0]["sha256"]) == 64
    sides: dict[str, set[str]] = {}
    for split, group in frozen[0]["rows"].values():
        sides.setdefault(group, set()).add(split)
    assert all(len(splits) == 1 for splits in sides.values())
    assert {split for split, _ in frozen[0]["rows"].values()} == {"train", "val", "test"}
    assert first.result.counts["groups"] == len(sides)


def test_the_same_image_twice_is_one_group(tmp_path: Path) -> None:
    good_files(tmp_path / "data")
    (tmp_path / "data" / "sick" / "zz-copy.png").write_bytes(encoded(picture(1000)))
    ingest(settings(tmp_path / "data"), tmp_path / "run")
    rows = json.loads((tmp_path / "run" / "ingest" / "split.json").read_text())["rows"]
    assert rows["sick/zz-copy.png"][1] == rows["sick/000.png"][1]


def test_new_images_make_the_stage_run_again(tmp_path: Path) -> None:
    good_files(tmp_path / "data")
    before = ingest(settings(tmp_path / "data"), tmp_path / "run")
    again = ingest(settings(tmp_path / "data"), tmp_path / "run")
    assert again.finished == before.finished, "unchanged: skipped"
    (tmp_path / "data" / "sick" / "new.png").write_bytes(encoded(picture(7777)))
    after = ingest(settings(tmp_path / "data"), tmp_path / "run")
    assert after.fingerprint != before.fingerprint
    assert after.result.counts["in"] == before.result.counts["in"] + 1


def test_data_sets_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    with pytest.raises(EmptyDatasetError, match="image"):
        ingest(settings(tmp_path / "void"), tmp_path / "r1")
    with pytest.raises(DatasetNotFoundError, match="no such folder"):
        ingest(settings(tmp_path / "nowhere"), tmp_path / "r2")
    one = tmp_path / "one"
    good_files(one)
    for path in (one / "sick").iterdir():
        path.unlink()
    with pytest.raises(ClassError, match="class"):
        ingest(settings(one), tmp_path / "r3")
    few = tmp_path / "few"
    good_files(few, per_class=2)
    with pytest.raises(TooFewGroupsError, match="group") as caught:
        ingest(settings(few), tmp_path / "r4")
    assert caught.value.cure


def test_an_unwritable_run_folder_is_told_first(tmp_path: Path) -> None:
    good_files(tmp_path / "data")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunNotWritableError):
        ingest(settings(tmp_path / "data"), tmp_path / "file" / "run")


def test_workers_that_read_images_import_nothing_heavy() -> None:
    heavy = {"torch", "sklearn", "mlflow", "monai", "faiss", "matplotlib"}
    code = f"import sys, cotray.stages.reading; print(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("scheme", ["memory"])
def test_any_fsspec_place_can_be_named(tmp_path: Path, scheme: str) -> None:
    import fsspec

    from cotray.storage import Folder

    folder = Folder(f"{scheme}://cotray-test")
    folder.write_json("a/b.json", {"x": 1})
    assert folder.read_json("a/b.json") == {"x": 1}
    assert fsspec.filesystem(scheme).exists("/cotray-test/a/b.json")
