"""The scikit-learn selector: its manners, its tools, and that what it reports is what was scored."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, LeaveOneGroupOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from cotray.config import Config
from cotray.errors import CotrayError, TooFewGroupsError
from cotray.selection import SineCosineSelector
from cotray.selection.selector import SETTINGS, find_backend

Array = NDArray[Any]
N, D, GOOD = 120, 30, (3, 8, 21)
LABEL = np.arange(N) % 2
GROUP = np.array([f"{i // 12}-{i % 2}" for i in range(N)])
SMALL: dict[str, Any] = {"agents": 4, "iterations": 3, "random_state": 0}


def planted(rows: int = N) -> Array:
    """Three of thirty features tell the classes apart, together."""
    feat_ND = np.random.default_rng(5).normal(size=(rows, D))
    feat_ND[:, GOOD] += 1.6 * (np.arange(rows) % 2)[:, None]
    return feat_ND


def fitted(**settings: Any) -> SineCosineSelector:
    return SineCosineSelector(**SMALL | settings).fit(planted(), LABEL)


# -- scikit-learn's manners -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Skipping check:sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([SineCosineSelector(agents=4, iterations=2)])
def test_scikit_learns_own_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_defaults_are_the_settings_defaults_but_for_the_metric() -> None:
    config, params = Config(), SineCosineSelector().get_params()
    for name, key in SETTINGS.items():
        section, field = key.split(".")
        expected = "plain" if name == "metric" else getattr(getattr(config, section), field)
        assert params[name] == expected, name


def test_the_package_is_light_and_says_what_it_lacks() -> None:
    code = (
        "import sys, cotray.selection; print([m for m in ('sklearn', 'numba', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    import cotray.selection

    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        cotray.selection.Nothing  # noqa: B018


def test_a_clone_is_unfitted_and_finds_the_same() -> None:
    first = fitted(config={"abhc.steps": 3})
    again = clone(first)
    assert again.get_params() == first.get_params()
    with pytest.raises(NotFittedError):
        again.transform(planted())
    np.testing.assert_array_equal(again.fit(planted(), LABEL).support_, first.support_)


def test_pipeline_cross_validation_and_grid_search() -> None:
    pipe = make_pipeline(StandardScaler(), SineCosineSelector(**SMALL), LogisticRegression())
    assert cross_val_score(pipe, planted(), LABEL, cv=3).mean() > 0.85
    grid = {"sinecosineselector__k": np.array([1, 5]), "sinecosineselector__weight": [0.5, 0.99]}
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(planted(), LABEL)
    assert search.best_score_ > 0.85
    assert 1 <= search.best_estimator_[1].get_support().sum() < D


def test_groups_reach_the_selector_through_a_pipeline_and_cross_validation() -> None:
    """Where a class keeps a single group, it is only the groups that can be to blame."""
    single = np.where(LABEL, "one", GROUP)
    with sklearn.config_context(enable_metadata_routing=True):
        selector = SineCosineSelector(**SMALL).set_fit_request(groups=True)
        pipe = make_pipeline(selector, LogisticRegression())
        with pytest.raises(TooFewGroupsError, match="'1' has a single group: 'one'"):
            pipe.fit(planted(), LABEL, groups=single)
        routed = pipe.fit(planted(), LABEL, groups=GROUP)[0]
        score = cross_val_score(pipe, planted(), LABEL, cv=GroupKFold(3), params={"groups": GROUP})
    direct = SineCosineSelector(**SMALL).fit(planted(), LABEL, GROUP)
    np.testing.assert_array_equal(routed.support_, direct.support_)
    assert routed.fitness_ == direct.fitness_
    assert score.mean() > 0.85


@pytest.mark.parametrize("out", ["pandas", "polars"])
@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_frames_in_and_out(frame: Any, out: str) -> None:
    names = [f"gene{i}" for i in range(D)]
    table = frame(dict(zip(names, planted().T, strict=True)))
    selector = SineCosineSelector(**SMALL).set_output(transform=out).fit(table, LABEL)
    chosen = [name for name, taken in zip(names, selector.support_, strict=True) if taken]
    assert selector.feature_names_in_.tolist() == names
    assert selector.get_feature_names_out().tolist() == chosen
    got = selector.transform(table)
    assert isinstance(got, pd.DataFrame if out == "pandas" else pl.DataFrame)
    assert list(got.columns) == chosen
    np.testing.assert_array_equal(got.to_numpy(), planted()[:, selector.support_])
    np.testing.assert_array_equal(selector.support_, fitted().support_)


def test_transform_and_back() -> None:
    selector = fitted()
    assert (selector.n_features_in_, selector.support_.dtype) == (D, np.bool_)
    kept_NS = selector.transform(planted())
    np.testing.assert_array_equal(kept_NS, planted()[:, selector.get_support(indices=True)])
    np.testing.assert_array_equal(
        selector.inverse_transform(kept_NS), np.where(selector.support_, planted(), 0.0)
    )
    with pytest.raises(ValueError, match="30 features"):
        selector.transform(planted()[:, :5])


# -- what it finds ----------------------------------------------------------------------------------------


def k_nn_fitness(feat_ND: Array, label_N: Array, group_N: Array, mask_D: Array, **of: Any) -> float:
    """scikit-learn's k-NN, every group left out in turn, on standardised features."""
    k, soft, weight, balanced = of["k"], of["soft"], of["weight"], of["metric"] == "balanced"
    scaled_NS = StandardScaler().fit_transform(feat_ND)[:, mask_D]
    wrong_N = np.zeros(len(label_N))
    for learned, asked in LeaveOneGroupOut().split(scaled_NS, label_N, group_N):
        model = KNeighborsClassifier(k, algorithm="brute").fit(scaled_NS[learned], label_N[learned])
        called, share = model.predict(scaled_NS[asked]), model.predict_proba(scaled_NS[asked])
        given = share[np.arange(len(asked)), np.searchsorted(model.classes_, label_N[asked])]
        wrong_N[asked] = (1 - soft) * (called != label_N[asked]) + soft * (1 - given)
    rates = [wrong_N[label_N == c].mean() for c in np.unique(label_N)] if balanced else wrong_N
    return float(weight * np.mean(rates) + (1 - weight) * mask_D.mean())


@pytest.mark.parametrize("rule", ["best", "one_se", "consensus"])
@pytest.mark.parametrize(
    "of",
    [
        {"k": 5, "soft": 0.5, "weight": 0.99, "metric": "plain"},
        {"k": 3, "soft": 0.0, "weight": 0.9, "metric": "balanced"},
    ],
)
def test_the_mask_reported_is_the_mask_scored(rule: str, of: dict[str, Any]) -> None:
    label_N = (np.arange(N) % 3 == 0).astype(int)
    feat_ND = planted() + label_N[:, None] * np.linspace(0, 0.6, D)
    group_N = np.char.add(GROUP, label_N.astype(str))
    selector = SineCosineSelector(**SMALL, rule=rule, members=3, **of).fit(feat_ND, label_N, group_N)
    expected = k_nn_fitness(feat_ND, label_N, group_N, selector.support_, **of)
    assert selector.fitness_ == pytest.approx(expected, abs=1e-9)


def test_planted_features_are_found() -> None:
    selector = SineCosineSelector(random_state=1).fit(planted(), LABEL)
    assert set(GOOD) <= set(selector.get_support(indices=True))
    assert selector.support_.sum() <= 8
    assert set(np.argsort(selector.scores_)[-3:]) == set(GOOD)
    best = [row["best_fitness"] for row in selector.history_]
    assert len(best) == 20 and (np.diff(best) <= 0).all() and best[-1] == selector.fitness_


def test_what_only_tells_samples_of_a_group_apart_is_not_chosen_where_groups_are_given() -> None:
    """Column 0 says which group a sample is of: worth everything alone, and nothing across groups."""
    rng = np.random.default_rng(2)
    group_N = np.repeat(np.arange(20), 6)
    label_N = group_N % 2
    feat_ND = rng.normal(size=(N, 8))
    feat_ND[:, 0] = rng.permutation(20)[group_N] + rng.normal(0, 0.01, N)
    feat_ND[:, 1] += 2.0 * label_N
    without = SineCosineSelector(random_state=0).fit(feat_ND, label_N)
    within = SineCosineSelector(random_state=0).fit(feat_ND, label_N, group_N)
    assert without.support_[0] and without.fitness_ < 0.05
    assert within.support_[1] and not within.support_[0] and within.fitness_ > 0.1


def test_ten_classes_and_their_names() -> None:
    digits = load_digits()
    feat_ND, label_N = digits.data[:400], digits.target[:400]
    selector = SineCosineSelector(**SMALL).fit(feat_ND, label_N)
    named = SineCosineSelector(**SMALL).fit(feat_ND, np.array(list("abcdefghij"))[label_N])
    np.testing.assert_array_equal(selector.support_, named.support_)
    assert selector.fitness_ == named.fitness_ < 0.12
    assert not selector.support_[0]  # a pixel that is never inked
    assert selector.notes_[0].startswith("constant, and therefore never selected: columns 'x0'")


def test_the_seed_decides() -> None:
    one, again, other = fitted(), fitted(), fitted(random_state=7)
    np.testing.assert_array_equal(one.support_, again.support_)
    assert one.history_ == again.history_ != other.history_
    states = [fitted(random_state=np.random.RandomState(3)).history_ for _ in range(2)]
    assert states[0] == states[1] != one.history_
    assert fitted(random_state=None).history_ != fitted(random_state=None).history_


def test_a_budget_of_evaluations_is_kept() -> None:
    selector = fitted(budget="57 evaluations", iterations=1)
    assert selector.history_[-1]["evaluations"] == 57


def test_members_tell_frequency_and_stability() -> None:
    selector = fitted(members=4)
    assert selector.frequency_.shape == (D,)
    assert set(selector.frequency_ * 4) <= set(range(5))
    assert selector.frequency_[list(GOOD)].mean() > 0.5
    assert 0 < selector.stability_ <= 1
    alone = fitted()
    assert np.isnan(alone.stability_) and not hasattr(alone, "frequency_")
    np.testing.assert_array_equal(selector.support_, alone.support_)


# -- settings -----------------------------------------------------------------------------------------------


def test_any_other_setting_has_the_last_word() -> None:
    assert len(fitted(config={"sca.iterations": 5, "abhc.when": "off"}).history_) == 5
    off = fitted(config={"abhc.when": "off"})
    assert off.history_[-1]["evaluations"] == 4 * 3
    assert off.get_params()["iterations"] == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"agents": 1}, r"sca\.agents"),
        ({"weight": 0}, r"fitness\.weight"),
        ({"metric": "accuracy"}, "'plain'"),
        ({"budget": "0 evaluations"}, "A budget cannot be '0 evaluations'.*above 0"),
        ({"budget": "0 seconds"}, "A budget cannot be"),
        ({"max_features": 0}, r"select\.max_features"),
        ({"config": ["abhc.steps"]}, "`config` is no dict"),
        ({"estimator": LinearRegression()}, "LinearRegression is no scikit-learn classifier"),
        ({"estimator": LogisticRegression}, "type is no scikit-learn classifier"),
        ({"estimator": "svm"}, "str is no scikit-learn classifier"),
    ],
)
def test_settings_that_cannot_be_are_value_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        fitted(**settings)
    assert isinstance(caught.value, CotrayError)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"config": {"abhc.stepps": 3}}, r"Unknown setting 'abhc\.stepps'.*'steps'"),
        ({"backend": "rey"}, "Unknown backend 'rey'. Did you mean 'ray'.*Valid names: ray, serial"),
    ],
)
def test_unknown_names_are_answered_with_near_ones(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CotrayError, match=message):
        fitted(**settings)


def test_sparse_features_are_refused() -> None:
    with pytest.raises(ValueError, match="Sparse features are not supported"):
        SineCosineSelector(**SMALL).fit(sparse.csr_array(planted()), LABEL)


def test_a_number_of_folds_that_cannot_be_followed_is_a_warning() -> None:
    selector = SineCosineSelector(**SMALL, scheme="folds", folds=12)
    with pytest.warns(UserWarning, match="10 folds instead of 12: class '0' has only 10 groups"):
        selector.fit(planted(), LABEL, GROUP)
    assert selector.notes_ == ["10 folds instead of 12: class '0' has only 10 groups"]


def test_verbose_prints_notes_and_iterations(capsys: pytest.CaptureFixture[str]) -> None:
    fitted()
    assert capsys.readouterr().out == ""
    SineCosineSelector(**SMALL, verbose=1).fit(planted(20), LABEL[:20])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "note: only 20 samples: what is found may be chance"
    assert [line.split(":")[0] for line in lines[1:]] == ["iteration 1", "iteration 2", "iteration 3"]


def test_any_classifier_can_judge() -> None:
    pytest.importorskip("cotray.selection.universal")
    model = make_pipeline(StandardScaler(), LogisticRegression())
    selector = SineCosineSelector(model, **SMALL, members=2, soft=0.0).fit(planted(), LABEL, GROUP)
    assert selector.support_[list(GOOD)].any() and selector.fitness_ < 0.25
    assert not hasattr(model[-1], "coef_")


# -- Ray ----------------------------------------------------------------------------------------------------


@pytest.fixture
def private_ray() -> Iterator[None]:
    import ray

    from cotray.stages.cluster import DEFAULTS

    if ray.is_initialized():
        yield
        return
    for key, value in DEFAULTS.items():
        os.environ.setdefault(key, value)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def test_ray_finds_what_this_process_finds(private_ray: None) -> None:
    from cotray.stages.evaluators import ray_backend

    assert find_backend("ray") is ray_backend
    here, there = fitted(), fitted(backend="ray")
    np.testing.assert_array_equal(here.support_, there.support_)
    assert here.history_ == there.history_
    assert here.fitness_ == there.fitness_
