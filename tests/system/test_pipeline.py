"""The main job through the command line: what it leaves behind, and what a second call does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from quick import Finished, cotray, quick_sets

from cotray.stages.pipeline import STAGES


def stage_json(run: Path, stage: str) -> dict[str, object]:
    return dict(json.loads((run / stage / "stage.json").read_text()))


def outcome(run: Path) -> tuple[list[bool], dict[str, object]]:
    """What must not depend on how a run came about: selected features and held-out metrics."""
    metrics = json.loads((run / "evaluate" / "metrics.json").read_text())
    return np.load(run / "select" / "mask.npy").tolist(), metrics


def test_every_stage_leaves_its_record(finished: Finished) -> None:
    prints = set()
    for name in STAGES:
        record = stage_json(finished.run, name)
        assert record["name"] == name
        assert record["seconds"] > 0
        prints.add(record["fingerprint"])
    assert len(prints) == len(STAGES)
    assert (finished.run / "config.yaml").exists()


def test_counts_add_up_and_are_told(finished: Finished) -> None:
    counts = stage_json(finished.run, "ingest")["result"]["counts"]
    assert counts["in"] == counts["used"] + counts["quarantined"] == 96
    assert "96 in = 96 used + 0 quarantined" in finished.output
    images = pq.read_table(finished.run / "ingest" / "manifest.parquet")
    cells = pq.read_table(finished.run / "segment" / "manifest.parquet")
    missing = json.loads((finished.run / "segment" / "no_cell.json").read_text())
    assert set(cells["image_id"].to_pylist()) | set(missing) == set(images["id"].to_pylist())


def test_no_subject_is_on_two_sides(finished: Finished) -> None:
    rows = pq.read_table(
        finished.run / "ingest" / "manifest.parquet", columns=["subject", "split"]
    ).to_pylist()
    sides = {row["subject"]: {r["split"] for r in rows if r["subject"] == row["subject"]} for row in rows}
    assert {len(splits) for splits in sides.values()} == {1}


def test_synthetic_cells_stay_in_training(finished: Finished) -> None:
    rows = pq.read_table(finished.run / "extract" / "manifest.parquet").to_pylist()
    made = [row for row in rows if row["source"] == "leugan"]
    assert made, "the phantom's classes differ in size, so LeuGAN has work"
    assert {row["split"] for row in made} == {"train"}
    bank = np.load(finished.run / "extract" / "bank.npy")
    assert len(bank) == sum(row["source"] == "real" and row["split"] == "train" for row in rows)


def test_the_report_says_what_it_is(finished: Finished) -> None:
    page = (finished.run / "evaluate" / "index.html").read_text()
    assert "phantom" in page.lower()
    assert page.count("data:image/png;base64,") > 8
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "colour alone" in page
    assert "epoch by epoch" in page and "Most suspicious" in page, "LeuGAN's pictures"


def test_served_answers_are_the_evaluated_ones(finished: Finished) -> None:
    metrics = stage_json(finished.run, "evaluate")["result"]["metrics"]
    assert metrics["serving_skew"] < 1e-3
    for name in ("accuracy", "balanced_accuracy", "f1", "auroc"):
        assert metrics[f"{name}_low"] <= metrics[name] + 1e-9
        assert metrics[name] <= metrics[f"{name}_high"] + 1e-9


def test_a_second_call_skips_everything(finished: Finished) -> None:
    before = {name: (finished.run / name / "stage.json").stat().st_mtime_ns for name in STAGES}
    done = cotray("run", "--run", "runs/quick", *quick_sets(), cwd=finished.home)
    assert done.stdout.count("done already, skipped") == len(STAGES)
    assert {name: (finished.run / name / "stage.json").stat().st_mtime_ns for name in STAGES} == before


def test_status_shows_what_is_done_and_where(finished: Finished) -> None:
    text = cotray("status", "runs/quick", cwd=finished.home).stdout
    assert all(name in text for name in STAGES)
    assert text.count("done") >= len(STAGES)
    assert "evaluate/index.html" in text
    assert "96" in text


def test_force_redoes_from_there_with_the_same_outcome(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.run, tmp_path / "runs" / "quick")
    done = cotray("run", "--run", "runs/quick", "--force", "select", *quick_sets(), cwd=tmp_path)
    assert done.stdout.count("done already, skipped") == list(STAGES).index("select")
    assert outcome(tmp_path / "runs" / "quick") == outcome(finished.run)


def test_a_changed_setting_redoes_only_what_depends_on_it(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.run, tmp_path / "runs" / "quick")
    sets = quick_sets("gan.use=auto", "gan.min_precision=1", "tracking.enabled=false")
    done = cotray("run", "--run", "runs/quick", "--until", "synthesize", *sets, cwd=tmp_path)
    assert done.stdout.count("done already, skipped") == list(STAGES).index("synthesize")
    record = stage_json(tmp_path / "runs" / "quick", "synthesize")
    assert record["result"]["counts"]["synthetic_cells"] == 0, "two epochs teach no generator"
    assert "none is used" in done.stdout


def test_a_run_folder_keeps_to_its_dataset(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    args = ("--dataset", "folder", "--root", str(tmp_path / "all"))
    done = cotray("run", "--run", str(finished.run), *args, cwd=tmp_path, code=2)
    assert "holds a run on 'phantom'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stage", ["select", "evaluate"])
def test_a_stage_needs_the_ones_before(stage: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "config.yaml").write_text("preset: tiny\n")
    done = cotray(stage, "--run", str(tmp_path), cwd=tmp_path, code=2)
    assert "has not been completed" in done.stderr
