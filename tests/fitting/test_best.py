"""Which epoch is kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotray.fitting.best import best_epoch

LUCKY = [1.1, 0.9, 1.1, 0.05, 1.0, 0.4, 0.3, 0.2, 0.21, 0.2]


def rows(values: list[float], name: str = "val_loss") -> list[dict[str, float]]:
    return [{"loss": 1.0 - 0.01 * number, name: value} for number, value in enumerate(values)]


def test_one_epoch_alone_is_judged_by_its_own_score() -> None:
    assert best_epoch(rows(LUCKY)) == 3


def test_a_lucky_epoch_among_bad_ones_is_not_the_best() -> None:
    assert best_epoch(rows(LUCKY), smooth=3) == 9


def test_the_newest_is_kept_until_there_are_enough_to_judge() -> None:
    assert [best_epoch(rows(LUCKY[:n]), smooth=5) for n in range(1, 6)] == [0, 1, 2, 3, 4]
    assert best_epoch(rows([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), smooth=5) == 4


def test_more_may_be_better_and_without_validation_the_training_loss_decides() -> None:
    assert best_epoch(rows([0.5, 0.9, 0.7], "val_iou"), 1, "val_iou", "max") == 1
    assert best_epoch([{"loss": 0.3}, {"loss": 0.1}, {"loss": 0.2}], 1, "val_iou", "max") == 1


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30), st.integers(1, 8), st.booleans())
def test_agrees_with_a_plain_loop(values: list[float], smooth: int, largest: bool) -> None:
    found = best_epoch(rows(values), smooth, "val_loss", "max" if largest else "min")
    window = min(smooth, len(values))
    means = {
        last: float(np.mean(values[max(0, last - smooth + 1) : last + 1]))
        for last in range(window - 1, len(values))
    }
    wanted = (max if largest else min)(means.values())
    assert means[found] == pytest.approx(wanted)
    assert window - 1 <= found < len(values)
