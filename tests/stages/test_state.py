from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotray.errors import RunError
from cotray.stages.state import pack, unpack

leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text()
trees = st.recursive(
    leaves, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(max_size=5), t, max_size=3)
)


@given(trees)
@settings(deadline=None, max_examples=50)
def test_any_tree_comes_back(tree: object) -> None:
    assert unpack(pack(tree)) == tree


def test_arrays_come_back_with_dtype_and_no_pickle() -> None:
    state = {"x": np.arange(3, dtype=np.uint8), "deep": [{"m": np.eye(2, dtype=bool)}], "n": np.float64(2.5)}
    back = unpack(pack(state))
    assert back["x"].dtype == np.uint8
    assert np.array_equal(back["deep"][0]["m"], np.eye(2, dtype=bool))
    assert back["n"] == 2.5
    with pytest.raises(ValueError, match="allow_pickle"):
        pack({"o": np.array([object()])})


def test_damage_is_told() -> None:
    data = pack({"x": np.zeros(1000)})
    for cut in (0, 10, len(data) // 2, len(data) - 3):
        with pytest.raises(RunError, match="damaged"):
            unpack(data[:cut])
