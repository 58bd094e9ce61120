"""The minimiser on problems whose solutions are known, and against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from cotray.selection.lbfgs import minimise

Values = NDArray[np.float64]


def bowls(seed: int, count: int, size: int) -> tuple[Values, Values]:
    """Matrices and minima of convex quadratics, condition numbers up to 1000."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(count, size, size)))[0]
    return turn * np.geomspace(1, 1000, size) @ turn.transpose(0, 2, 1), rng.normal(size=(count, size))


@pytest.mark.parametrize("known", [True, False])
def test_quadratics(known: bool) -> None:
    matrix, least = bowls(0, 4, 12)
    asked = []

    def function(at: Values) -> tuple[Values, Values]:
        asked.append(at)
        slope = np.einsum("bij,bj->bi", matrix, at - least)
        return np.einsum("bi,bi->b", at - least, slope) / 2, slope

    def precondition(slope: Values) -> Values:
        return np.linalg.solve(matrix, slope[..., None])[..., 0] if known else slope / 1000

    found = minimise(function, precondition, np.zeros((4, 12)), np.full(4, 1e-6), 300)
    np.testing.assert_allclose(found, least, atol=1e-5)
    assert not known or len(asked) <= 3  # with the true Hessian one step does it


def log_sum(at: Values, rows: Values) -> tuple[Values, Values]:
    """log sum exp of linear functions, and a small bowl: far from quadratic."""
    line = at @ rows.T
    power = np.exp(line - line.max(axis=1, keepdims=True))
    total = power.sum(axis=1)
    return line.max(axis=1) + np.log(total) + 0.01 * (at**2).sum(axis=1), power / total[
        :, None
    ] @ rows + 0.02 * at


def test_it_ends_where_scipy_does_and_problems_do_not_mix() -> None:
    rows = np.random.default_rng(1).normal(size=(40, 6)) * 3
    start = np.random.default_rng(2).normal(size=(5, 6)) * 4
    tolerance = np.array([1e-6, 1e-6, 1e-6, 1e-6, 1e9])

    def together(at: Values) -> tuple[Values, Values]:
        return log_sum(at, rows)

    found = minimise(together, lambda slope: slope, start, tolerance, 500)
    expected = minimize(lambda x: [f[0] for f in log_sum(x[None], rows)], start[0], jac=True, tol=1e-10).x
    np.testing.assert_allclose(found[:4], np.tile(expected, (4, 1)), atol=1e-4)
    np.testing.assert_array_equal(found[4], start[4])  # within its tolerance from the start
    alone = minimise(together, lambda slope: slope, start[2:3], tolerance[2:3], 500)
    np.testing.assert_allclose(found[2:3], alone, atol=1e-10)


def test_it_stops_after_its_steps() -> None:
    rows = np.random.default_rng(1).normal(size=(40, 6)) * 3
    start = np.ones((1, 6))
    values = [
        log_sum(minimise(lambda at: log_sum(at, rows), lambda s: s, start, np.zeros(1), n), rows)[0][0]
        for n in (0, 1, 2, 5)
    ]
    assert values[0] == log_sum(start, rows)[0][0]
    assert values == sorted(values, reverse=True) and len(set(values)) == 4
