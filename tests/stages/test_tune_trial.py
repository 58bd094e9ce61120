from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cotray.config import Config, load_config
from cotray.errors import TooFewGroupsError
from cotray.learning import derive_seed
from cotray.selection.judge import judge
from cotray.selection.problem import Table
from cotray.selection.select import select_features
from cotray.stages.tune_ground import Fold, TableSource, fold_table, ground_of_table
from cotray.stages.tune_trial import PacedSelection, failed_row, trial_rows

SMALL = ("sca.agents=4", "sca.iterations=3", "abhc.steps=2", "fitness.k=3")


def small(*more: str) -> Config:
    return load_config(overrides=[*SMALL, *more])


def table(seed: int = 0, groups: int = 30) -> Table:
    """Four samples to a group, a class to a group, three features of twelve that tell."""
    rng = np.random.default_rng(seed)
    group_N = np.repeat(np.arange(groups), 4)
    label_N = np.array(["no", "yes"])[group_N % 2]
    feat_ND = rng.normal(size=(len(group_N), 12)) + (label_N == "yes")[:, None] * (np.arange(12) < 3)
    return Table(feat_ND.astype(np.float32), label_N, group_N)


def folds(config: Config) -> tuple[Fold, ...]:
    return fold_table(table(), config)


# -- ground -------------------------------------------------------------------------------------------------


def write(folder: Path, found: Table) -> TableSource:
    frame = pd.DataFrame(found.feat_ND, columns=[f"m{i}" for i in range(found.feat_ND.shape[1])])
    frame = frame.assign(ill=found.label_N, patient=found.group_N, note="x")
    frame.to_csv(folder / "t.csv", index=False)
    return TableSource(str(folder / "t.csv"), "ill", "patient", ("note",))


@pytest.mark.parametrize("seed", range(4))
def test_no_group_is_on_two_sides_and_none_is_lost(tmp_path: Path, seed: int) -> None:
    ground = ground_of_table(write(tmp_path, table()), small(f"seed={seed}"))
    assert ground.final is not None and len(ground.folds) == 3
    held, tried = set(ground.final.outside.group_N), set(ground.final.inside.group_N)
    assert held | tried == set(range(30)) and not held & tried
    assert 3 <= len(held) <= 9
    for fold in ground.folds:
        inside, outside = set(fold.inside.group_N), set(fold.outside.group_N)
        assert inside | outside == tried and not inside & outside
    assert sorted(g for fold in ground.folds for g in set(fold.outside.group_N)) == sorted(tried)
    assert ground.counts["inside"] + ground.counts["outside"] == ground.counts["rows"] == 120


def test_the_ground_is_named_by_its_data(tmp_path: Path) -> None:
    source = write(tmp_path, table())
    first = ground_of_table(source, small())
    assert ground_of_table(source, small()).digest == first.digest
    assert ground_of_table(write(tmp_path, table(seed=1)), small()).digest != first.digest


def test_without_a_holdout_it_is_said(tmp_path: Path) -> None:
    ground = ground_of_table(write(tmp_path, table()), small("tune.holdout=0"))
    assert ground.final is None
    assert any("no figure of this tuning is an honest one" in note for note in ground.notes)


def test_too_few_groups_are_refused_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(TooFewGroupsError, match=r"three groups besides the hold-out"):
        ground_of_table(write(tmp_path, table(groups=4)), small("tune.holdout=0"))
    assert ground_of_table(write(tmp_path, table(groups=6)), small("tune.holdout=0")).folds


# -- trials -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("select.max_features=6",), ("select.rule=one_se",)], ids=str)
def test_a_trial_is_what_selections_on_its_folds_are_worth(more: tuple[str, ...]) -> None:
    config = small(*more)
    *rows, last = trial_rows(config, config, folds(config))
    assert [row["iteration"] for row in rows] == [1, 2, 3] and last["iteration"] == 3
    assert [row["final"] for row in [*rows, last]] == [False, False, False, True]
    errors, sizes, evaluations = [], [], 0
    for n, fold in enumerate(folds(config)):
        seed = derive_seed(config.seed, 33, n)
        found = select_features(fold.inside, config, seed)
        verdict = judge(found.mask_D, found.score_D, fold.inside, fold.outside, config.fitness, seed)
        errors.append(verdict.outer_error)
        sizes.append(found.mask_D.sum())
        evaluations += int(found.result.history[-1]["evaluations"])
    assert last["error"] == last["objective"] == pytest.approx(np.mean(errors))
    assert last["spread"] == pytest.approx(np.std(errors))
    assert last["features"] == pytest.approx(np.mean(sizes)) and last["evaluations"] == evaluations


def test_every_row_is_about_the_best_masks_so_far() -> None:
    """The search's first iteration is that of a search of one iteration with the same schedule."""
    config = small("abhc.when=off", "sca.moves=all")
    first, *_ = trial_rows(config, config, folds(config))
    errors = []
    for n, fold in enumerate(folds(config)):
        seed = derive_seed(config.seed, 33, n)
        alone = select_features(
            fold.inside, small("abhc.when=off", "sca.moves=all", "sca.iterations=1"), seed
        )
        found = judge(alone.mask_D, alone.score_D, fold.inside, fold.outside, config.fitness, seed)
        errors.append(found.outer_error)
    assert first["error"] == pytest.approx(np.mean(errors))


def test_all_trials_are_judged_by_the_classifier_of_the_settings_given() -> None:
    given = small()
    trial = small("fitness.k=7", "fitness.metric=plain")
    *_, last = trial_rows(trial, given, folds(given))
    errors = []
    for n, fold in enumerate(folds(given)):
        seed = derive_seed(given.seed, 33, n)
        found = select_features(fold.inside, trial, seed)
        verdict = judge(found.mask_D, found.score_D, fold.inside, fold.outside, given.fitness, seed)
        errors.append(verdict.outer_error)
    assert last["error"] == pytest.approx(np.mean(errors))


def test_size_counts_if_it_is_asked_for() -> None:
    config = small("tune.size_weight=0.5")
    *_, last = trial_rows(config, config, folds(config))
    assert last["objective"] == pytest.approx(last["error"] + 0.5 * last["features"] / 12)


@pytest.mark.parametrize("budget", ["10 evaluations", "3 evaluations"])
def test_a_budget_of_evaluations_holds_for_each_fold(budget: str) -> None:
    config = small(f"select.budget={budget}")
    *_, last = trial_rows(config, config, folds(config))
    assert last["evaluations"] == 3 * int(budget.split()[0])
    assert last["final"] and last["iteration"] >= 1


def test_a_trial_that_is_given_up_leaves_nothing_behind() -> None:
    before = threading.active_count()
    rows = trial_rows(small("sca.iterations=1000"), small(), folds(small()))
    next(rows)
    assert threading.active_count() == before + 3
    rows.close()
    assert threading.active_count() == before


def test_what_a_search_raises_is_raised_by_its_step() -> None:
    found = table()
    alone = PacedSelection(found, small("fitness.scheme=folds"), 0)
    alone.table = found.rows(found.label_N == "yes")
    with pytest.raises(ValueError, match="two classes"):
        alone.step()
    alone.close()


def test_settings_that_cannot_be_run_are_the_worst() -> None:
    row = failed_row(TooFewGroupsError("no groups"))
    assert (row["objective"], row["final"], row["failed"]) == (1.0, True, "no groups")
