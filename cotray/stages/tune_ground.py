"""What trials are judged on, and what none of them sees: folds of a table, or of a pipeline run's cells.

::

    a table              groups set aside (tune.holdout) | the others in tune.outer_folds folds
    a pipeline run       its validation cells            | its training cells in tune.outer_folds folds
    ... and stages       half of its validation groups   | a single fold: training cells inside, the other
        before select                                      half of its validation groups outside

The last is so because a trial trains a backbone of its own on all training cells: only cells that it was
not trained on can judge it. The test split of a run takes no part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cotray.config import Config
from cotray.errors import TooFewGroupsError
from cotray.learning import derive_seed
from cotray.runs import Run
from cotray.selection.check import check_table
from cotray.selection.outer import set_aside
from cotray.selection.problem import Table, inner_folds
from cotray.stages.base import StageRun
from cotray.stages.cells import column, labels
from cotray.stages.extract import load_features, select_rows
from cotray.stages.table_file import read_table, take_apart

SHARED_BACKBONE = (
    "the run's backbone was trained on all of its training cells, those of every outer fold included: "
    "errors there compare settings, but say little about new subjects"
)


@dataclass(frozen=True)
class Fold:
    """Selected on one side, judged on the other; no group is on both."""

    inside: Table
    outside: Table


@dataclass(frozen=True)
class Ground:
    """Everything that trials and the final judgement need."""

    folds: tuple[Fold, ...]
    final: Fold | None
    """Inside: what trials saw; outside: what none did. None = there is no hold-out."""
    digest: str
    """Names the data and how it is parted."""
    source: str
    """Where it is from, for people."""
    counts: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableSource:
    """A table of one's own."""

    features: str
    target: str
    groups: str | None = None
    drop: Sequence[str] = ()


def ground_of_table(source: TableSource, config: Config) -> Ground:
    """Set groups aside, fold the others. Raises DataError and its kind, each with a cure."""
    file = read_table(source.features)
    columns = take_apart(file, source.target, source.groups, source.drop)
    checked = check_table(columns.features, columns.target, columns.groups, None, config)
    whole, share = checked.table, config.tune.holdout
    out_N, few = set_aside(whole.label_N, whole.group_N, share, derive_seed(config.seed, 31))
    few = few if share else ["no hold-out (tune.holdout=0): no figure of this tuning is an honest one"]
    inside, outside = whole.rows(~out_N), whole.rows(out_N)
    folds = fold_table(inside, config)
    counts = {
        "rows": len(file.rows),
        "dropped": columns.dropped,
        "features": len(checked.names),
        "inside": len(inside.label_N),
        "outside": len(outside.label_N),
        "groups": len(np.unique(whole.group_N)),
    }
    about = (file.digest, source.target, source.groups, sorted(set(source.drop)))
    final = Fold(inside, outside) if len(outside.label_N) else None
    notes = (*columns.notes, *few, *checked.notes)
    return Ground(folds, final, digest(about), file.uri, counts, notes)


def ground_of_run(run: Run, config: Config) -> Ground:
    """Training cells in folds; validation cells judge at the end. Raises MissingStageError, DataError."""
    train, val = cells_of(run, "train"), cells_of(run, "val")
    counts = _counts(train, val)
    final = Fold(train, val) if len(val.label_N) else None
    about = (run.need("extract").fingerprint, "folds of training cells")
    folds = fold_table(train, config)
    return Ground(folds, final, digest(about), run.folder.uri, counts, (SHARED_BACKBONE,))


def ground_of_stages(run: Run, held: frozenset[str], print_: str = "") -> Ground:
    """For trials that run earlier stages too; ``held``: validation groups that no trial sees."""
    train, val = cells_of(run, "train"), cells_of(run, "val")
    held_N = np.isin(val.group_N, list(held))
    judges, last = val.rows(~held_N), val.rows(held_N)
    final = Fold(train, last) if held else None
    notes = () if held else ("too few validation groups to set some aside: there is no hold-out",)
    about = (print_, sorted(held), "validation cells")
    return Ground((Fold(train, judges),), final, digest(about), run.folder.uri, _counts(train, judges), notes)


def held_groups(run: Run, config: Config) -> frozenset[str]:
    """Half of a run's validation groups, of both classes; none where there are too few or
    `tune.holdout` is 0. Raises TooFewGroupsError where the run has no validation cells."""
    val = cells_of(run, "val")
    if len(np.unique(val.label_N)) < 2:
        raise TooFewGroupsError(
            "The run has no validation cells of both classes: nothing can judge a backbone.",
            where=run.folder.uri,
            cure="Tune the selection's own settings, or begin a run with a larger split.val_fraction.",
        )
    if not config.tune.holdout:
        return frozenset()
    try:
        half_N = inner_folds(val.label_N.astype(np.int64), val.group_N, 2, derive_seed(config.seed, 31)) == 0
    except TooFewGroupsError:
        return frozenset()
    return frozenset(map(str, val.group_N[half_N]))


def cells_of(run: Run, split: str) -> Table:
    """Real, labelled cells of one split with the run's features. Raises MissingStageError."""
    rows, feat_ND = load_features(StageRun("tune", run, ""))
    keep = select_rows(rows, (split,), "real")
    return Table(feat_ND[keep], labels(rows)[keep], column(rows, "group")[keep])


def fold_table(table: Table, config: Config) -> tuple[Fold, ...]:
    """`tune.outer_folds` group-disjoint folds. Raises TooFewGroupsError where a search lacks groups."""
    _, code = np.unique(table.label_N, return_inverse=True)
    seed = derive_seed(config.seed, 32)
    try:
        fold_N = inner_folds(code.astype(np.int64), table.group_N, config.tune.outer_folds, seed)
        folds = tuple(
            Fold(table.rows(fold_N != fold), table.rows(fold_N == fold)) for fold in range(fold_N.max() + 1)
        )
        for fold in folds:
            check_table(fold.inside.feat_ND, fold.inside.label_N, fold.inside.group_N, None, config)
    except TooFewGroupsError as error:
        raise TooFewGroupsError(
            f"Too few groups to tune on: {error.what}",
            where=error.where,
            cure="Each class needs three groups besides the hold-out; give more groups, or a smaller "
            "tune.holdout.",
        ) from None
    return folds


def digest(about: object) -> str:
    """sha256 of a plain description."""
    return hashlib.sha256(repr(about).encode()).hexdigest()


def _counts(train: Table, outside: Table) -> dict[str, int]:
    groups = len(np.unique(np.concatenate([train.group_N, outside.group_N])))
    counts = {"features": train.feat_ND.shape[1], "groups": groups}
    return counts | {"inside": len(train.label_N), "outside": len(outside.label_N)}
