"""`cotray select` on a table, as a user has it: one command, its files, its MLflow run, and a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from mlflow.entities import Run as MlflowRun
from quick import command, cotray, environment

from cotray.cli import main
from cotray.stages.score_log import ScoreLog
from cotray.storage import Folder

COMMAND = ("select", "--features", "blood.csv", "--target", "kind", "--groups", "patient")
QUICK = ("--evaluator", "serial", "--set", "sca.agents=8", "--set", "abhc.steps=4")


def write_table(home: Path, rows: int = 180) -> None:
    """Two classes in groups of three rows; columns f0 to f3 tell them apart; a column of names."""
    rng = np.random.default_rng(3)
    code = np.arange(rows) // 3 % 2
    feat = rng.normal(size=(rows, 40))
    feat[:, :4] += 0.9 * code[:, None]
    made = pd.DataFrame(feat, columns=[f"f{i}" for i in range(40)])
    made = made.assign(name="someone", kind=np.array(["sick", "well"])[code], patient=np.arange(rows) // 3)
    made.loc[10, "kind"] = None
    made.to_csv(home / "blood.csv", index=False)


class Done:
    """A finished selection with two rivals."""

    def __init__(self, home: Path) -> None:
        write_table(home)
        self.home, self.run = home, home / "runs" / "select-blood"
        more = ("--budget", "115 evaluations", "--members", "3", "--compare", "ga,pso", "--drop", "name")
        self.args = (*COMMAND, *QUICK, *more)
        self.output = cotray(*self.args, cwd=home).stdout


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return Done(tmp_path_factory.mktemp("table"))


def test_the_summary_names_features_figures_and_files(done: Done) -> None:
    names = (done.run / "select" / "selected.txt").read_text().split()
    assert {"f0", "f1", "f2", "f3"} & set(names)
    shown = done.output[done.output.index("in halves") :]
    assert all(f"\n{name} " in shown for name in names[:20])
    assert "180 rows = 143 searched on + 36 held out + 1 left out; 60 groups" in shown
    for words in ("gap ", "all features ", "best filter ", "Jaccard ", f"selected   {len(names)} of 40"):
        assert words in shown
    assert "runs/select-blood/select" in shown
    assert "/115 " in done.output and "evaluations/s" in done.output


def test_the_files_agree_with_one_another(done: Done) -> None:
    folder = done.run / "select"
    rows = pq.read_table(folder / "features.parquet").to_pylist()
    mask = np.load(folder / "mask.npy")
    assert [row["feature"] for row in rows] == [f"f{i}" for i in range(40)]
    assert mask.dtype == bool and [row["selected"] for row in rows] == mask.tolist()
    assert (folder / "selected.txt").read_text().splitlines() == [f"f{i}" for i in np.flatnonzero(mask)]
    for picture in ("select/convergence.png", "select/stability.png", "compare/convergence.png"):
        assert (done.run / picture).read_bytes().startswith(b"\x89PNG")


def test_the_comparison_is_printed_and_kept(done: Done) -> None:
    rows = json.loads((done.run / "compare" / "compare.json").read_text())
    assert [row["optimizer"] for row in rows] == ["sca", "ga", "pso"]
    for row in rows:
        assert set(row) == {"optimizer", "fitness", "features", "outer_error", "evaluations", "seconds"}
        assert row["evaluations"] == 115
        (line,) = [line for line in done.output.splitlines() if line.split()[:1] == [row["optimizer"]]]
        assert line.split()[1:4] == [
            f"{row['fitness']:.4f}",
            str(row["features"]),
            f"{row['outer_error']:.3f}",
        ]


def test_the_same_command_skips_what_is_done_and_status_tells(done: Done) -> None:
    again = cotray(*done.args, cwd=done.home).stdout
    assert again.count("done already, skipped") == 4
    assert (
        again[again.index("in halves") : again.index("time ")]
        == (done.output[done.output.index("in halves") : done.output.index("time ")])
    )
    status = cotray("status", "runs/select-blood", cwd=done.home).stdout
    assert [line.split()[0] for line in status.splitlines() if " done " in line] == [
        "select",
        "ga",
        "pso",
        "compare",
    ]


@pytest.fixture
def client(done: Done) -> Iterator[mlflow.MlflowClient]:
    uri = f"sqlite:///{done.home / 'runs' / 'mlflow.db'}"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield mlflow.MlflowClient(uri)
    mlflow.set_tracking_uri(before)


def runs_of(client: mlflow.MlflowClient) -> dict[str, MlflowRun]:
    experiment = client.get_experiment_by_name("cotray")
    assert experiment is not None
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_mlflow_has_settings_history_and_files(done: Done, client: mlflow.MlflowClient) -> None:
    runs = runs_of(client)
    assert set(runs) == {"select-blood", "select", "ga", "pso", "compare"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["select-blood"].data.params["table.target"] == "kind"
    history = json.loads((done.run / "select" / "history.json").read_text())
    search = runs["select"]
    for key in ("best_fitness", "best_size", "evaluations"):
        logged = client.get_metric_history(search.info.run_id, f"select_{key}")
        assert [(row.step, row.value) for row in logged] == [(i + 1, h[key]) for i, h in enumerate(history)]
    params = search.data.params
    assert (params["select.budget"], params["select.optimizer"]) == ("115 evaluations", "sca")
    assert (params["sca.agents"], params["groups"]) == ("8", "patient")
    assert runs["ga"].data.params["select.optimizer"] == "ga"
    record = json.loads((done.run / "select" / "stage.json").read_text())["result"]
    for key in ("fitness", "outer_error", "inner_error", "gap", "all_error", "filter_error", "stability"):
        assert search.data.metrics[key] == pytest.approx(record["metrics"][key])
    assert search.data.metrics["outside"] == 36
    (used,) = search.inputs.dataset_inputs
    assert used.dataset.name == "blood.csv" and json.loads(used.dataset.profile)["rows"] == 180
    files = {item.path for item in client.list_artifacts(search.info.run_id)}
    assert {"mask.npy", "features.parquet", "selected.txt", "convergence.png", "stability.png"} <= files
    assert {item.path for item in client.list_artifacts(runs["compare"].info.run_id)} == {
        "compare.json",
        "convergence.png",
    }


# -- a kill -------------------------------------------------------------------------------------------------

LONG = ("--drop", "name", "--budget", "2500 evaluations", "--compare", "random")


def outcome(run: Path) -> tuple[list[list[bool]], list[object]]:
    stages = ("select", "random")
    masks = [np.load(run / stage / "mask.npy").tolist() for stage in stages]
    return masks, [json.loads((run / stage / "history.json").read_text()) for stage in stages]


def scored(run: Path, stage: str) -> int:
    record = json.loads((run / stage / "stage.json").read_text())
    return int(record["result"]["counts"]["scored"])


def kill_in_the_middle(home: Path, stage: str) -> int:
    """SIGKILL the driver once about a hundred masks are in the log; how many were."""
    folder = home / "broken" / stage
    driver = subprocess.Popen(
        command(*COMMAND, *QUICK, *LONG, "--out", "broken"),
        cwd=home,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 240
        while sum(part.stat().st_size for part in (folder / "scored").glob("*.bin")) < 1300:
            assert driver.poll() is None, f"over before {stage} was killed"
            assert time.monotonic() < deadline, f"{stage} did not begin"
            time.sleep(0.005)
        driver.send_signal(signal.SIGKILL)
    finally:
        driver.kill()
        driver.wait()
    assert not (folder / "stage.json").exists(), f"{stage} was over before the kill"
    return len(ScoreLog(Folder(str(folder))))


@pytest.mark.slow
def test_a_killed_selection_continues_exactly_and_scores_nothing_twice(tmp_path: Path) -> None:
    write_table(tmp_path)
    before = {stage: kill_in_the_middle(tmp_path, stage) for stage in ("select", "random")}
    said = cotray(*COMMAND, *QUICK, *LONG, "--out", "broken", cwd=tmp_path).stdout
    assert "select: done already, skipped" in said
    assert f"continuing: {before['random']} masks were scored before" in said
    cotray(*COMMAND, *QUICK, *LONG, "--out", "whole", cwd=tmp_path)
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    assert outcome(broken) == outcome(whole)
    for stage, known in before.items():
        assert 0 < known < scored(whole, stage)
        assert known + scored(broken, stage) == scored(whole, stage)
        assert len(ScoreLog(Folder(str(broken / stage)))) == scored(whole, stage)


# -- what goes wrong ----------------------------------------------------------------------------------------

WRONG = {
    "nothing": ((), "Name a table and its column of classes"),
    "no target": (("--features", "blood.csv"), "Name a table and its column of classes"),
    "no file": (("--features", "bloood.csv", "--target", "kind"), "There is no such table. [bloood.csv]"),
    "no column": ((*COMMAND[1:4], "kin"), "Did you mean 'kind'?"),
    "text": (COMMAND[1:], "column 'name'"),
    "a budget": ((*COMMAND[1:], "--drop", "name", "--budget", "ten"), "'620 evaluations' or '30 seconds'"),
    "an engine": ((*COMMAND[1:], "--engine", "kn"), "'knn'"),
    "a setting": ((*COMMAND[1:], "--set", "sca.agent=3"), "Did you mean 'agents'?"),
    "both": (("--run", "some", "--features", "blood.csv", "--seed", "1"), "--features, --seed"),
    "no run": (("--run", "some"), "There is no run here."),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_what_is_wrong_is_one_line_and_leaves_nothing(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args, words = WRONG[what]
    write_table(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["select", *args])
    err = capsys.readouterr().err
    assert left.value.code == 2
    assert words in err and err.startswith("cotray: ") and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["blood.csv"]


def test_another_table_in_the_same_folder_is_refused(done: Done, tmp_path: Path) -> None:
    write_table(tmp_path, rows=90)
    args = (*COMMAND, *QUICK, "--drop", "name", "--out", str(done.run))
    failed = cotray(*args, cwd=tmp_path, code=2)
    assert "from another table" in failed.stderr and "--out" in failed.stderr
    assert "selects from a table" in cotray("select", "--run", str(done.run), cwd=tmp_path, code=2).stderr


def test_help_teaches() -> None:
    text = " ".join(cotray("select", "--help", cwd=Path.cwd()).stdout.replace("│", " ").split())
    for words in (
        "Example: cotray select --features",
        "Default: sca.",
        "runs/select-",
        "--compare",
        "set aside",
    ):
        assert words in text
