"""Groups and splits: properties over random datasets."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotray.config import SplitConfig, validate
from cotray.data.splits import SIDES, check_disjoint, group_records, group_sizes, make_split, split_digest
from cotray.errors import ClassError, DataError, InvalidValueError, TooFewGroupsError

SPLIT = SplitConfig()
quick = settings(deadline=None, max_examples=60)


@st.composite
def datasets(draw: st.DrawFn) -> tuple[list[str], list[int | None]]:
    """Groups and labels with at least two groups of each class; groups may hold both, or unlabelled ones."""
    rows: list[tuple[str, int | None]] = []
    for label in (0, 1):
        sizes = draw(st.lists(st.integers(1, 9), min_size=2, max_size=12))
        rows += [(f"{label}-{g}", label) for g, size in enumerate(sizes) for _ in range(size)]
    strays = draw(
        st.lists(st.tuples(st.sampled_from(sorted({g for g, _ in rows})), st.sampled_from([0, 1, None])))
    )
    rows = draw(st.permutations(rows + strays))
    return [group for group, _ in rows], [label for _, label in rows]


@given(datasets(), st.integers(0, 99), st.sampled_from(["disjoint", "leaky"]))
@quick
def test_every_labelled_image_is_on_one_side(
    data: tuple[list[str], list[int | None]], seed: int, mode: str
) -> None:
    groups, labels = data
    sides = make_split(groups, labels, SplitConfig.model_validate({"mode": mode}), seed)
    assert len(sides) == len(groups)
    for side, label in zip(sides, labels, strict=True):
        assert side in SIDES if label is not None else side == "unlabelled"


@given(datasets(), st.integers(0, 99))
@quick
def test_no_group_is_on_two_sides(data: tuple[list[str], list[int | None]], seed: int) -> None:
    groups, labels = data
    sides = make_split(groups, labels, SPLIT, seed)
    seen = {(g, side) for g, side in zip(groups, sides, strict=True) if side != "unlabelled"}
    assert len(seen) == len({g for g, _ in seen})
    check_disjoint(groups, sides)


@given(datasets(), st.integers(0, 99))
@quick
def test_each_class_is_learned_and_tested(data: tuple[list[str], list[int | None]], seed: int) -> None:
    groups, labels = data
    for mode in ("disjoint", "leaky"):
        sides = make_split(groups, labels, SplitConfig.model_validate({"mode": mode}), seed)
        found = set(zip(labels, sides, strict=True))
        assert {(label, side) for label in (0, 1) for side in ("train", "test")} <= found


@given(datasets(), st.integers(0, 99))
@quick
def test_same_seed_same_split(data: tuple[list[str], list[int | None]], seed: int) -> None:
    groups, labels = data
    assert make_split(groups, labels, SPLIT, seed) == make_split(groups, labels, SPLIT, seed)


def test_a_group_of_both_classes_does_not_take_a_side_from_either() -> None:
    groups, labels = list("abcccddddd"), [0, 0, 1, 1, 1, 1, 1, 1, 0, 0]
    for seed in range(10):
        found = set(zip(labels, make_split(groups, labels, SPLIT, seed), strict=True))
        assert {(label, side) for label in (0, 1) for side in ("train", "test")} <= found


def test_other_seed_other_split() -> None:
    groups, labels = [f"g{i // 4}" for i in range(160)], [i % 4 // 4 + i // 80 for i in range(160)]
    splits = {tuple(make_split(groups, labels, SPLIT, seed)) for seed in range(8)}
    assert len(splits) == 8


@given(
    st.lists(st.integers(1, 12), min_size=20, max_size=40),
    st.floats(0.15, 0.5),
    st.floats(0.15, 0.4),
    st.integers(0, 99),
)
@quick
def test_fractions_are_nearly_as_asked(sizes: list[int], test: float, val: float, seed: int) -> None:
    """Within one largest group, for each class."""
    groups = [f"{label}-{g}" for label in (0, 1) for g, size in enumerate(sizes) for _ in range(size)]
    labels = [int(group[0]) for group in groups]
    config = SplitConfig(test_fraction=test, val_fraction=val)
    count = Counter(zip(labels, make_split(groups, labels, config, seed), strict=True))
    wanted = {"train": (1 - test) * (1 - val), "val": (1 - test) * val, "test": test}
    for label in (0, 1):
        for side, share in wanted.items():
            assert abs(count[label, side] - share * sum(sizes)) <= max(sizes)


# ---- folds -----------------------------------------------------------------------------------------


@st.composite
def many_groups(draw: st.DrawFn) -> tuple[list[str], list[int | None]]:
    """At least five groups of each class, each of one class, in any order; some images unlabelled."""
    rows: list[tuple[str, int | None]] = []
    for label in (0, 1):
        sizes = draw(st.lists(st.integers(1, 6), min_size=5, max_size=14))
        rows += [(f"{label}-{g}", label) for g, size in enumerate(sizes) for _ in range(size)]
    rows += [(f"x-{g}", None) for g in range(draw(st.integers(0, 3)))]
    rows = draw(st.permutations(rows))
    return [group for group, _ in rows], [label for _, label in rows]


def all_folds(
    data: tuple[list[str], list[int | None]], folds: int, seed: int, mode: str = "disjoint"
) -> list[list[str]]:
    configs = [SplitConfig.model_validate({"folds": folds, "fold": k, "mode": mode}) for k in range(folds)]
    return [make_split(*data, config, seed) for config in configs]


@given(many_groups(), st.integers(2, 5), st.integers(0, 99), st.sampled_from(["disjoint", "leaky"]))
@quick
def test_over_all_folds_each_image_is_tested_once(
    data: tuple[list[str], list[int | None]], folds: int, seed: int, mode: str
) -> None:
    sides = all_folds(data, folds, seed, mode)
    for index, label in enumerate(data[1]):
        seen = [of_fold[index] for of_fold in sides]
        assert seen.count("test") == (label is not None) and set(seen) <= {*SIDES, "unlabelled"}
        assert (label is None) == ("unlabelled" in seen)


@given(many_groups(), st.integers(2, 5), st.integers(0, 99))
@quick
def test_each_fold_keeps_groups_whole_and_has_both_classes(
    data: tuple[list[str], list[int | None]], folds: int, seed: int
) -> None:
    for sides in all_folds(data, folds, seed):
        check_disjoint(data[0], sides)
        found = set(zip(data[1], sides, strict=True))
        assert {(label, side) for label in (0, 1) for side in ("train", "test")} <= found


def test_folds_are_stratified_and_validation_is_carved_out_of_the_rest() -> None:
    groups = [f"{label}-{i // 4}" for label in (0, 1) for i in range(200 if label else 100)]
    labels = [int(group[0]) for group in groups]
    for sides in all_folds((groups, labels), 5, 0):
        count = Counter(zip(labels, sides, strict=True))
        assert count[0, "test"] == 20 and count[1, "test"] == 40
        assert abs(count[0, "val"] - 16) <= 4 and abs(count[1, "val"] - 32) <= 4


def test_folds_depend_on_the_seed_alone() -> None:
    data = ([f"g{i // 4}" for i in range(160)], [i // 80 for i in range(160)])
    first, again, other = (all_folds(data, 4, seed) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(
    ("fold", "folds", "said"), [(5, 5, "split.folds is 5"), (1, None, "split.folds is not set")]
)
def test_a_fold_that_is_not_there_is_refused(fold: int, folds: int | None, said: str) -> None:
    tree = {"split": {"fold": fold, "folds": folds}}
    with pytest.raises(InvalidValueError, match=said):
        validate(tree)


def test_fewer_groups_than_folds_is_an_error_with_a_cure() -> None:
    groups = [f"{label}-{i}" for label in (0, 1) for i in range(5 - label)]
    with pytest.raises(TooFewGroupsError, match="4 malignant images form fewer than 5 groups") as caught:
        make_split(groups, [int(group[0]) for group in groups], SplitConfig(folds=5), 0)
    assert "split.folds" in str(caught.value.cure)


def test_a_class_that_one_fold_holds_whole_is_an_error() -> None:
    """Two groups hold normal images, and the greedy stratification puts both into one fold."""
    groups, labels = ["a"] * 9 + ["b"] * 3 + ["c"] * 6, [1] * 9 + [0] * 3 + [0] * 3 + [1] * 3
    with pytest.raises(TooFewGroupsError, match="one class only") as caught:
        make_split(groups, labels, SplitConfig(folds=2), 0)
    assert "split.folds" in str(caught.value.cure)


def test_two_groups_give_one_to_train_and_one_to_test() -> None:
    groups, labels = list("aabbcccd"), [0, 0, 0, 0, 1, 1, 1, 1]
    sides = make_split(groups, labels, SPLIT, 0)
    assert set(sides[:4]) == set(sides[4:]) == {"train", "test"}


def test_leaky_parts_groups_and_disjoint_does_not() -> None:
    groups = [f"g{i // 10}" for i in range(200)]
    labels = [i // 100 for i in range(200)]
    leaky = make_split(groups, labels, SplitConfig(mode="leaky"), 0)
    parted = {g for g in groups if len({s for h, s in zip(groups, leaky, strict=True) if h == g}) > 1}
    assert len(parted) > 15
    assert Counter(leaky) == {"train": 112, "val": 28, "test": 60}
    with pytest.raises(DataError, match="two sides"):
        check_disjoint(groups, leaky)


@pytest.mark.parametrize(
    ("labels", "name"), [([0] * 9, "normal"), ([1] * 9, "malignant"), ([None] * 9, "unlab")]
)
def test_one_class_is_an_error_with_a_cure(labels: list[int | None], name: str) -> None:
    with pytest.raises(ClassError, match=name) as caught:
        make_split([f"g{i}" for i in range(9)], labels, SPLIT, 0)
    assert caught.value.cure


def test_one_group_of_a_class_is_an_error_with_a_cure() -> None:
    with pytest.raises(TooFewGroupsError, match="4 malignant") as caught:
        make_split(list("abcdxxxx"), [0, 0, 0, 0, 1, 1, 1, 1], SPLIT, 0)
    assert "split.block" in str(caught.value.cure)


# ---- groups ----------------------------------------------------------------------------------------


def far_hashes(count: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Hashes that are far from each other."""
    return np.random.default_rng(0).integers(0, 2**64, count, dtype=np.uint64)


def partition(groups: list[str]) -> set[frozenset[int]]:
    return {frozenset(i for i, g in enumerate(groups) if g == name) for name in groups}


def test_subjects_are_groups() -> None:
    subjects = ["a", "b", "a", "c", "b"]
    groups = group_records(list("vwxyz"), [0, 1, 0, 1, 1], subjects, far_hashes(5), SPLIT)
    assert partition(groups) == {frozenset({0, 2}), frozenset({1, 4}), frozenset({3})}


def test_blocks_of_neighbours_where_no_subject_is_named() -> None:
    """By natural order, within a folder and a class; whatever the order of the listing."""
    paths = [f"img/Im{i}_{label}.tif" for label in (0, 1) for i in range(1, 13)]
    order = np.random.default_rng(1).permutation(24)
    listed = [paths[i] for i in order]
    labels = [int(path[-5]) for path in listed]
    groups = group_records(listed, labels, [None] * 24, far_hashes(24), SplitConfig(block=5))
    of = dict(zip(listed, groups, strict=True))
    assert len({of[f"img/Im{i}_1.tif"] for i in range(1, 6)}) == 1
    assert of["img/Im5_1.tif"] != of["img/Im6_1.tif"] == of["img/Im10_1.tif"] != of["img/Im11_1.tif"]
    assert of["img/Im1_0.tif"] != of["img/Im1_1.tif"]
    assert group_sizes(groups).tolist() == [5, 5, 5, 5, 2, 2]


def test_near_duplicates_join_their_groups() -> None:
    hashes = far_hashes(6)
    hashes[4] = hashes[0] ^ np.uint64(0b101)  # 2 bits
    hashes[5] = hashes[2] ^ np.uint64(2**40 - 1)  # 40 bits
    groups = group_records(list("uvwxyz"), [0] * 6, list("aabbcd"), hashes, SPLIT)
    assert partition(groups) == {frozenset({0, 1, 4}), frozenset({2, 3}), frozenset({5})}
    apart = group_records(list("uvwxyz"), [0] * 6, list("aabbcd"), hashes, SplitConfig(near_duplicate_bits=1))
    assert len(set(apart)) == 4


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=30), st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_groups_keep_subjects_together(subjects: list[str | None], block: int) -> None:
    count = len(subjects)
    paths = [f"{i}.png" for i in range(count)]
    groups = group_records(paths, [0] * count, subjects, far_hashes(count), SplitConfig(block=block))
    for subject in set(subjects) - {None}:
        assert len({g for g, s in zip(groups, subjects, strict=True) if s == subject}) == 1
    unnamed = [g for g, s in zip(groups, subjects, strict=True) if s is None]
    assert not unnamed or max(Counter(unnamed).values()) <= block


def test_digest_does_not_depend_on_order_and_notices_a_change() -> None:
    ids, sides, groups = ["a", "b", "c"], ["train", "val", "test"], ["g1", "g2", "g3"]
    digest = split_digest(ids, sides, groups)
    assert digest == split_digest(ids[::-1], sides[::-1], groups[::-1]) and len(digest) == 64
    assert digest != split_digest(ids, ["train", "test", "test"], groups)
    assert digest != split_digest(ids, sides, ["g1", "g2", "g2"])
