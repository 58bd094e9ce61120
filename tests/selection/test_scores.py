"""Univariate scores against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_selection import f_classif

from cotray.selection.scores import anova_f


@pytest.mark.parametrize("classes", [2, 3])
def test_anova_f_is_scikit_learns(classes: int) -> None:
    rng = np.random.default_rng(classes)
    label = rng.integers(0, classes, 60)
    feat = (rng.normal(size=(60, 25)) + label[:, None] * rng.uniform(0, 1, 25) + 3).astype(np.float32)
    np.testing.assert_allclose(anova_f(feat, label), f_classif(feat.astype(float), label)[0], rtol=1e-6)


def test_constant_features_score_nothing() -> None:
    feat = np.full((301, 4), [0.0, 0.1, -1e6, 3e-7], np.float32)
    np.testing.assert_array_equal(anova_f(feat, np.arange(301) % 2), np.zeros(4))


def test_scale_does_not_count() -> None:
    rng = np.random.default_rng(0)
    label = np.arange(40) % 2
    column = rng.normal(size=40) + label
    feat = np.stack([column, column * 1e-9, column * 1e9], axis=1).astype(np.float32)
    np.testing.assert_allclose(anova_f(feat, label) / anova_f(feat[:, :1], label), 1, rtol=1e-5)


def test_a_feature_that_parts_the_classes_is_finite_and_first() -> None:
    rng = np.random.default_rng(1)
    label = np.arange(30) % 2
    feat = np.stack([rng.normal(size=30) + 9 * label, label * 1e-3, rng.normal(size=30)], axis=1)
    score = anova_f(feat.astype(np.float32), label)
    assert np.isfinite(score).all()
    assert score.argmax() == 1
