"""SIGKILL of the driver, in stages one after the other: the same command goes on and ends the same."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from quick import Finished, command, cotray, environment, quick_sets
from test_pipeline import outcome

KILL_AFTER = {
    "ingest": 0.5,
    "segment": 3.0,
    "synthesize": 3.0,
    "train_backbone": 3.0,
    "extract": 0.5,
    "select": 0.2,
    "classify": 3.0,
    "evaluate": 0.5,
}
"""Stage -> seconds from its beginning to the kill: in the middle of its work."""


def kill_in(stage: str, home: Path) -> None:
    """Start the run and SIGKILL its driver soon after ``stage`` has begun its work."""
    args = command("run", "--run", "runs/quick", *quick_sets())
    driver = subprocess.Popen(
        args, cwd=home, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 300
        folder = home / "runs" / "quick" / stage
        while not (folder / "started.json").exists():
            assert driver.poll() is None, f"the run ended before {stage} began"
            assert time.monotonic() < deadline, f"{stage} did not begin"
            time.sleep(0.05)
        time.sleep(KILL_AFTER[stage])
        driver.send_signal(signal.SIGKILL)
    finally:
        driver.kill()
        driver.wait()
    assert not (folder / "stage.json").exists(), f"{stage} was over before the kill"


SHARE = ("segment", "extract", "select")
"""One stage of each kind: Ray Train, Ray Data, Ray tasks."""


@pytest.mark.slow
@pytest.mark.parametrize("stages", [SHARE, pytest.param(tuple(KILL_AFTER), marks=pytest.mark.long)])
def test_a_killed_run_continues_to_the_same_end(
    stages: tuple[str, ...], finished: Finished, tmp_path: Path
) -> None:
    for stage in stages:
        kill_in(stage, tmp_path)
    done = cotray("run", "--run", "runs/quick", *quick_sets(), cwd=tmp_path)
    assert "train_backbone: done already, skipped" in done.stdout
    assert outcome(tmp_path / "runs" / "quick") == outcome(finished.run)
