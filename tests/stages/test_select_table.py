"""Selection from anyone's table, by its Python door: refusals, sides, who evaluates, continuing, rivals."""

from __future__ import annotations

import io
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables import WIDTH, frame

from cotray.config import Config, load_config
from cotray.errors import CotrayError, DataError, LabelFileError, RunMismatchError
from cotray.runs import Run
from cotray.selection.select import select_features
from cotray.stages import selecting
from cotray.stages.base import Voice
from cotray.stages.score_log import ScoreLog
from cotray.stages.table import TableRequest, begin, pipeline_only, run_table, split
from cotray.stages.table_file import read_table
from cotray.storage import Folder

SETTINGS = ("sca.agents=6", "sca.iterations=4", "abhc.steps=3", "tracking.enabled=false")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    frame().to_parquet("F.parquet")
    return tmp_path


class Loud(Voice):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def settings(*more: str, evaluator: str = "serial") -> Config:
    return load_config(overrides=[*SETTINGS, f"select.evaluator={evaluator}", *more])


def ask(config: Config | None = None, features: str = "F.parquet", **more: Any) -> TableRequest:
    return TableRequest(features, "kind", more.pop("groups", "patient"), config or settings(), **more)


def mask_of(run: Run, stage: str = "select") -> list[bool]:
    return list(np.load(io.BytesIO(run.stage(stage).read_bytes("mask.npy"))))


def history_of(run: Run) -> Any:
    return run.stage("select").read_json("history.json")


# -- what is wrong ----------------------------------------------------------------------------------------

WRONG: dict[str, tuple[type[CotrayError], str, dict[str, Any]]] = {
    "no file": (DataError, "no such table.*--features", {"features": "absent.parquet"}),
    "no table": (DataError, "no table.*named .csv", {"features": "picture.png"}),
    "damaged Parquet": (DataError, "damaged", {"features": "cut.parquet"}),
    "ragged CSV": (DataError, "damaged", {"features": "ragged.csv"}),
    "not UTF-8": (DataError, "damaged|No numbers", {"features": "latin.csv"}),
    "empty": (DataError, "damaged", {"features": "empty.csv"}),
    "no rows": (DataError, "no rows", {"features": "header.csv"}),
    "one row": (DataError, "1 sample; a selection needs at least 4", {"features": "single.csv"}),
    "an empty folder": (DataError, "no Parquet file", {"features": "nothing"}),
    "files that differ": (DataError, "not one table.*same columns", {"features": "mixed"}),
    "no target": (LabelFileError, "no column 'kimd'.*Did you mean 'kind'", {"target": "kimd"}),
    "no groups": (LabelFileError, "no column 'patent'.*'patient'", {"groups": "patent"}),
    "nothing to drop": (LabelFileError, "no column 'f99'", {"drop": ["f99"]}),
    "target dropped": (LabelFileError, "'kind' is named by --target and by --drop", {"drop": ["kind"]}),
    "groups dropped": (LabelFileError, "'patient' is named by --groups", {"drop": ["patient"]}),
    "target is groups": (LabelFileError, "by --target and by --groups", {"groups": "kind"}),
    "all dropped": (DataError, "No column is left", {"drop": [f"f{i}" for i in range(WIDTH)]}),
    "a number": (DataError, "continuous", {"target": "f3", "drop": ["kind"]}),
    "text": (DataError, "'kind'.*--drop", {"target": "patient", "groups": None}),
    "one class": (DataError, "two classes", {"target": "same", "features": "same.csv"}),
    "a budget without unit": (CotrayError, "budget cannot be '30'", {"config": ["select.budget='30'"]}),
    "no optimizer": (CotrayError, "Unknown optimizer 'gaa'.*'ga'", {"compare": ["gaa"]}),
}  # fmt: skip


def write_wrong() -> None:
    Path("picture.png").write_bytes(b"\x89PNG\r\n")
    Path("cut.parquet").write_bytes(Path("F.parquet").read_bytes()[:900])
    Path("ragged.csv").write_text("a,kind\n1,2\n3\n")
    Path("latin.csv").write_bytes("patient,kind,f0\n1,é,x\n2,é,y\n3,e,z\n4,e,z\n".encode("latin1"))
    Path("empty.csv").write_bytes(b"")
    Path("header.csv").write_text("patient,kind,f0\n")
    frame(1).to_csv("single.csv", index=False)
    Path("nothing").mkdir()
    Path("mixed").mkdir()
    frame().to_parquet("mixed/a.parquet")
    frame()[["f0", "kind"]].to_parquet("mixed/b.parquet")
    frame().drop(columns="kind").assign(same="x").to_csv("same.csv", index=False)


@pytest.mark.parametrize("what", list(WRONG))
def test_what_is_wrong_is_said_and_nothing_is_begun(home: Path, what: str) -> None:
    kind, words, given = WRONG[what]
    write_wrong()
    asked = {"features": "F.parquet", "target": "kind", "groups": "patient", **given}
    asked["config"] = settings(*asked.get("config", ()))
    with pytest.raises(kind, match=words):
        run_table(TableRequest(**asked, out="out"))
    assert not Path("out").exists()


# -- sides --------------------------------------------------------------------------------------------------


def test_rows_in_are_rows_used_and_groups_are_whole(home: Path) -> None:
    rows = frame()
    rows.loc[[3, 50], "kind"] = None
    rows["patient"] = rows["patient"].astype("Int64")
    rows.loc[[7], "patient"] = None
    rows.to_parquet("holes.parquet")
    sides = split(read_table("holes.parquet"), ask())
    counts = sides.counts
    assert counts["rows"] == 120 == counts["inside"] + counts["outside"] + counts["dropped"]
    assert counts["dropped"] == 3 and counts["outside"] == 24
    assert not set(sides.inside.group_N) & set(sides.outside.group_N)
    assert set(sides.outside.label_N) == {"red", "green", "blue"}
    assert any("3 rows" in note for note in sides.notes)


def test_without_groups_that_is_said(home: Path) -> None:
    sides = split(read_table("F.parquet"), ask(groups=None, drop=["patient"]))
    assert sides.counts["groups"] == 120
    assert any("no --groups" in note for note in sides.notes)


def test_the_search_sees_nothing_of_the_hold_out(home: Path) -> None:
    """The hold-out's features replaced by others: the same mask, the same fitness, another outer error."""
    held = split(read_table("F.parquet"), ask()).outside.group_N
    spoiled = frame()
    at = spoiled["patient"].isin(np.unique(held))
    spoiled.loc[at, [f"f{i}" for i in range(WIDTH)]] = np.random.default_rng(5).normal(size=(at.sum(), WIDTH))
    spoiled.to_parquet("spoiled.parquet")
    run, records = run_table(ask())
    other, others = run_table(ask(features="spoiled.parquet"))
    assert mask_of(run) == mask_of(other) and history_of(run) == history_of(other)
    one, two = (r["select"].result.metrics for r in (records, others))
    assert one["inner_error"] == two["inner_error"] and one["outer_error"] < two["outer_error"]


def test_without_a_hold_out_no_gap_is_told(home: Path) -> None:
    _, records = run_table(ask(settings("select.outer=0")))
    result = records["select"].result
    assert "outer_error" not in result.metrics and result.counts["outside"] == 0
    assert any("no hold-out" in note for note in result.notes)


# -- outputs ------------------------------------------------------------------------------------------------


def test_files_and_figures_tell_the_same(home: Path) -> None:
    run, records = run_table(ask(settings("select.members=3")))
    folder, result = run.stage("select"), records["select"].result
    mask = mask_of(run)
    rows = folder.read_parquet("features.parquet").to_pylist()
    assert [row["selected"] for row in rows] == mask
    chosen = [row["feature"] for row in rows if row["selected"]]
    assert folder.read_bytes("selected.txt").decode().splitlines() == chosen
    assert result.counts["selected"] == len(chosen) and result.counts["features"] == WIDTH
    history = history_of(run)
    assert history[-1]["best_fitness"] == result.metrics["fitness"] and history[-1]["best_size"] == len(
        chosen
    )
    seconds = folder.read_json("seconds.json")
    assert len(seconds) == len(history) and seconds == sorted(seconds)
    assert seconds[-1] == pytest.approx(result.metrics["search_seconds"], abs=1e-3)
    for path in result.artifacts.values():
        assert folder.exists(path)
    assert {"convergence", "stability"} <= set(result.artifacts)
    members = np.load(home / "runs/select-F/select/members.npy")
    assert [row["frequency"] for row in rows] == pytest.approx(members.mean(axis=0).tolist())


def test_the_run_may_be_elsewhere(home: Path) -> None:
    away = f"memory://away-{uuid.uuid4().hex}/run"
    there, _ = run_table(ask(out=away))
    here, _ = run_table(ask())
    assert mask_of(there) == mask_of(here)
    assert len(ScoreLog(there.stage("select"))) == len(ScoreLog(here.stage("select"))) > 0
    assert list(home.glob("memory*")) == []


def test_another_preset_value_begins_anew_and_force_too(home: Path) -> None:
    _, first = run_table(ask())
    _, again = run_table(ask())
    assert again == first, "skipped"
    _, forced = run_table(ask(force=True))
    assert forced["select"].result.counts == first["select"].result.counts, "all masks were evaluated again"
    _, other = run_table(ask(settings("seed=1")))
    assert other["select"].fingerprint != first["select"].fingerprint


# -- who evaluates ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ray_local")
def test_the_same_mask_whoever_evaluates(home: Path) -> None:
    """With members too: they run beside the actors, which must leave them CPUs."""
    found = {}
    for evaluator in ("serial", "ray", "tasks"):
        more = ("select.budget=50 evaluations", "select.members=3", "select.rule=consensus")
        config = settings(*more, evaluator=evaluator)
        run, records = run_table(ask(config, out=evaluator))
        members = np.load(home / evaluator / "select/members.npy").tolist()
        metrics = {k: v for k, v in records["select"].result.metrics.items() if k != "search_seconds"}
        found[evaluator] = (mask_of(run), history_of(run), members, metrics)
    assert found["ray"] == found["serial"]
    assert found["tasks"] == found["serial"]


# -- continuing ---------------------------------------------------------------------------------------------


class Killed(Exception):
    """Stands for the end of the process; the disk is left as it is."""


def killed_after(evaluations: int, monkeypatch: pytest.MonkeyPatch, request: TableRequest) -> None:
    """Let a request die once so many masks are in the log."""
    done = 0
    append = ScoreLog.append

    def dying(log: ScoreLog, masks: Any, values: Any) -> None:
        nonlocal done
        append(log, masks, values)
        done += len(values)
        if done >= evaluations:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(ScoreLog, "append", dying)
        with pytest.raises(Killed):
            run_table(request)


@pytest.mark.parametrize(
    "more", [(), ("select.islands=2", "select.migrate=1"), ("select.rule=one_se",), ("select.optimizer=ga",)]
)
@pytest.mark.parametrize("at", [1, 20])
def test_a_selection_that_died_continues_exactly(
    home: Path, monkeypatch: pytest.MonkeyPatch, more: Sequence[str], at: int
) -> None:
    config = settings("select.budget=60 evaluations", *more)
    whole, unbroken = run_table(ask(config, out="whole"))
    killed_after(at, monkeypatch, ask(config, out="broken"))
    before = len(ScoreLog(Folder("broken/select")))
    run, continued = run_table(ask(config, out="broken"))
    assert before >= at
    assert before + continued["select"].result.counts["scored"] == unbroken["select"].result.counts["scored"]
    assert len(ScoreLog(run.stage("select"))) == unbroken["select"].result.counts["scored"]
    assert mask_of(run) == mask_of(whole) and history_of(run) == history_of(whole)


def test_members_that_are_done_are_not_searched_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings("select.members=4")
    run_table(ask(config, out="whole"))
    searched: list[int] = []

    def count(most: int) -> Any:
        def member(table: Any, rows: Any, config: Config, seed: int) -> Any:
            if len(searched) == most:
                raise Killed
            searched.append(seed)
            return select_features(table.rows(rows), config, seed).mask_D

        return member

    monkeypatch.setattr("cotray.selection.select.member", count(2))
    with pytest.raises(Killed):
        run_table(ask(config, out="broken"))
    monkeypatch.setattr("cotray.selection.select.member", count(99))
    run_table(ask(config, out="broken"))
    assert len(searched) == len(set(searched)) == 4
    found = [np.load(home / place / "select/members.npy").tolist() for place in ("whole", "broken")]
    assert found[0] == found[1]


def test_the_clock_goes_on_where_it_stood(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write_json(selecting.SECONDS, [10.0, 20.0])
    clock = selecting.Clock(folder, replayed=True)
    for step in (1, 2, 3):
        clock.mark(step)
    assert clock.seconds[:2] == [10.0, 20.0] and 20.0 <= clock.seconds[2] < 30.0
    assert selecting.Clock(folder, replayed=False).seconds == []


# -- whose folder it is -------------------------------------------------------------------------------------


def test_a_folder_is_one_tables(home: Path) -> None:
    run_table(ask(out="out"))
    kept = {path: path.read_bytes() for path in (home / "out").rglob("*") if path.is_file()}
    frame(seed=1).to_parquet("F.parquet")
    with pytest.raises(RunMismatchError, match=r"another table.*--out"):
        run_table(ask(out="out"))
    frame().to_parquet("F.parquet")
    with pytest.raises(RunMismatchError, match="--out"):
        run_table(ask(groups=None, drop=["patient"], out="out"))
    assert {path: path.read_bytes() for path in (home / "out").rglob("*") if path.is_file()} == kept
    run_table(ask(out="out"))


def test_pipelines_and_tables_keep_apart(home: Path) -> None:
    run_table(ask(out="table"))
    Run("pipeline").begin(settings())
    assert pipeline_only("pipeline").folder.uri.endswith("pipeline")
    with pytest.raises(RunMismatchError, match="selects from a table"):
        pipeline_only("table")
    with pytest.raises(RunMismatchError, match="run of the pipeline"):
        begin(Run("pipeline"), read_table("F.parquet"), ask())


# -- rivals -------------------------------------------------------------------------------------------------


def compared(run: Run) -> dict[str, dict[str, Any]]:
    return {row["optimizer"]: row for row in run.stage("compare").read_json("compare.json")}


def test_rivals_have_the_same_budget_and_their_own_logs(home: Path) -> None:
    config = settings("select.budget=80 evaluations", "select.members=2")
    run, records = run_table(ask(config, compare=["ga", "pso", "ga", "sca", "random"]))
    assert list(records) == ["select", "ga", "pso", "random", "compare"]
    rows = compared(run)
    assert list(rows) == ["sca", "ga", "pso", "random"]
    for optimizer, row in rows.items():
        stage = "select" if optimizer == "sca" else optimizer
        result = records[stage].result
        assert row["evaluations"] == 80 >= result.counts["scored"] == len(ScoreLog(run.stage(stage)))
        assert (row["fitness"], row["outer_error"]) == (
            result.metrics["fitness"],
            result.metrics["outer_error"],
        )
        assert row["features"] == sum(mask_of(run, stage)) and row["seconds"] > 0
    assert run.stage("compare").exists("convergence.png")
    alone, _ = run_table(ask(settings("select.budget=80 evaluations", "select.optimizer=ga"), out="alone"))
    assert mask_of(alone) == mask_of(run, "ga"), "the same folds and seed"
    assert history_of(alone) == run.stage("ga").read_json("history.json")


def test_a_rival_more_leaves_what_is_done(home: Path) -> None:
    voice = Loud()
    _, before = run_table(ask(compare=["ga"]))
    run, after = run_table(ask(compare=["ga", "random"], voice=voice))
    kept: Sequence[str] = ("select", "ga")
    assert [name for name in kept if f"{name}: done already, skipped" in voice.lines] == list(kept)
    assert all(before[name] == after[name] for name in kept)
    assert list(compared(run)) == ["sca", "ga", "random"]
    assert {row["evaluations"] for row in compared(run).values()} == {4 * (6 + 3)}, "nobody named a budget"
