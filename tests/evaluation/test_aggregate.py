from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotray.errors import DataError, UnknownNameError
from cotray.evaluation.aggregate import AGGREGATES, aggregate_cells

cells = st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), max_size=30)


def reference(pairs: list[tuple[int, float]], image: int, method: str) -> float:
    own = [p for index, p in pairs if index == image]
    if not own:
        return float("nan")
    if method == "noisy_or":
        return 1 - float(np.prod([1 - p for p in own]))
    return max(own) if method == "max" else sum(own) / len(own)


@pytest.mark.parametrize("method", list(AGGREGATES))
@given(cells)
@settings(deadline=None, max_examples=25)
def test_each_image_from_its_own_cells(method: str, pairs: list[tuple[int, float]]) -> None:
    index, prob = [i for i, _ in pairs], [p for _, p in pairs]
    got = aggregate_cells(prob, index, 7, method)
    np.testing.assert_allclose(got, [reference(pairs, i, method) for i in range(7)], atol=1e-12)
    assert np.nanmin(got, initial=0) >= 0 and np.nanmax(got, initial=1) <= 1


@pytest.mark.parametrize("method", list(AGGREGATES))
def test_one_cell_speaks_for_its_image(method: str) -> None:
    got = aggregate_cells([0.25, 1.0], [1, 0], 3, method)
    np.testing.assert_allclose(got, [1.0, 0.25, np.nan])


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(UnknownNameError, match="mean"):
        aggregate_cells([0.5], [0], 1, "meen")
    for prob, index, n in (([0.5], [0, 1], 2), ([0.5], [2], 2), ([0.5], [-1], 2), ([1.5], [0], 1)):
        with pytest.raises(DataError):
            aggregate_cells(prob, index, n, "max")
