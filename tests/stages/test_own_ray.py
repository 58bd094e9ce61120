"""A Ray that cotray starts for itself runs a task of parts on every core, and no more than that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PARTS = 24
SCRIPT = f"""
import json, sys
import spans
from cotray.config import ComputeConfig
from cotray.runs import Run
from cotray.stages.base import StageRun
from cotray.stages.cluster import connect, cpus
from cotray.stages.parts import Plan, run_parts
from cotray.storage import Folder

connect()
out = Folder(sys.argv[1])
plan = Plan("spans", spans.spans, [[i] for i in range({PARTS})], out)
run_parts(plan, ComputeConfig(), StageRun("toy", Run(sys.argv[1]), "print"))
rows = [out.read_parquet(f"part-{{i:05d}}.parquet").to_pylist()[0] for i in range({PARTS})]
print(json.dumps({{"cpus": cpus(), "rows": rows}}))
"""


@pytest.mark.slow
def test_own_ray_keeps_every_core_busy_and_none_twice(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"RAY_ADDRESS": "local", "PYTHONPATH": paths}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert [row["item"] for row in told["rows"]] == list(range(PARTS))
    at_once = [
        sum(one["begun"] <= row["begun"] < one["ended"] for one in told["rows"]) for row in told["rows"]
    ]
    assert max(at_once) == min(told["cpus"], PARTS)
