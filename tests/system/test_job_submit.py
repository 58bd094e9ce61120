"""`ray job submit` on a real head: the doors in jobs/, their logs and their exit code."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from quick import environment, quick_sets

REPO = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A head of our own, with its dashboard; the address jobs are submitted to."""
    dashboard = free_port()
    args = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2"]
    args += [f"--port={free_port()}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
    args += [f"--dashboard-agent-listen-port={free_port()}"]  # another Ray on this machine has the default
    args += [f"--temp-dir={tmp_path_factory.mktemp('r')}"]
    log = (tmp_path_factory.mktemp("head") / "log").open("w")
    process = subprocess.Popen(args, stdout=log, stderr=log, env=environment(), start_new_session=True)
    yield f"http://127.0.0.1:{dashboard}"
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    log.close()


def submit(address: str, *args: str) -> tuple[str, int | None, str]:
    """(status, exit code, logs) of a job, waited for."""
    from ray.job_submission import JobStatus, JobSubmissionClient

    client = connect(address)
    assert isinstance(client, JobSubmissionClient)
    runtime = yaml.safe_load((REPO / "jobs" / "runtime_env.yaml").read_text()) | {"working_dir": str(REPO)}
    words = " ".join(f"'{word}'" for word in (sys.executable, "-m", *args))
    job = client.submit_job(entrypoint=words, runtime_env=runtime)
    deadline = time.monotonic() + 240
    while client.get_job_status(job) not in (JobStatus.SUCCEEDED, JobStatus.FAILED):
        assert time.monotonic() < deadline, client.get_job_logs(job)
        time.sleep(0.5)
    return (
        str(client.get_job_status(job)),
        client.get_job_info(job).driver_exit_code,
        client.get_job_logs(job),
    )


def connect(address: str) -> object:
    from ray.job_submission import JobSubmissionClient

    for _ in range(120):
        try:
            return JobSubmissionClient(address)
        except (ConnectionError, RuntimeError):
            time.sleep(0.5)
    raise AssertionError("the head's dashboard did not come up")


@pytest.mark.slow
def test_a_submitted_job_runs_and_says_so(head: str, tmp_path: Path) -> None:
    args = ("--run", str(tmp_path / "run"), *quick_sets("tracking.enabled=false"))
    status, code, logs = submit(head, "jobs.ingest", *args)
    assert (status, code) == ("SUCCEEDED", 0), logs
    assert "96 in = 96 used + 0 quarantined" in logs
    assert (tmp_path / "run" / "ingest" / "stage.json").exists()
    status, code, logs = submit(head, "jobs.pipeline", *args, "--until", "segment")
    assert (status, code) == ("SUCCEEDED", 0), logs
    assert "ingest: done already, skipped" in logs
    assert (tmp_path / "run" / "segment" / "stage.json").exists()


@pytest.mark.slow
def test_a_failed_job_keeps_its_exit_code_and_its_one_line(head: str, tmp_path: Path) -> None:
    status, code, logs = submit(head, "jobs.segment", "--run", str(tmp_path))
    assert (status, code) == ("FAILED", 2)
    assert "There is no run here" in logs
    assert "Traceback" not in logs


@pytest.mark.slow
@pytest.mark.long
def test_anyones_table_is_selected_from_and_tuned_for_by_jobs(head: str, tmp_path: Path) -> None:
    patient = np.repeat(np.arange(24), 3)
    feat = np.random.default_rng(0).normal(size=(72, 10)) + (patient % 2)[:, None] * (np.arange(10) < 2)
    frame = pd.DataFrame(feat, columns=[f"f{i}" for i in range(10)])
    frame.assign(ill=patient % 2, patient=patient).to_parquet(tmp_path / "t.parquet")
    table = ("--features", str(tmp_path / "t.parquet"), "--target", "ill", "--groups", "patient")
    small = ("--set", "sca.agents=4", "--set", "sca.iterations=3", "--set", "abhc.steps=2")
    where = ("--set", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db")
    status, code, logs = submit(head, "jobs.select", *table, *small, *where, "--out", str(tmp_path / "s"))
    assert (status, code) == ("SUCCEEDED", 0), logs
    assert set((tmp_path / "s" / "select" / "selected.txt").read_text().split()) & {"f0", "f1"}
    tuned = ("--out", str(tmp_path / "tuned"), "--trials", "2", "--set", "tune.startup=1")
    status, code, logs = submit(head, "jobs.tune", *table, *small, *where, *tuned)
    assert (status, code) == ("SUCCEEDED", 0), logs
    assert (tmp_path / "tuned" / "best.yaml").exists()
    assert len(list((tmp_path / "tuned" / "trials").glob("*.json"))) == 2
