"""The leak audit: clusters, what they span, and the real duplicates of a published set."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cotray.evaluation.leaks import AuditImage, audit_leaks

FAR = np.random.default_rng(0).integers(0, 2**64, 40, dtype=np.uint64).tolist()


def image(name: str, phash: int, **facts: Any) -> AuditImage:
    given: dict[str, Any] = {"digest": name, "class_name": "sick", "label": 1, "side": "train"} | facts
    return AuditImage(id=name, phash=phash, **given)


def test_without_copies_there_is_no_cluster() -> None:
    found = audit_leaks([image(str(n), FAR[n]) for n in range(20)], 6)
    assert found.clusters == () and found.exact_groups == found.near_pairs == 0
    assert audit_leaks([], 6).clusters == ()


def test_exact_copies_and_near_duplicates_are_told_apart() -> None:
    rows = [image("a", FAR[0], digest="x"), image("b", FAR[0], digest="x"), image("c", FAR[0] ^ 0b11)]
    found = audit_leaks([*rows, image("d", FAR[1])], 6)
    (cluster,) = found.clusters
    assert cluster.ids == ["a", "b", "c"] and cluster.pictures == 2
    assert (found.exact_groups, found.exact_images) == (1, 2)
    assert found.near_by_bits == (0, 0, 2, 0, 0, 0, 0) and found.near_pairs == 2


def test_equal_hashes_of_different_pixels_are_near_not_exact() -> None:
    found = audit_leaks([image("a", FAR[0]), image("b", FAR[0])], 3)
    assert found.exact_groups == 0 and found.near_by_bits == (1, 0, 0, 0)


def test_a_cluster_says_what_it_spans() -> None:
    first = image("a", FAR[0], digest="x", subject="p1", fold="fold_0", side="train")
    other = {"class_name": "well", "label": 0, "subject": "p2", "fold": "fold_1", "side": "test"}
    (cluster,) = audit_leaks([first, image("b", FAR[0], digest="x", **other)], 6).clusters
    assert cluster.classes == ["sick", "well"] and cluster.conflict
    assert cluster.subjects == ["p1", "p2"] and cluster.folds == ["fold_0", "fold_1"]
    assert cluster.sides == ["train", "test"] and cluster.leaks


def test_two_malignant_classes_are_no_conflict_and_unlabelled_is_no_side() -> None:
    rows = [image("a", FAR[0]), image("b", FAR[0], class_name="early"), image("c", FAR[0], side="unlabelled")]
    (cluster,) = audit_leaks(rows, 6).clusters
    assert len(cluster.classes) == 2 and not cluster.conflict and not cluster.leaks


def test_the_most_suspicious_come_first() -> None:
    def pair(n: int, **second: object) -> list[AuditImage]:
        return [image(f"{n}a", FAR[n]), image(f"{n}b", FAR[n], **second)]

    large = [image(f"0{c}", FAR[0]) for c in "abcd"]
    rows = [*large, *pair(1), *pair(2, side="test"), *pair(3, label=0, class_name="well")]
    found = audit_leaks(rows, 6)
    assert [cluster.ids[0][0] for cluster in found.clusters] == ["3", "2", "0", "1"]
    assert (found.count("conflict"), found.count("leaks"), found.count("classes")) == (1, 1, 1)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 2)), max_size=16))
@settings(deadline=None, max_examples=50)
def test_figures_are_those_of_all_pairs(drawn: list[tuple[int, int, int]]) -> None:
    """Of a base, some flipped bits, and some copies with the same pixels."""
    hashes = [FAR[base] ^ (2**flips - 1) for base, flips, _ in drawn]
    rows = [
        image(str(i), phash, digest=f"{phash}-{copy}")
        for i, (phash, (_, _, copy)) in enumerate(zip(hashes, drawn, strict=True))
    ]
    found = audit_leaks(rows, 1)
    pairs = [(a, b) for i, a in enumerate(rows) for b in rows[:i] if (a.phash ^ b.phash).bit_count() <= 1]
    different = [(a.phash ^ b.phash).bit_count() for a, b in pairs if a.digest != b.digest]
    assert found.near_by_bits == (different.count(0), different.count(1))
    digests = [row.digest for row in rows]
    copied = {digest for digest in digests if digests.count(digest) > 1}
    assert found.exact_groups == len(copied)
    assert found.exact_images == sum(digest in copied for digest in digests)
    paired = {row.id for pair in pairs for row in pair}
    assert {name for cluster in found.clusters for name in cluster.ids} == paired
