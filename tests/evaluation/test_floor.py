from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from cotray.errors import ClassError, ModelError
from cotray.evaluation.floor import ColourFloor, colour_histogram
from cotray.evaluation.metrics import classification_metrics


def test_histogram_by_hand() -> None:
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[:2] = (255, 0, 0)
    red, green, _, hue, saturation, value = colour_histogram(rgb, 4).reshape(6, 4)
    assert red.tolist() == value.tolist() == saturation.tolist() == [0.5, 0, 0, 0.5]
    assert green.tolist() == hue.tolist() == [1, 0, 0, 0]


def test_histogram_sees_colour_not_place_or_size() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    hist = colour_histogram(rgb)
    assert hist.dtype == np.float32 and hist.shape == (192,)
    np.testing.assert_allclose(hist.reshape(6, 32).sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(hist, colour_histogram(np.ascontiguousarray(rgb[::-1, ::-1])))
    np.testing.assert_allclose(hist, colour_histogram(np.tile(rgb, (2, 2, 1))), atol=1e-7)


def test_floor_learns_colour_repeatably() -> None:
    rng = np.random.default_rng(1)
    label = np.arange(40) % 2
    images = [rng.integers(60 * y, 150 + 60 * y, (16, 16, 3), dtype=np.uint8) for y in label]
    hists = np.stack([colour_histogram(image) for image in images])
    prob = ColourFloor(20, seed=3).fit(hists[:20], label[:20]).predict_proba(hists[20:])
    assert ((prob >= 0.5) == label[20:]).all()
    again = ColourFloor(20, seed=3).fit(hists[:20], label[:20]).predict_proba(hists[20:])
    np.testing.assert_array_equal(prob, again)


def test_floor_refuses_one_class_and_answers_only_when_fitted() -> None:
    with pytest.raises(ClassError):
        ColourFloor(10).fit(np.zeros((3, 6)), [1, 1, 1])
    with pytest.raises(ModelError):
        ColourFloor(10).predict_proba(np.zeros((3, 6)))
    assert ColourFloor(10).fit(np.eye(2), [0, 1]).predict_proba(np.zeros((0, 2))).shape == (0,)


@pytest.mark.data
def test_colour_alone_goes_far_on_all_idb2(shared_data: Callable[[str], Path]) -> None:
    """Blocks of ten neighbours as groups: a bound every honest report on this set has to clear."""
    files = sorted((shared_data("all-idb2") / "img").glob("*.tif"))
    label = np.array([int(f.stem[-1]) for f in files])
    hists = np.stack([colour_histogram(cv2.cvtColor(cv2.imread(str(f)), cv2.COLOR_BGR2RGB)) for f in files])
    rank = np.where(label == 1, np.cumsum(label) - 1, np.cumsum(1 - label) - 1)
    group = label * 1000 + rank // 10
    prob = np.zeros(len(label))
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(hists, label, group):
        prob[test] = ColourFloor(100).fit(hists[train], label[train]).predict_proba(hists[test])
    got = classification_metrics(label, prob)
    assert 0.92 <= got["accuracy"] <= 0.98
    assert 0.98 <= got["auroc"] <= 1.0
