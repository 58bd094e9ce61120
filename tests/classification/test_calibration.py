"""Temperature scaling on samples whose temperature is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from cotray.classification.calibration import LOG_RANGE, apply_temperature, fit_temperature, sigmoid


def sample(temperature: float, count: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits stated ``temperature`` times too large, labels drawn by the honest ones."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 2, count)
    label = (rng.uniform(size=count) < 1 / (1 + np.exp(-honest))).astype(np.int64)
    return honest * temperature, label


@pytest.mark.parametrize("temperature", [0.3, 0.8, 1.0, 2.5, 6.0])
def test_recovers_a_known_temperature(temperature: float) -> None:
    assert fit_temperature(*sample(temperature, 20_000)) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("temperature", [0.4, 4.0])
def test_calibration_lowers_the_loss(temperature: float) -> None:
    logit, label = sample(temperature, 400)
    fitted = apply_temperature(logit, fit_temperature(logit, label))
    assert log_loss(label, sigmoid(fitted)) < log_loss(label, sigmoid(logit))


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_says_nothing(label: int) -> None:
    assert fit_temperature(np.array([-2.0, 0.5, 3.0]), np.full(3, label)) == 1.0
    assert fit_temperature(np.zeros(0), np.zeros(0, np.int64)) == 1.0


@pytest.mark.parametrize("count", [2, 10, 60])
@pytest.mark.parametrize("size", [0.5, 3.0, 40.0])
def test_separable_sets_stay_away_from_the_bounds(count: int, size: float) -> None:
    """Every cell right: without a prior the best temperature is 0, and every probability 0 or 1."""
    label = np.arange(count) % 2
    logit = size * (2.0 * label - 1)
    temperature = fit_temperature(logit, label)
    assert math.exp(-LOG_RANGE) * 1.5 < temperature <= 1.001


@pytest.mark.parametrize("count", [4, 60])
def test_wholly_wrong_sets_stay_finite(count: int) -> None:
    label = np.arange(count) % 2
    logit = -8 * (2.0 * label - 1)
    temperature = fit_temperature(logit, label)
    assert 1 < temperature <= math.exp(LOG_RANGE)
    assert np.isfinite(apply_temperature(logit, temperature)).all()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.floats(-1e4, 1e4, allow_subnormal=False), st.integers(0, 1)), min_size=1, max_size=30
    )
)
def test_never_changes_the_ranking(pairs: list[tuple[float, int]]) -> None:
    logit, label = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    temperature = fit_temperature(logit, label)
    assert math.exp(-LOG_RANGE) <= temperature <= math.exp(LOG_RANGE)
    scaled = apply_temperature(logit, temperature)
    order = np.argsort(logit, kind="stable")
    assert (np.diff(scaled[order]) >= 0).all()
    np.testing.assert_array_equal(scaled > 0, logit > 0)


def test_classes_and_cells_count_alike_in_any_order() -> None:
    logit, label = sample(3.0, 300)
    order = np.random.default_rng(1).permutation(300)
    fitted = fit_temperature(logit, label)
    assert fit_temperature(logit[order], label[order]) == pytest.approx(fitted, rel=1e-4)
    assert fit_temperature(-logit, 1 - label) == pytest.approx(fitted, rel=1e-4)


def test_sigmoid_is_stable() -> None:
    logit = np.array([-1e4, -700.0, -30.0, 0.0, 1.0, 30.0, 1e4])
    prob = sigmoid(logit)
    assert prob.dtype == np.float64
    assert np.isfinite(prob).all()
    assert prob[[0, 3, 6]].tolist() == [0.0, 0.5, 1.0]
    assert (np.diff(prob) >= 0).all() and (prob[1:3] > 0).all()
    np.testing.assert_allclose(prob[2:6], [1 / (1 + math.exp(-x)) for x in logit[2:6]])
    np.testing.assert_allclose(sigmoid(-logit), 1 - prob, atol=1e-12)
