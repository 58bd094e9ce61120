"""What the benchmark of cell finding counts."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.roi import RESAMPLES, Group, Photo, accuracy, counts, figures, matches, overlaps

BLANK = np.zeros((50, 50, 3), np.uint8)
A, B, FAR = (0, 0, 10, 10), (8, 0, 18, 10), (30, 30, 40, 40)


def test_overlap_of_boxes_is_that_of_their_pixels() -> None:
    for a, b in ((A, B), (A, FAR), (A, A), (A, (2, 3, 7, 9))):
        one, two = np.zeros((50, 50), bool), np.zeros((50, 50), bool)
        one[a[1] : a[3], a[0] : a[2]] = two[b[1] : b[3], b[0] : b[2]] = True
        assert overlaps([a], [b])[0, 0] == pytest.approx((one & two).sum() / (one | two).sum())


def test_as_many_pairs_as_there_can_be() -> None:
    """A greedy match of the best pair first would leave the other cell without its box."""
    true = [(0, 0, 10, 10), (3, 0, 13, 10)]
    found = [(1, 0, 11, 10), (-3, 0, 7, 10)]
    assert overlaps(found, true)[1, 0] >= 0.5 > overlaps(found, true)[1, 1]
    assert sorted((i, j) for i, j, _ in matches(found, true)) == [(0, 1), (1, 0)]
    assert matches([FAR], [A]) == [] and matches([], [A]) == [] == matches([A], [])


def test_recall_precision_and_overlap() -> None:
    photos = [Photo("a", BLANK, [A, FAR]), Photo("b", BLANK, []), Photo("c", BLANK, [A])]
    answers = iter([[A, B], [FAR], []])
    rows = counts(Group("x", photos, False), lambda rgb, single: next(answers))
    assert rows.tolist() == [[1, 2, 2, 1], [0, 0, 1, 0], [0, 1, 0, 0]]
    assert figures(rows) == pytest.approx([1 / 3, 1 / 3, 1.0])


def test_no_error_is_no_certainty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.roi.FINDERS", {"all": lambda rgb, single: [A]})
    table = accuracy([Group("x", [Photo(str(n), BLANK, [A]) for n in range(20)], False)])
    assert f"1.000 ({0.025 ** (1 / 20):.3f} to 1.000)" in table and RESAMPLES > 1000
