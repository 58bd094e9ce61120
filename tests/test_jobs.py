from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cotray.cli import STAGE_SUMMARIES

JOBS = Path(__file__).resolve().parents[1] / "jobs"
COMMANDS = {"pipeline": "run", "tune": "tune"} | {name: name.replace("_", "-") for name in STAGE_SUMMARIES}


def test_every_stage_and_the_tuner_has_a_door_and_there_is_no_other() -> None:
    from cotray.stages.pipeline import STAGES

    doors = {path.stem for path in JOBS.glob("*.py")} - {"__init__"}
    assert doors == {"pipeline", "tune", *STAGES}


@pytest.mark.parametrize("door", COMMANDS)
def test_a_door_leads_to_its_command(
    door: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{door}.py", "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(JOBS / f"{door}.py"), run_name="__main__")
    assert stopped.value.code == 0
    usage = capsys.readouterr().out.split("[OPTIONS]")[0]
    assert usage.split()[-1] == COMMANDS[door]


def test_all_doors_are_alike() -> None:
    first = (JOBS / "ingest.py").read_text()
    for door, command in COMMANDS.items():
        expected = first.replace("jobs.ingest", f"jobs.{door}").replace("cotray ingest", f"cotray {command}")
        expected = expected.replace('main(["ingest"', f'main(["{command}"')
        assert (JOBS / f"{door}.py").read_text() == expected, f"{door}.py differs from ingest.py"


def test_a_door_is_a_module_to_run_and_passes_options_and_exit_codes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.segment", "--run", str(tmp_path / "nothing")]
    done = subprocess.run(command, cwd=JOBS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "There is no run here" in done.stderr
    assert "Traceback" not in done.stderr


def test_importing_a_door_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert "main" in runpy.run_path(str(JOBS / "pipeline.py"), run_name="jobs.pipeline")
    assert capsys.readouterr().out == ""


def test_the_runtime_environment_is_one_ray_accepts() -> None:
    from ray.runtime_env import RuntimeEnv

    settings = yaml.safe_load((JOBS / "runtime_env.yaml").read_text())
    parsed = RuntimeEnv(**settings)
    assert parsed["excludes"] == [".git/", ".venv/", "runs/", "mlflow.db"]
    assert parsed.env_vars() == {"MLFLOW_DISABLE_TELEMETRY": "true", "RAY_USAGE_STATS_ENABLED": "0"}
