"""What is set aside before a search begins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotray.errors import TooFewGroupsError
from cotray.selection.outer import set_aside


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 10**6),
    groups=st.integers(3, 30),
    share=st.floats(0.05, 0.8),
    classes=st.integers(2, 4),
)
def test_groups_are_whole_and_two_of_each_class_stay(
    seed: int, groups: int, share: float, classes: int
) -> None:
    """Groups of any size, of one class or of several."""
    rng = np.random.default_rng(seed)
    group = np.concatenate([np.full(rng.integers(1, 9), g) for g in range(groups * classes)])
    label = np.where(
        rng.uniform(size=len(group)) < 0.2, rng.integers(classes, size=len(group)), group % classes
    )
    try:
        out, _ = set_aside(label, group, share, seed)
    except TooFewGroupsError:
        return
    assert out.any()
    assert not set(group[out]) & set(group[~out])
    for c in range(classes):
        assert len(set(group[(label == c) & ~out])) >= min(2, len(set(group[label == c])))
    again, _ = set_aside(label, group, share, seed)
    np.testing.assert_array_equal(out, again)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), share=st.floats(0.1, 0.5), each=st.integers(20, 60))
def test_ungrouped_samples_are_held_out_in_proportion(seed: int, share: float, each: int) -> None:
    label = np.repeat(["a", "b", "c"], [each, 2 * each, 3 * each])
    out, notes = set_aside(label, np.arange(len(label)), share, seed)
    assert notes == []
    for c in "abc":
        of = label == c
        assert abs(out[of].sum() - share * of.sum()) <= 0.5 + 1e-9, "the nearest number"


def test_another_seed_sets_others_aside() -> None:
    label, group = np.arange(80) % 2, np.arange(80) // 4
    first, other = (set_aside(label, group, 0.2, seed)[0] for seed in (0, 1))
    assert (first != other).any() and first.sum() == other.sum() == 16


def test_a_class_of_two_groups_stays_whole_and_that_is_said() -> None:
    label = np.array(["a"] * 20 + ["b"] * 20 + ["rare"] * 4)
    group = np.r_[np.arange(40) // 2, 90, 90, 91, 91]
    out, notes = set_aside(label, group, 0.25, 3)
    assert not out[label == "rare"].any() and out[label == "a"].any() and out[label == "b"].any()
    (note,) = notes
    assert "'rare'" in note and "lacks" in note


def test_nothing_to_set_aside_is_an_error_with_a_cure() -> None:
    with pytest.raises(TooFewGroupsError, match=r"2 to 2 groups.*select\.outer=0"):
        set_aside(np.array([0, 0, 1, 1]), np.arange(4), 0.2, 0)


def test_no_hold_out_at_all_is_possible_and_said() -> None:
    out, notes = set_aside(np.array([0, 0, 1, 1]), np.arange(4), 0.0, 0)
    assert not out.any() and "select.outer=0" in notes[0]
