"""A split that was changed after it was made stops every later stage; one that was not, stops none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotray import manifest
from cotray.config import load_config
from cotray.data.splits import split_digest
from cotray.errors import MissingStageError, RunError, SplitChangedError
from cotray.runs import Run, StageRecord, StageResult
from cotray.stages.frozen import verify_split
from cotray.stages.pipeline import STAGES, Request, run_pipeline

PLACES = {f"{c}/{i}.png": (side, f"g{c}{i}") for c in "ab" for i, side in enumerate(("train", "val", "test"))}
ALL = list(STAGES)
Row = dict[str, Any]


def complete(run: Run, stage: str, rows: list[Row], notes: list[str]) -> None:
    run.stage(stage).write_parquet("manifest.parquet", manifest.table(rows))
    run.complete(StageRecord(stage, "print", 1.0, "now", StageResult(notes=notes)))


def image_rows() -> list[Row]:
    return [
        {"id": name, "image_id": name, "source": "real", "label": 0, "split": side, "group": group}
        for name, (side, group) in PLACES.items()
    ]


def frozen_split() -> dict[str, Any]:
    sides, groups = zip(*PLACES.values(), strict=True)
    digest = split_digest(list(PLACES), sides, groups)
    return {"sha256": digest, "mode": "disjoint", "rows": {k: list(v) for k, v in PLACES.items()}}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Ingest, segment and synthesize as those stages leave them."""
    made = Run(str(tmp_path / "run"))
    made.begin(load_config("tiny"))
    frozen = frozen_split()
    made.stage("ingest").write_json("split.json", frozen)
    complete(made, "ingest", image_rows(), [f"split {frozen['sha256'][:12]}", "6 files in"])
    cells = [row | {"id": f"{row['id']}#{n}"} for row in image_rows() for n in range(2)]
    complete(made, "segment", cells, [])
    drawn = {
        "id": "leugan#0",
        "image_id": "leugan#0",
        "source": "leugan",
        "group": "leugan",
        "split": "train",
    }
    complete(made, "synthesize", [drawn], [])
    return made


def test_a_split_that_nobody_changed_passes(run: Run) -> None:
    verify_split(run, ALL)


def edit_side(frozen: dict[str, Any]) -> None:
    frozen["rows"]["a/2.png"][0] = "train"


def edit_side_and_digest(frozen: dict[str, Any]) -> None:
    edit_side(frozen)
    sides, groups = zip(*frozen["rows"].values(), strict=True)
    frozen["sha256"] = split_digest(list(frozen["rows"]), sides, groups)


def edit_digest(frozen: dict[str, Any]) -> None:
    frozen["sha256"] = "0" * 64


def drop_row(frozen: dict[str, Any]) -> None:
    del frozen["rows"]["a/0.png"]


@pytest.mark.parametrize("edit", [edit_side, edit_side_and_digest, edit_digest, drop_row])
def test_an_edited_split_names_file_and_cure(run: Run, edit: Callable[[dict[str, Any]], None]) -> None:
    frozen = run.stage("ingest").read_json("split.json")
    edit(frozen)
    run.stage("ingest").write_json("split.json", frozen)
    with pytest.raises(SplitChangedError, match="digest") as caught:
        verify_split(run, ALL)
    assert str(caught.value.where).endswith("ingest/split.json")
    assert "--force ingest" in str(caught.value.cure)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sha256": "a"}', '{"sha256": "a", "rows": 3}'])
def test_a_split_that_cannot_be_read_is_said_so(run: Run, text: str) -> None:
    run.stage("ingest").write_bytes("split.json", text.encode())
    with pytest.raises(RunError, match=r"split\.json"):
        verify_split(run, ALL)


@pytest.mark.parametrize("change", [{"split": "train"}, {"group": "g00"}, {"id": "other.png"}])
def test_an_edited_manifest_of_images_is_found(run: Run, change: Row) -> None:
    rows = image_rows()
    rows[2] |= change
    run.stage("ingest").write_parquet("manifest.parquet", manifest.table(rows))
    with pytest.raises(SplitChangedError, match="images' manifest") as caught:
        verify_split(run, ALL)
    assert str(caught.value.where).endswith("ingest/manifest.parquet")


def test_a_cell_elsewhere_than_its_image_is_found_by_later_stages_only(run: Run) -> None:
    cells = [row | {"id": f"{row['id']}#0"} for row in image_rows()]
    cells[5]["split"] = "train"
    run.stage("segment").write_parquet("manifest.parquet", manifest.table(cells))
    verify_split(run, ["ingest"])
    with pytest.raises(SplitChangedError, match="cells of b/2") as caught:
        verify_split(run, ["ingest", "segment"])
    assert "--force segment" in str(caught.value.cure)


def test_a_synthetic_cell_in_the_test_split_is_found(run: Run) -> None:
    drawn = {"id": "leugan#0", "image_id": "leugan#0", "source": "leugan", "group": "leugan", "split": "test"}
    run.stage("synthesize").write_parquet("manifest.parquet", manifest.table([drawn]))
    with pytest.raises(SplitChangedError, match="synthetic"):
        verify_split(run, ALL)


def test_a_damaged_manifest_is_one_clear_error(run: Run) -> None:
    run.stage("ingest").write_bytes("manifest.parquet", b"PAR1 no table")
    with pytest.raises(RunError, match="Cannot read"):
        verify_split(run, ALL)


def test_without_ingest_that_is_what_is_missing(tmp_path: Path) -> None:
    empty = Run(str(tmp_path))
    with pytest.raises(MissingStageError, match="ingest"):
        verify_split(empty, ALL)


@pytest.mark.usefixtures("ray_local")
def test_every_stage_that_reads_the_split_stops_before_it_works(run: Run) -> None:
    frozen = run.stage("ingest").read_json("split.json")
    edit_side(frozen)
    run.stage("ingest").write_json("split.json", frozen)
    config = load_config("tiny", overrides=["tracking.enabled=false"])
    for stage in ALL[1:]:
        with pytest.raises(SplitChangedError):
            run_pipeline(Request(run.folder.uri, config, only=stage))
        assert not run.stage(stage).exists("started.json")
