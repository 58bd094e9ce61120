"""The smallest settings that still run every stage for real, and the command line as a subprocess."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

QUICK = (
    "dataset.phantom_subjects=24",
    "dataset.phantom_cells=4",
    "segment.image_size=128",
    "segment.embed_dim=32",
    "segment.depth=1",
    "segment.prompt_dim=32",
    "segment.cell_size=64",
    "segment.train.epochs=2",
    "gan.image_size=32",
    "gan.channels=32",
    "gan.train.epochs=2",
    "gan.use=always",
    "gan.grid_every=1",
    "backbone.name=cotconet",
    "backbone.image_size=64",
    "backbone.layers=1",
    "backbone.smod.filters=[8,8,16,16,16]",
    "backbone.train.epochs=3",
    "sca.agents=6",
    "sca.iterations=4",
    "abhc.steps=2",
    "hdlc.train.epochs=4",
    "evaluate.bootstrap=100",
    "evaluate.floor_trees=20",
    "compute.cpus_per_worker=1",
)


@dataclass(frozen=True)
class Finished:
    """A run made by the command line."""

    home: Path
    """Working folder; the run is ``home/runs/quick``."""
    output: str

    @property
    def run(self) -> Path:
        return self.home / "runs" / "quick"


def quick_sets(*more: str) -> list[str]:
    """QUICK (and ``more``, which win) as ``--set`` options."""
    return [word for setting in (*QUICK, *more) for word in ("--set", setting)]


def command(*args: str) -> list[str]:
    """The command line in this interpreter."""
    return [sys.executable, "-m", "cotray", *args]


def cotray(*args: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line; assert its exit code; return its output."""
    done = subprocess.run(
        command(*args), cwd=cwd, capture_output=True, text=True, env=environment(), timeout=600
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def environment() -> dict[str, str]:
    """This process' environment, without a Ray to join."""
    return {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
