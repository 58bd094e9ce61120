"""Select: SCA + AbetaHC over features of a run's training cells; resumable; judged on validation cells."""

from __future__ import annotations

import numpy as np

from cotray.config import Config
from cotray.learning import derive_seed
from cotray.runs import StageResult
from cotray.selection.select import Table
from cotray.stages.base import Stage, StageRun
from cotray.stages.cells import column, labels
from cotray.stages.extract import load_features, select_rows
from cotray.stages.selecting import select_table


def run(config: Config, at: StageRun) -> StageResult:
    """Search on real training cells alone; validation cells, never seen by it, tell the gap."""
    rows, feat = load_features(at)
    label, group = labels(rows), column(rows, "group")
    sides = [
        Table(feat[keep], label[keep], group[keep])
        for keep in (select_rows(rows, (split,), "real") for split in ("train", "val"))
    ]
    names = np.array([f"f{i}" for i in range(feat.shape[1])])
    return select_table(sides[0], sides[1], names, config, derive_seed(config.seed, 20), at)


STAGE = Stage(
    name="select",
    summary="sine-cosine search with adaptive beta-hill climbing over features",
    version=2,
    sections=("sca", "abhc", "fitness", "select"),
    needs=("extract",),
    run=run,
)
