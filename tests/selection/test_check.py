"""What a selection accepts, what it refuses and in which words, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse
from sklearn.exceptions import DataConversionWarning

from cotray.config import load_config
from cotray.errors import (
    ClassError,
    CotrayError,
    DataError,
    FeatureError,
    NotNumbersError,
    TooFewGroupsError,
)
from cotray.selection.check import Checked, check_table
from cotray.selection.problem import make_problem
from cotray.selection.select import select_features

N, D = 40, 4
NAMES = ["area", "hue", "edge", "glow"]
FOLDS = "fitness.scheme=folds"


def feat(dtype: Any = np.float64) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(N, D)) * 5 + 2 * (np.arange(N) % 2)[:, None]).astype(dtype)


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(feat(), columns=NAMES).assign(**columns)


LABEL = np.arange(N) % 2
GROUP = np.array([f"{i // 8}-{i % 2}" for i in range(N)])


def with_value(value: float, *columns: int) -> NDArray[Any]:
    array = feat()
    array[3, list(columns)] = value
    return array


# -- features -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int64, np.uint16, bool])
def test_numbers_of_any_width_are_taken_as_they_are(dtype: Any) -> None:
    given_ND = np.maximum(feat(), 0).astype(dtype)
    taken_ND = check_table(given_ND, LABEL).table.feat_ND
    assert taken_ND.dtype == (np.float32 if dtype in (np.float16, np.float32) else np.float64)
    np.testing.assert_array_equal(taken_ND, given_ND.astype(np.float64))


FRAMES: dict[str, Callable[[NDArray[Any]], Any]] = {
    "pandas": lambda array: pd.DataFrame(array, columns=NAMES),
    "polars": lambda array: pl.DataFrame(array, schema=NAMES),
    "arrow": lambda array: pa.table(dict(zip(NAMES, array.T, strict=True))),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_is_its_array_and_its_names(kind: str) -> None:
    checked = check_table(FRAMES[kind](feat()), LABEL)
    np.testing.assert_array_equal(checked.table.feat_ND, feat())
    assert checked.names.tolist() == NAMES


def test_lists_text_and_objects_that_hold_numbers_are_taken() -> None:
    for given_ND in (feat().tolist(), feat().astype(object), feat().astype(str)):
        np.testing.assert_array_equal(check_table(given_ND, LABEL).table.feat_ND, feat())


def test_nullable_and_boolean_columns_beside_floats_are_taken() -> None:
    mixed = frame(area=pd.array(np.arange(N), "Int64"), hue=np.arange(N) % 3 == 0)
    taken_ND = check_table(mixed, LABEL).table.feat_ND
    np.testing.assert_array_equal(taken_ND[:, 0], np.arange(N))
    np.testing.assert_array_equal(taken_ND[:, 1], np.arange(N) % 3 == 0)


def test_names_are_the_ones_given_or_counted() -> None:
    assert check_table(feat(), LABEL).names.tolist() == ["x0", "x1", "x2", "x3"]
    assert check_table(feat(), LABEL, names=NAMES).names.tolist() == NAMES
    assert check_table(frame(), LABEL, names=list("abcd")).names.tolist() == list("abcd")


@pytest.mark.parametrize(
    ("features", "kind", "message"),
    [
        (with_value(np.nan, 1), FeatureError, r"NaN.* column 'x1' \(1 value\)\. Impute"),
        (with_value(-np.inf, 0, 2), FeatureError, r"infinity.* columns 'x0' \(1 value\), 'x2' \(1 value\)"),
        (with_value(1e200, 3), FeatureError, r"beyond 1e\+150 in column 'x3'"),
        (frame(hue=[None, None, *range(N - 2)]), FeatureError, r"NaN.* column 'hue' \(2 values\)\. Impute"),
        (frame(hue=pd.array([None, *range(N - 1)], "Int64")), FeatureError, r"column 'hue' \(1 value\)"),
        (pl.DataFrame({"a": [None, *range(N - 1)]}), FeatureError, r"NaN.* column 'a' \(1 value\)"),
        (np.full((N, 9), np.nan), FeatureError, r"'x4' \(40 values\) and 4 more"),
        (frame(edge=["soft"] * N), NotNumbersError, "column 'edge': could not convert.*'soft'.*encode"),
        (pl.DataFrame({"a": ["x"] * N, "b": range(N)}), NotNumbersError, "No numbers in column 'a'"),
        (frame(glow=[{}] * N), NotNumbersError, "column 'glow': float.* argument must be a string"),
        (frame(hue=pd.Timestamp(0), glow=["x"] * N), NotNumbersError, "columns 'hue', 'glow'"),
        (np.full((N, 2), np.datetime64("2020-01-01")), NotNumbersError, "'x0', 'x1': dates and times"),
        (feat().astype(complex), NotNumbersError, "Complex data not supported"),
        (sparse.csr_array(feat()), FeatureError, "Sparse features are not supported.*toarray"),
        (feat()[:, 0], FeatureError, "1 dimension.*Reshape"),
        (feat()[None], FeatureError, "3 dimension"),
        (feat()[:, :0], FeatureError, r"0 feature\(s\) \(shape=\(40, 0\)\) while a minimum of 1"),
        (feat()[:0], FeatureError, "0 samples"),
        (feat()[:1], FeatureError, "1 sample;"),
        (feat()[:3], FeatureError, "3 samples; a selection needs at least 4"),
        ([[1, 2], [3]], DataError, "This is no table"),
        (frame().set_axis(["a", "b", "a", "b"], axis=1), FeatureError, "Duplicated names: columns 'a', 'b'"),
        (np.ones((N, 3)), FeatureError, "Every feature is constant"),
    ],
)
def test_unusable_features_are_named_with_a_cure(
    features: Any, kind: type[CotrayError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        check_table(features, LABEL)
    assert isinstance(caught.value, ValueError)


def test_names_must_fit_the_width() -> None:
    with pytest.raises(FeatureError, match="There are 1 names for 4 features"):
        check_table(feat(), LABEL, names=["a"])
    with pytest.raises(FeatureError, match="Duplicated names: column 'a'"):
        check_table(feat(), LABEL, names=["a", "a", "b", "c"])


def test_what_is_no_number_is_a_type_error_too() -> None:
    with pytest.raises(TypeError, match="'edge'"):
        check_table(frame(edge=["soft"] * N), LABEL)


def test_constant_columns_are_told_and_never_selected() -> None:
    """Even where size costs nothing and every agent starts with half of the features."""
    rng = np.random.default_rng(1)
    noise_ND = rng.normal(size=(N, 12))
    noise_ND[:, ::2] = [0.0, 0.1, -1e6, 3.7, 1e-30, 1.0]
    checked = check_table(noise_ND, LABEL)
    assert checked.notes == [
        "constant, and therefore never selected: columns 'x0', 'x2', 'x4', 'x6', 'x8' and 1 more"
    ]
    assert checked.overruled == []
    config = load_config(overrides=["fitness.weight=1.0", "sca.init=random", "sca.iterations=3"])
    for seed in range(5):
        found = select_features(checked.table, config, seed)
        assert found.mask_D.any() and not found.mask_D[::2].any()
        assert found.pool.tolist() == [1, 3, 5, 7, 9, 11]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, N - 1), st.integers(0, D - 1)), min_size=1), st.data())
def test_every_bad_value_is_counted_at_its_column(places: list[tuple[int, int]], data: st.DataObject) -> None:
    array = feat()
    for row, column in places:
        array[row, column] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    counts = [len({row for row, c in places if c == column}) for column in range(D)]
    with pytest.raises(FeatureError) as caught:
        check_table(array, LABEL, names=NAMES)
    for name, count in zip(NAMES, counts, strict=True):
        assert (f"'{name}' ({count} value" in caught.value.what) == (count > 0)


# -- targets ------------------------------------------------------------------------------------------------

CATS = np.array(["blast", "normal"])[LABEL]


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (CATS.tolist(), ["blast", "normal"]),
        (CATS.astype(object), ["blast", "normal"]),
        (CATS.astype("S"), [b"blast", b"normal"]),
        (pd.Series(CATS, dtype="category"), ["blast", "normal"]),
        (pl.Series(CATS), ["blast", "normal"]),
        (LABEL == 1, [False, True]),
        (pd.Series(LABEL == 1, dtype="boolean"), [False, True]),
        (LABEL.astype(float), [0.0, 1.0]),
        (list(LABEL.astype(object)), [0, 1]),
        (pd.Series(LABEL, dtype="category"), [0, 1]),
        (np.arange(N) % 3 - 1, [-1, 0, 1]),
    ],
)
def test_classes_may_be_text_numbers_or_booleans(target: Any, classes: list[Any]) -> None:
    label_N = check_table(feat(), target).table.label_N
    assert np.unique(label_N).tolist() == classes
    assert label_N.dtype.kind != "O"


@pytest.mark.parametrize(
    ("target", "kind", "message"),
    [
        (None, DataError, "the target y is None"),
        (np.zeros(N), ClassError, "1 class: 0.0"),
        (["blast"] * N, ClassError, "1 class: blast. .target. Give samples of another class"),
        (np.linspace(0, 1, N), ClassError, "continuous.*qcut"),
        (np.where(LABEL, np.nan, 1.0), DataError, "20 of 40 values are missing.*rows 1, 3, 5, 7, 9, ..."),
        (np.where(LABEL, np.inf, 1.0), DataError, "20 of 40 values are missing, NaN or infinite"),
        ([None, *CATS[1:]], DataError, r"1 of 40 .*\(rows 0\)\. \[target\] Drop these samples"),
        (pd.Series([None, *CATS[1:]], dtype="category"), DataError, "1 of 40 values are missing"),
        (pd.Series([True, None] * (N // 2), dtype="boolean"), DataError, "20 of 40"),
        ([1, "a"] * (N // 2), DataError, None),
        (np.array([1, "a"] * (N // 2), object), DataError, "int and str cannot be compared"),
        (LABEL[:-1], DataError, "39 values for 40 samples"),
        (np.stack([LABEL, LABEL], axis=1), DataError, "y should be a 1d array"),
        ("blast", DataError, "y should be a 1d array"),
    ],
)
def test_unusable_targets_are_refused(target: Any, kind: type[CotrayError], message: str | None) -> None:
    if message is None:  # NumPy makes text of it: two classes, "1" and "a"
        assert np.unique(check_table(feat(), target).table.label_N).tolist() == ["1", "a"]
        return
    with pytest.raises(kind, match=message) as caught:
        check_table(feat(), target)
    assert isinstance(caught.value, ValueError)


def test_a_column_vector_is_taken_with_scikit_learns_warning() -> None:
    with pytest.warns(DataConversionWarning, match="column-vector"):
        checked = check_table(feat(), LABEL[:, None])
    np.testing.assert_array_equal(checked.table.label_N, LABEL)


# -- groups and folds ---------------------------------------------------------------------------------------


def test_without_groups_every_sample_is_its_own() -> None:
    assert len(np.unique(check_table(feat(), LABEL).table.group_N)) == N
    np.testing.assert_array_equal(check_table(feat(), LABEL, GROUP).table.group_N, GROUP)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([None, *GROUP[1:]], r"1 of 40 values are missing.*\(rows 0\)\. \[groups\] Drop"),
        (np.where(LABEL, np.nan, 1.0), "20 of 40 values are missing"),
        (GROUP[:-1], r"39 values for 40 samples\. \[groups\].*same order"),
        (np.array([1, "a"] * (N // 2), object), "int and str cannot be compared"),
    ],
)
def test_unusable_groups_are_refused(groups: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_table(feat(), LABEL, groups)


@pytest.mark.parametrize("scheme", ["auto", "folds", "holdout", "leave_out"])
def test_a_class_of_a_single_group_is_named_with_it(scheme: str) -> None:
    group = np.where(CATS == "blast", "ann", GROUP)
    config = load_config(overrides=[f"fitness.scheme={scheme}"])
    with pytest.raises(TooFewGroupsError, match=r"Class 'blast' has a single group: 'ann'.*another group"):
        check_table(feat(), CATS, group, config=config)


@pytest.mark.parametrize("grouped", [True, False])
def test_a_class_of_a_single_sample_can_only_be_told_where_each_is_left_out(grouped: bool) -> None:
    rare = np.where(np.arange(N) == 7, "odd", CATS)
    groups = np.arange(N) if grouped else None
    if not grouped:
        notes = check_table(feat(), rare).notes
        assert notes == ["classes with a single sample, which is always called wrongly: 'odd'"]
    what = "group: '7'" if grouped else "sample"
    with pytest.raises(TooFewGroupsError, match=f"Class 'odd' has a single {what}"):
        check_table(feat(), rare, groups, config=load_config(overrides=[FOLDS]))


def checked_folds(*settings: str) -> tuple[Checked, int]:
    """What is said of 3 groups of class 0 and 5 of class 1, and the folds that there are in truth."""
    group = np.where(LABEL, GROUP, np.char.add("g", (np.arange(N) % 3).astype(str)))
    config = load_config(overrides=settings)
    checked = check_table(feat(), LABEL, group, config=config)
    table = checked.table
    fold_RN = make_problem(table.feat_ND, table.label_N, table.group_N, config.fitness, 0).fold_RN
    return checked, len(np.unique(fold_RN))


@pytest.mark.parametrize("folds", [2, 3, 4, 9])
def test_fewer_folds_than_asked_for_are_told(folds: int) -> None:
    checked, true = checked_folds(FOLDS, f"fitness.folds={folds}")
    assert true == min(folds, 3)
    expected = [] if folds < 4 else [f"3 folds instead of {folds}: class '0' has only 3 groups"]
    assert checked.overruled == checked.notes == expected


def test_a_hold_out_larger_than_asked_for_is_told() -> None:
    checked, _ = checked_folds("fitness.scheme=holdout", "fitness.holdout=0.1")
    assert checked.overruled == ["3 folds instead of 10: class '0' has only 3 groups"]
    assert checked_folds("fitness.scheme=holdout", "fitness.holdout=0.4")[0].notes == []


def test_leaving_every_group_out_needs_no_number_of_folds() -> None:
    checked, true = checked_folds("fitness.folds=9")
    assert (checked.notes, true) == ([], 8)


def test_few_samples_many_samples_and_many_classes_are_told() -> None:
    assert check_table(feat()[:29], LABEL[:29]).notes == ["only 29 samples: what is found may be chance"]
    assert check_table(feat(), LABEL).notes == []
    most = load_config(overrides=["fitness.max_cells=30"])
    assert check_table(feat(), LABEL, config=most).notes == ["30 of 40 samples take part (fitness.max_cells)"]
    ages = check_table(feat(), np.arange(N)).notes
    assert ages == ["40 classes in 40 samples: is the target a number to be predicted?"]
