"""Univariate scores: ANOVA against scikit-learn, ReliefF against the algorithm written out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.feature_selection import f_classif

from cotray.selection.scores import SCORES, Scores, anova_f, relief

Features = NDArray[np.float32]
Labels = NDArray[np.int64]


def toy(seed: int, samples: int = 60, classes: int = 2, dim: int = 6) -> tuple[Features, Labels]:
    """Standardised, unequal classes; the first feature tells most."""
    rng = np.random.default_rng(seed)
    label = np.minimum(rng.integers(0, classes + 2, samples), classes - 1)
    feat = rng.normal(size=(samples, dim)) + np.outer(label, np.linspace(1.5, 0, dim))
    return ((feat - feat.mean(axis=0)) / feat.std(axis=0)).astype(np.float32), label


# -- ANOVA ------------------------------------------------------------------------------------------------


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


# -- ReliefF ----------------------------------------------------------------------------------------------


def relief_by_hand(feat: Features, label: Labels, asked: list[int], k: int) -> Scores:
    """Kononenko (1994), Fig. 3: hits pull down, misses push up by their class' share; sample by sample."""
    samples = feat.astype(float)
    share = {c: float((label == c).mean()) for c in set(label.tolist())}
    weight = np.zeros(feat.shape[1])
    for i in asked:
        away = ((samples - samples[i]) ** 2).sum(axis=1).tolist()
        for c, prior in share.items():
            others = (j for j in range(len(samples)) if label[j] == c and j != i)
            of = sorted(others, key=away.__getitem__)[:k]
            if not of:
                continue
            gap = sum(np.abs(samples[i] - samples[j]) for j in of) / len(of)
            weight += -gap if c == label[i] else prior / (1 - share[int(label[i])]) * gap
    return np.asarray(weight / len(asked))


@pytest.mark.parametrize(("classes", "samples"), [(2, 60), (3, 75), (5, 90), (2, 12)])
def test_relief_is_reliefs_algorithm(classes: int, samples: int) -> None:
    feat, label = toy(classes, samples, classes)
    expected = relief_by_hand(feat, label, list(range(samples)), 10)
    np.testing.assert_allclose(relief(feat, label), expected, atol=1e-5)


def test_relief_asks_500_samples_spread_evenly() -> None:
    feat, label = toy(1, 703, dim=3)
    asked = [int(i * 702 / 499) for i in range(500)]
    assert len(set(asked)) == 500
    np.testing.assert_allclose(relief(feat, label), relief_by_hand(feat, label, asked, 10), atol=1e-5)


def test_relief_takes_a_class_of_one_sample() -> None:
    feat, label = toy(3, 40)
    label[0] = 2
    expected = relief_by_hand(feat, label, list(range(40)), 10)
    np.testing.assert_allclose(relief(feat, label), expected, atol=1e-5)


@pytest.mark.parametrize("name", sorted(SCORES))
def test_where_a_feature_stands_and_what_else_there_is_changes_nothing(name: str) -> None:
    """Few different values: many samples are equally far, and rounding must not choose among them."""
    rng = np.random.default_rng(8)
    label = rng.integers(0, 2, 200)
    feat = (rng.integers(0, 4, (200, 23)) / 3).astype(np.float32)
    feat[:, :4] += (label[:, None] / 3).astype(np.float32)
    order = rng.permutation(23)
    mixed = feat[:, order]
    np.testing.assert_array_equal(SCORES[name](mixed, label), SCORES[name](feat, label)[order])
    if name != "auto":  # ranks count everything there is
        padded = np.concatenate([np.zeros((200, 9), np.float32), mixed], axis=1)
        np.testing.assert_array_equal(SCORES[name](padded, label)[9:], SCORES[name](feat, label)[order])


def test_a_constant_feature_has_no_relief() -> None:
    feat, label = toy(0)
    feat[:, 2] = 0
    assert relief(feat, label)[2] == 0


def xor(seed: int) -> tuple[Features, Labels]:
    """Features 0 and 1 tell the class together and neither alone; 2 tells alone; 3 to 9 are noise."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 2, 400), rng.integers(0, 2, 400)
    label = a ^ b
    feat = rng.normal(size=(400, 10)) * 0.3
    feat[:, 0], feat[:, 1], feat[:, 2] = feat[:, 0] + a, feat[:, 1] + b, feat[:, 2] + 0.5 * label
    return ((feat - feat.mean(axis=0)) / feat.std(axis=0)).astype(np.float32), label


def test_relief_sees_what_features_tell_together() -> None:
    feat, label = xor(4)
    assert set(np.argsort(-relief(feat, label))[:3]) == {0, 1, 2}
    assert np.argmax(anova_f(feat, label)) == 2


# -- both -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_auto_is_the_better_of_both_ranks(seed: int) -> None:
    """Of two features with equally good ranks the one that ANOVA ranks so comes first; no two are equal."""
    feat, label = toy(seed, dim=30)
    by_anova, by_relief = (
        np.argsort(-score(feat, label), kind="stable").tolist() for score in (anova_f, relief)
    )
    key = [min((by_anova.index(d), 0), (by_relief.index(d), 1)) for d in range(30)]
    expected = sorted(range(30), key=lambda d: key[d])
    assert np.argsort(-SCORES["auto"](feat, label)).tolist() == expected
    assert len(set(SCORES["auto"](feat, label).tolist())) == 30


def test_auto_has_both_kinds_at_its_head() -> None:
    feat, label = xor(5)
    assert set(np.argsort(-SCORES["auto"](feat, label))[:3]) >= {2}
    assert {0, 1} & set(np.argsort(-SCORES["auto"](feat, label))[:3])


def test_names() -> None:
    feat, label = toy(0)
    np.testing.assert_array_equal(SCORES["anova"](feat, label), anova_f(feat, label))
    np.testing.assert_array_equal(SCORES["relief"](feat, label), relief(feat, label))
    assert set(SCORES) == {"auto", "anova", "relief"}
