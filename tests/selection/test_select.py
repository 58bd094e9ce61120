"""A whole selection: that hooks change nothing, and that what is reported is what was scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from planted import DIM, GOOD, Values, table

from cotray.config import Config, load_config
from cotray.errors import ClassError, FeatureError, InvalidValueError, TooFewGroupsError
from cotray.selection.choose import consensus_candidates, halves
from cotray.selection.drive import Memo
from cotray.selection.engines import make_fitness
from cotray.selection.fitness import Fitness
from cotray.selection.problem import Table, ask, make_problem
from cotray.selection.search import Search
from cotray.selection.select import (
    Hooks,
    MemberJob,
    Selection,
    candidate_pool,
    halved,
    member,
    select_features,
)
from cotray.selection.transfer import Masks

WHOLE = table()


def config(
    fitness: dict[str, Any] | None = None, abhc: dict[str, Any] | None = None, **select: Any
) -> Config:
    return Config.model_validate(
        {
            "sca": {"agents": 6, "iterations": 4},
            "abhc": {"steps": 3} | (abhc or {}),
            "fitness": fitness or {},
            "select": select,
        }
    )


def engine(whole: Table, cfg: Config, pool: Any, seed: int = 0) -> Fitness:
    problem = make_problem(whole.feat_ND, whole.label_N, whole.group_N, cfg.fitness, seed)
    return make_fitness(problem.only(pool), cfg.fitness)


def assert_same(one: Selection, other: Selection) -> None:
    np.testing.assert_array_equal(one.mask_D, other.mask_D)
    assert one.fitness == other.fitness
    assert one.result.history == other.result.history
    np.testing.assert_array_equal(one.member_MD, other.member_MD)
    np.testing.assert_array_equal(one.score_D, other.score_D)


# -- what is reported -------------------------------------------------------------------------------------

RULES: list[dict[str, Any]] = [
    {},
    {"rule": "one_se"},
    {"rule": "one_se", "fitness": {"scheme": "folds", "repeats": 3}},
    {"rule": "consensus", "members": 4},
    {"rule": "consensus"},
    {"max_features": 12},
    {"max_features": 12, "rule": "consensus", "members": 3},
    {"optimizer": "ga", "islands": 2, "budget": "77 evaluations"},
    {"fitness": {"scheme": "holdout", "metric": "plain", "soft": 0.0}, "rule": "one_se"},
]


@pytest.mark.parametrize("settings", RULES)
def test_the_mask_reported_is_worth_what_is_said(settings: dict[str, Any]) -> None:
    cfg = config(**settings)
    found = select_features(WHOLE, cfg, 0)
    assert found.mask_D.shape == (DIM,) and found.mask_D.any()
    assert not np.delete(found.mask_D, found.pool).any()
    assert engine(WHOLE, cfg, found.pool)(found.mask_D[found.pool][None])[0] == found.fitness
    assert len(found.pool) == cfg.select.max_features or len(found.pool) == DIM
    assert found.mask_D[:GOOD].mean() > 2 * found.mask_D[GOOD:].mean()


def test_the_rule_best_reports_the_searchs_own() -> None:
    found = select_features(WHOLE, config(), 0)
    np.testing.assert_array_equal(found.mask_D, found.result.mask)
    assert found.fitness == found.result.fitness == found.result.history[-1]["best_fitness"]


def test_same_seed_same_selection_whatever_the_labels_are_called() -> None:
    one, again, other = (select_features(WHOLE, config(), seed) for seed in (3, 3, 4))
    assert_same(one, again)
    assert one.result.history != other.result.history
    named = Table(WHOLE.feat_ND, np.array(["blast", "normal"])[WHOLE.label_N], WHOLE.group_N)
    assert_same(one, select_features(named, config(), 3))


def test_a_budget_of_evaluations_is_kept() -> None:
    told: list[int] = []
    hooks = Hooks(on_scored=lambda masks, values: told.append(len(masks)))
    found = select_features(WHOLE, config(budget="50 evaluations"), 0, hooks)
    assert found.result.history[-1]["evaluations"] == 50
    assert sum(told) == found.scored <= 50


# -- which features take part -----------------------------------------------------------------------------


def test_the_pool_is_the_best_scores_without_constants() -> None:
    score = np.array([5.0, 1, 9, 9, 2, 7])
    varies = np.array([True, True, False, True, True, True])
    assert candidate_pool(score, None, varies).tolist() == [0, 1, 3, 4, 5]
    assert candidate_pool(score, 3, varies).tolist() == [0, 3, 5]
    assert candidate_pool(score, 99, varies).tolist() == [0, 1, 3, 4, 5]


def test_a_pool_of_one() -> None:
    found = select_features(WHOLE, config(max_features=1), 0)
    assert found.mask_D.sum() == 1 and found.mask_D[np.argmax(found.score_D)]


def test_constants_are_never_selected() -> None:
    feat = WHOLE.feat_ND.copy()
    feat[:, [0, 7]] = 3.25
    found = select_features(Table(feat, WHOLE.label_N, WHOLE.group_N), config(), 0)
    assert not found.mask_D[[0, 7]].any()
    assert set(range(DIM)) - set(found.pool.tolist()) == {0, 7}


def test_where_a_feature_stands_changes_nothing_but_its_place() -> None:
    """The pool maps masks back to the table's own columns."""
    padded = np.concatenate([np.zeros((120, 3), np.float32), WHOLE.feat_ND], axis=1)
    cfg = config(scores="relief")
    found = select_features(Table(padded, WHOLE.label_N, WHOLE.group_N), cfg, 0)
    plain = select_features(WHOLE, cfg, 0)
    np.testing.assert_array_equal(found.mask_D, np.r_[[False] * 3, plain.mask_D])
    assert found.fitness == plain.fitness


# -- hooks ------------------------------------------------------------------------------------------------


def test_hooks_are_told_everything() -> None:
    rows: list[dict[str, float]] = []
    scored: dict[bytes, float] = {}

    def on_iteration(search: Search, memo: Memo) -> None:
        rows.append(dict(search.history[-1]))
        assert memo.scored == len(scored)

    def on_scored(masks: Masks, values: Values) -> None:
        for mask, value in zip(masks, values, strict=True):
            assert mask.tobytes() not in scored
            scored[mask.tobytes()] = float(value)

    found = select_features(WHOLE, config(), 0, Hooks(on_iteration=on_iteration, on_scored=on_scored))
    assert rows == found.result.history
    assert found.scored == len(scored)
    assert found.fitness == min(scored.values()) == scored[found.mask_D.tobytes()]
    assert_same(found, select_features(WHOLE, config(), 0))


def one_by_one(fitness: Fitness) -> Any:
    """An evaluator that answers mask by mask, last one first, and leaves when it should."""

    @contextmanager
    def use() -> Iterator[Callable[[Masks], Values]]:
        def evaluate(mask_PD: Masks) -> Values:
            assert not left
            return np.concatenate([fitness(mask[None]) for mask in mask_PD[::-1]])[::-1]

        yield evaluate
        left.append(True)

    left: list[bool] = []
    return use()


@pytest.mark.parametrize(
    "settings", [{}, {"rule": "consensus", "members": 3}, {"optimizer": "pso", "islands": 2}]
)
def test_who_evaluates_changes_nothing(settings: dict[str, Any]) -> None:
    def backwards(jobs: Sequence[MemberJob]) -> list[Masks]:
        return [member(*job) for job in jobs[::-1]][::-1]

    hooks = Hooks(evaluator=one_by_one, run_all=backwards)
    cfg = config(**settings)
    assert_same(select_features(WHOLE, cfg, 1, hooks), select_features(WHOLE, cfg, 1))


@pytest.mark.parametrize("settings", RULES)
@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_a_killed_selection_repeats_from_what_was_scored(settings: dict[str, Any], kept: float) -> None:
    batches: list[tuple[Masks, Values]] = []
    cfg = config(**settings)
    whole = select_features(WHOLE, cfg, 2, Hooks(on_scored=lambda m, v: batches.append((m.copy(), v.copy()))))
    known = batches[: int(kept * len(batches))]

    def recall(memo: Memo) -> None:
        for masks, values in known:
            memo.learn(masks, values)

    again = select_features(WHOLE, cfg, 2, Hooks(recall=recall))
    assert_same(again, whole)
    assert again.scored + sum(len(values) for _, values in known) == whole.scored


# -- rules ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["leave_out", "folds", "holdout"])
@pytest.mark.parametrize("seed", [0, 6, 9, 36])
def test_one_se_is_smallest_within_the_error_of_those_asked(scheme: str, seed: int) -> None:
    """Of the 200 fittest masks seen. The standard error is that of the answers given, not of all samples."""
    seen: dict[bytes, tuple[Masks, float]] = {}

    def on_scored(masks: Masks, values: Values) -> None:
        seen.update({m.tobytes(): (m.copy(), float(v)) for m, v in zip(masks, values, strict=True)})

    cfg = config({"scheme": scheme, "soft": 0.0, "metric": "plain"}, rule="one_se")
    found = select_features(WHOLE, cfg, seed, Hooks(on_scored=on_scored))
    fitness = engine(WHOLE, cfg, found.pool, seed)
    ranked = sorted(seen.values(), key=lambda one: one[1])[:200]
    error = [float(fitness.errors(mask[None]).mean()) for mask, _ in ranked]
    problem = make_problem(WHOLE.feat_ND, WHOLE.label_N, WHOLE.group_N, cfg.fitness, seed)
    asked = int((problem.fold_RN[0] >= 0).sum())
    assert (asked < 120) == (scheme == "holdout")
    limit = error[0] + np.sqrt(error[0] * (1 - error[0]) / asked)
    within = [one for one, e in zip(ranked, error, strict=True) if e <= limit + 1e-12]
    least = min((int(mask.sum()), value) for mask, value in within)
    assert (int(found.mask_D.sum()), found.fitness) == least
    assert found.mask_D.sum() <= found.result.mask.sum()


def test_members_search_halves_of_the_groups_each_with_its_seed() -> None:
    cfg = config(members=3, islands=2, max_features=20)
    found = select_features(WHOLE, cfg, 5)
    alone = config(max_features=20)
    rows = halves(WHOLE.label_N, WHOLE.group_N, 3, 5)
    seeds = np.random.SeedSequence(5).generate_state(3)
    expected = [
        select_features(WHOLE.rows(r), alone, int(s)).mask_D for r, s in zip(rows, seeds, strict=True)
    ]
    np.testing.assert_array_equal(found.member_MD, expected)
    assert (found.member_MD[0] != found.member_MD[1]).any()
    without = select_features(WHOLE, config(islands=2, max_features=20), 5)
    np.testing.assert_array_equal(found.mask_D, without.mask_D)
    assert without.member_MD.shape == (0, DIM)


@pytest.mark.parametrize("seed", range(3))
def test_consensus_is_the_fittest_of_the_agreed_and_the_found(seed: int) -> None:
    cfg = config(rule="consensus", members=4)
    found = select_features(WHOLE, cfg, seed)
    agreed = consensus_candidates(found.member_MD[:, found.pool], found.score_D[found.pool])
    candidates = np.concatenate([found.result.mask[None], agreed])
    worth = engine(WHOLE, cfg, found.pool, seed)(candidates)
    assert found.fitness == worth.min() <= found.result.fitness
    np.testing.assert_array_equal(found.mask_D[found.pool], candidates[worth.argmin()])


# -- honesty ----------------------------------------------------------------------------------------------


def fingerprints(seed: int = 0) -> Table:
    """Every group has its own place in space and a class by lot: only a leak could tell the class."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(24), 6)
    label = rng.permutation(np.arange(24) % 2)[group]
    feat = rng.normal(size=(24, 30))[group] + 0.05 * rng.normal(size=(144, 30))
    return Table(feat.astype(np.float32), label, group)


@pytest.mark.parametrize("scheme", ["leave_out", "folds", "holdout"])
def test_samples_of_one_group_are_never_on_both_sides(scheme: str) -> None:
    cfg = config({"scheme": scheme, "soft": 0.0, "repeats": 3, "weight": 1.0})
    honest, leaky = [], []
    for seed in range(8):
        fake, everything = fingerprints(seed), np.ones((1, 30), bool)
        alone = Table(fake.feat_ND, fake.label_N, np.arange(144))
        honest.append(engine(fake, cfg, np.arange(30))(everything)[0])
        leaky.append(engine(alone, cfg, np.arange(30))(everything)[0])
    assert np.mean(honest) > 0.35
    assert np.mean(leaky) < 0.1, "if groups are ignored it shows"


# -- errors -----------------------------------------------------------------------------------------------


def test_what_cannot_be_selected_from_is_refused() -> None:
    one_class = Table(WHOLE.feat_ND, np.zeros(120, int), WHOLE.group_N)
    with pytest.raises(ClassError, match="1 class"):
        select_features(one_class, config(), 0)
    lonely = Table(WHOLE.feat_ND, WHOLE.label_N, WHOLE.label_N)
    with pytest.raises(TooFewGroupsError):
        select_features(lonely, config({"scheme": "folds"}), 0)
    flat = Table(np.ones_like(WHOLE.feat_ND), WHOLE.label_N, WHOLE.group_N)
    with pytest.raises(FeatureError, match="constant"):
        select_features(flat, config(), 0)
    with pytest.raises(InvalidValueError, match="budget"):
        select_features(WHOLE, config(budget="soon"), 0)


def test_asked_samples_alone_judge() -> None:
    """A feature known by heart tells the learned alone and is worthless; one that tells both stays."""
    rng = np.random.default_rng(0)
    label, asked = np.arange(120) % 2, np.arange(120) >= 80
    feat = rng.normal(size=(120, 8)).astype(np.float32)
    feat[~asked, 0] = label[~asked] * 9.0  # learned by heart
    feat[:, 5] += 4 * label
    group = np.arange(120) // 2
    config = load_config(overrides=["sca.agents=6", "sca.iterations=6", "abhc.steps=4"])
    heart = select_features(Table(feat[~asked], label[~asked], group[~asked]), config, 1)
    honest = select_features(Table(feat, label, group, asked), config, 1)
    assert heart.mask_D[0] and not honest.mask_D[0] and honest.mask_D[5]
    again = select_features(Table(feat, label, group, asked), config, 1)
    assert np.array_equal(honest.mask_D, again.mask_D) and honest.fitness == again.fitness


def test_members_learn_from_halves_and_ask_all_that_is_asked() -> None:
    table_ = ask(WHOLE, table(8))
    assert table_.asked_N is not None
    learned, asked = table_.sides()
    found = halved(table_, 3, 5)
    assert len(found) == 3
    for rows in found:
        part = table_.rows(rows)
        inner, outer = part.sides()
        assert np.array_equal(outer.feat_ND, asked.feat_ND)
        assert 0.3 < len(inner.label_N) / len(learned.label_N) < 0.7
        assert set(inner.group_N) <= set(learned.group_N)
    plain = halved(WHOLE, 3, 5)
    _, code = np.unique(WHOLE.label_N, return_inverse=True)
    for one, other in zip(plain, halves(code, WHOLE.group_N, 3, 5), strict=True):
        assert np.array_equal(one, other)
