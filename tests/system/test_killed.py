"""SIGKILL of the driver, once in every trained stage: the same command goes on and ends the same."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Finished
from quick import command, cotray, environment, quick_sets
from test_pipeline import outcome

KILL_IN = ("segment", "train_backbone", "select", "classify")


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
        time.sleep(0.2 if stage == "select" else 3.0)
        driver.send_signal(signal.SIGKILL)
    finally:
        driver.kill()
        driver.wait()
    assert not (folder / "stage.json").exists(), f"{stage} was over before the kill"


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_end(finished: Finished, tmp_path: Path) -> None:
    for stage in KILL_IN:
        kill_in(stage, tmp_path)
    done = cotray("run", "--run", "runs/quick", *quick_sets(), cwd=tmp_path)
    assert "train_backbone: done already, skipped" in done.stdout
    assert outcome(tmp_path / "runs" / "quick") == outcome(finished.run)
