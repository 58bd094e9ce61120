"""`cotray tune` through the command line: what it leaves, what it goes on from, and that it ends."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from mlflow.entities import ViewType
from quick import Finished, command, cotray, environment

from cotray.cli import main
from cotray.config import load_config
from cotray.stages.tune_space import with_settings

SETS = (
    "sca.agents=4",
    "sca.iterations=4",
    "abhc.steps=2",
    "select.evaluator=serial",
    "tune.startup=2",
    "tune.grace=2",
    "tune.reduction=2",
)
TABLE = ("tune", "--features", "t.parquet", "--target", "ill", "--groups", "patient", "--out", "out")
TRIALS = 5


def write_table(folder: Path) -> None:
    """Four samples to a patient, three measures of twelve that tell, faintly."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(30), 4)
    measures = rng.normal(size=(120, 12)) + 0.8 * (patient % 2)[:, None] * (np.arange(12) < 3)
    frame = pd.DataFrame(measures, columns=[f"m{i}" for i in range(12)])
    frame.assign(ill=np.where(patient % 2, "yes", "no"), patient=patient).to_parquet(folder / "t.parquet")


def sets(*more: str) -> list[str]:
    return [word for setting in (*SETS, *more) for word in ("--set", setting)]


ONE_AT_A_TIME = (*TABLE, "--trials", str(TRIALS), "--concurrent", "1", *sets())


def trials(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((out / "trials").glob("*.json"))]


def tried(out: Path) -> list[tuple[Any, ...]]:
    """All of a trial but its clock and its MLflow run."""
    names = ("number", "params", "state", "curve", "figures")
    return [tuple(trial[name] for name in names) for trial in trials(out)]


@dataclass(frozen=True)
class Tuned:
    home: Path
    output: str

    @property
    def out(self) -> Path:
        return self.home / "out"

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.out / "summary.json").read_text()))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    home = tmp_path_factory.mktemp("tune")
    write_table(home)
    return Tuned(home, cotray(*ONE_AT_A_TIME, cwd=home).stdout)


def test_every_trial_is_kept_and_the_best_complete_one_is_named(tuned: Tuned) -> None:
    found = trials(tuned.out)
    assert [trial["number"] for trial in found] == list(range(TRIALS))
    assert {trial["state"] for trial in found} <= {"complete", "stopped"}
    assert found[0]["params"]["sca.a"] == 2.0 and found[0]["params"]["sca.agents"] == 4, "the settings given"
    for trial in found:
        steps = [step for step, _ in trial["curve"]]
        assert (
            steps == list(range(1, len(steps) + 1)) and trial["curve"][-1][1] == trial["figures"]["objective"]
        )
        assert len(steps) == 4 if trial["state"] == "complete" else len(steps) >= 2
    best = min(
        (trial for trial in found if trial["state"] == "complete"),
        key=lambda trial: (trial["figures"]["objective"], trial["number"]),
    )
    assert tuned.summary["best"]["number"] == best["number"]
    assert set(tuned.summary["importance"]) == set(best["params"])
    assert sum(tuned.summary["importance"].values()) == pytest.approx(1.0)


def test_it_is_said_what_came_of_it(tuned: Tuned) -> None:
    text = " ".join(tuned.output.split())
    assert "96 samples in 3 folds for the trials, 24 that none of them sees" in text
    assert f"tune {TRIALS}/{TRIALS} best" in text
    assert tuned.summary["verdict"] in text and "settings given" in text
    assert "Configuration for experiment" not in text, "Ray Tune keeps quiet"
    assert not (tuned.out / "ray").exists()


def test_the_report_shows_both_settings_on_groups_that_no_trial_saw(tuned: Tuned) -> None:
    page = (tuned.out / "report.html").read_text()
    assert "looks better than it is" in page and page.count("data:image/png;base64,") == 3
    held = tuned.summary["held_out"]
    assert (held["samples"], held["groups"]) == (24, 6)
    for side in ("given", "best"):
        assert 0 <= held[side]["error"] <= 1
        assert f"{held[side]['error']:.3f}" in page


def test_the_best_settings_are_a_config_file(tuned: Tuned) -> None:
    text = (tuned.out / "best.yaml").read_text()
    read = load_config(yaml_text=text)
    best = trials(tuned.out)[tuned.summary["best"]["number"]]
    assert read == with_settings(load_config(overrides=SETS[:4]), best["params"])
    args = ("select", "--features", "t.parquet", "--target", "ill", "--groups", "patient")
    done = cotray(*args, "--config", "out/best.yaml", "--out", "selected", cwd=tuned.home)
    assert "selected" in done.stdout
    assert load_config(yaml_text=(tuned.home / "selected" / "config.yaml").read_text()) == read


def test_mlflow_knows_the_tuning_and_every_trial_of_it(tuned: Tuned) -> None:
    before = mlflow.get_tracking_uri()
    client = mlflow.MlflowClient(f"sqlite:///{tuned.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("cotray")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    runs = [run for run in runs if run.data.tags["mlflow.runName"] == "out" or "trial" in run.info.run_name]
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {run.info.run_id: run for run in runs if run is not parent}
    assert parent.data.tags["best_trial"] == str(tuned.summary["best"]["number"])
    assert parent.data.metrics["holdout_best_error"] == tuned.summary["held_out"]["best"]["error"]
    names = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"best.yaml", "report.html", "summary.json"} <= names
    assert set(children) == {trial["mlflow_run_id"] for trial in trials(tuned.out)}
    for trial in trials(tuned.out):
        run = children[trial["mlflow_run_id"]]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == "FINISHED" and run.data.tags["state"] == trial["state"]
        assert run.data.params == {key: str(value) for key, value in trial["params"].items()}
        assert run.data.metrics["objective"] == pytest.approx(trial["figures"]["objective"])
        curve = {(row.step, row.value) for row in client.get_metric_history(run.info.run_id, "objective")}
        assert curve >= {(step, value) for step, value in trial["curve"]}
    assert mlflow.get_tracking_uri() == before


def test_the_same_command_repeats_nothing_and_more_trials_go_on(tuned: Tuned, tmp_path: Path) -> None:
    home = shutil.copytree(tuned.home, tmp_path / "copy")  # the other tests' tuning stays as it is
    out = home / "out"
    before = {path: path.stat().st_mtime_ns for path in (out / "trials").iterdir()}
    known = tried(out)
    done = cotray(*TABLE, "--trials", str(TRIALS + 1), "--concurrent", "1", *sets(), cwd=home)
    assert f"continuing: {TRIALS} trials are done, 0 begin again" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert tried(out)[:TRIALS] == known and len(tried(out)) == TRIALS + 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--seed", "1"), "a tuning with other"),
        (("--search", "sca.a=1..3"), "with other ranges"),
        (("--search", "sca.agent=1..3"), "Did you mean 'agents'?"),
        (("--search", "sca.agents=9..3"), "lower number first"),
        (("--search", "backbone.layers=1..3"), "A table's features are given"),
        (("--run", "runs/x"), "--run does not go with"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_tuned_is_said_in_one_line(
    more: tuple[str, ...],
    words: str,
    tuned: Tuned,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tuned.home)
    with pytest.raises(SystemExit) as left:
        main([*ONE_AT_A_TIME, *more])
    out, err = capsys.readouterr()
    assert left.value.code == 2
    assert words in err and "Traceback" not in out + err and err.count("\n") == 1


def test_there_must_be_something_to_tune_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["tune"])
    assert left.value.code == 2 and "There is nothing to tune on." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_tuning_goes_on_to_the_same_end(tuned: Tuned, tmp_path: Path) -> None:
    write_table(tmp_path)
    out = tmp_path / "out"
    driver = subprocess.Popen(
        command(*ONE_AT_A_TIME),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 300
        while not (out / "trials" / "0003.json").exists():
            assert driver.poll() is None, "the tuning ended before it was killed"
            assert time.monotonic() < deadline, "the fourth trial did not begin"
            time.sleep(0.02)
        driver.send_signal(signal.SIGKILL)
    finally:
        driver.kill()
        driver.wait()
    assert [trial["state"] == "running" for trial in trials(out)] == [False, False, False, True]
    done_before = tried(out)[:3]
    stamps = [(out / "trials" / f"000{n}.json").stat().st_mtime_ns for n in range(3)]
    done = cotray(*ONE_AT_A_TIME, cwd=tmp_path)
    assert "continuing: 3 trials are done, 1 begin again" in done.stdout
    assert [(out / "trials" / f"000{n}.json").stat().st_mtime_ns for n in range(3)] == stamps
    assert tried(out)[:3] == done_before
    assert tried(out) == tried(tuned.out), "sampler and scheduler went on as if nothing had happened"
    mine = json.loads((out / "summary.json").read_text())
    assert {name: mine[name] for name in ("given", "held_out", "importance", "verdict")} == {
        name: tuned.summary[name] for name in ("given", "held_out", "importance", "verdict")
    }


TWO_CPUS = """
import sys, ray
from cotray.config import load_config
from cotray.stages.base import Voice
from cotray.stages.tune import TuneRequest, run_tuning
from cotray.stages.tune_ground import TableSource
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
config = load_config(overrides=sys.argv[1:])
print(run_tuning(TuneRequest(TableSource("t.parquet", "ill", "patient"), config, "out")).states)
"""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_trials_side_by_side_do_not_wait_for_one_another_for_ever(workers: int, tmp_path: Path) -> None:
    """Two trials at a time on two CPUs, each scoring by itself or with workers of its own."""
    write_table(tmp_path)
    more = ("tracking.enabled=false", "tune.trials=4", "tune.concurrent=2", "tune.stop_early=false")
    args = [sys.executable, "-c", TWO_CPUS, *SETS, *more, f"tune.evaluators_per_trial={workers}"]
    done = subprocess.run(
        args, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.stdout.strip() == "4 run to the end", done.stderr[-2000:]


def test_more_workers_than_cpus_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path)
    args = [sys.executable, "-c", TWO_CPUS, *SETS, "tracking.enabled=false", "tune.evaluators_per_trial=3"]
    done = subprocess.run(
        args, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert "InvalidValueError: There are 2 CPUs for 3 workers." in done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_a_time_limit_ends_it_and_counts_no_trial_that_was_cut_off(tmp_path: Path) -> None:
    write_table(tmp_path)
    long = ("--trials", "3", "--concurrent", "1", *sets("sca.iterations=3000", "tune.holdout=0"))
    done = cotray(*TABLE, *long, "--budget-seconds", "6", cwd=tmp_path, code=2)
    assert "No trial was run to its end" in done.stderr and "The same command goes on" in done.stderr
    states = [trial["state"] for trial in trials(tmp_path / "out")]
    assert states in ([], ["running"]), "on a busy machine none had begun"


# -- on a run of the pipeline -------------------------------------------------------------------------------


def cells(run: Path, split: str) -> int:
    rows = pq.read_table(run / "extract" / "manifest.parquet").to_pylist()
    return sum(row["split"] == split and row["source"] == "real" for row in rows)


@pytest.mark.slow
@pytest.mark.long
def test_a_run_is_tuned_on_its_training_cells_and_judged_on_validation_cells(
    finished: Finished, tmp_path: Path
) -> None:
    args = ("--run", str(finished.run), "--out", "out", "--trials", "2", "--search", "sca.a=1..3")
    done = cotray("tune", *args, *sets("tracking.enabled=false"), cwd=tmp_path)
    train, val = cells(finished.run, "train"), cells(finished.run, "val")
    assert f"{train} samples in 3 folds for the trials, {val} that none of them sees" in done.stdout
    assert "the run's backbone was trained on all of its training cells" in done.stdout
    assert {"sca.a": 2.0} in [trial["params"] for trial in trials(tmp_path / "out")], "the settings given"
    best = load_config(yaml_text=(tmp_path / "out" / "best.yaml").read_text())
    made = load_config(yaml_text=(finished.run / "config.yaml").read_text())
    assert (best.backbone, best.hdlc) == (made.backbone, made.hdlc), "a run made with it keeps its stages"
    changed = cotray("tune", *args, "--set", "backbone.layers=2", cwd=tmp_path, code=2)
    assert "made with other settings: backbone" in changed.stderr


@pytest.mark.long
@pytest.mark.slow
def test_earlier_stages_are_run_for_each_trial_that_varies_them(finished: Finished, tmp_path: Path) -> None:
    args = ("--run", str(finished.run), "--out", "out", "--trials", "1", *sets("tracking.enabled=false"))
    done = cotray("tune", *args, "--search", "backbone.layers=2,3", "--search", "sca.a=1..3", cwd=tmp_path)
    assert "that judge every trial" in done.stdout
    (trial,) = trials(tmp_path / "out")
    assert trial["state"] == "complete" and trial["params"]["backbone.layers"] in (2, 3)
    (run,) = (tmp_path / "out" / "features").iterdir()
    made = load_config(yaml_text=(run / "config.yaml").read_text())
    assert made.backbone.layers == trial["params"]["backbone.layers"]
    theirs, ours = (np.load(where / "extract" / "features.npy") for where in (run, finished.run))
    assert theirs.shape == ours.shape and not np.allclose(theirs, ours)
    assert not (run / "segment").exists(), "of a trial's run the features are kept"
    best = load_config(yaml_text=(tmp_path / "out" / "best.yaml").read_text())
    assert best.backbone.layers == made.backbone.layers
