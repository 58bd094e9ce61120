"""Select: SCA + AbetaHC over a run's features, judged by validation cells or by training cells; resumable."""

from __future__ import annotations

import numpy as np

from cotray.config import Config
from cotray.learning import derive_seed
from cotray.runs import StageResult
from cotray.selection.problem import Table, ask
from cotray.stages.base import Stage, StageRun
from cotray.stages.cells import column, labels
from cotray.stages.extract import load_features, select_rows
from cotray.stages.selecting import select_table


def run(config: Config, at: StageRun) -> StageResult:
    """Search on real cells: what training cells teach is asked of validation cells, which the backbone has
    not learned by heart (`select.ask`); or training cells judge in turn and validation cells tell the gap."""
    rows, feat = load_features(at)
    label, group = labels(rows), column(rows, "group")
    sides = [
        Table(feat[keep], label[keep], group[keep])
        for keep in (select_rows(rows, (split,), "real") for split in ("train", "val"))
    ]
    names = np.array([f"f{i}" for i in range(feat.shape[1])])
    seed = derive_seed(config.seed, 20)
    if config.select.ask == "training":
        return select_table(sides[0], sides[1], names, config, seed, at)
    absent = np.setdiff1d(sides[0].label_N, sides[1].label_N)
    if len(absent):
        at.say(f"no validation cell is of class {absent[0]}: training cells judge the masks")
        return select_table(sides[0], sides[1], names, config, seed, at)
    return select_table(ask(*sides), None, names, config, seed, at)


STAGE = Stage(
    name="select",
    summary="sine-cosine search with adaptive beta-hill climbing over features",
    version=2,
    sections=("sca", "abhc", "fitness", "select"),
    needs=("extract",),
    run=run,
)
