"""The leak audit: which files show the same picture, or nearly, and what such a cluster spans.

A picture that is in train and in test is learned by heart; one that is filed under two classes is wrong in
one of them. Near-duplicates are grouped before the split, so that a disjoint split has none on two sides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cotray.data.hashing import Near, find_near, hamming, joined


@dataclass(frozen=True)
class AuditImage:
    """What the audit knows of one image."""

    id: str
    digest: str
    """Of the decoded pixels: equal for the same picture in another file format."""
    phash: int
    """64-bit perceptual hash."""
    class_name: str = ""
    """As the dataset calls it; empty where it is unlabelled."""
    label: int | None = None
    """1 malignant, 0 normal, None unlabelled."""
    subject: str | None = None
    fold: str | None = None
    """Fold or phase as published."""
    side: str | None = None
    """train, val, test or unlabelled."""


@dataclass(frozen=True)
class Cluster:
    """Images joined by chains of near-duplicates."""

    images: tuple[AuditImage, ...]

    @property
    def ids(self) -> list[str]:
        """Of its images, in the dataset's order."""
        return [image.id for image in self.images]

    @property
    def pictures(self) -> int:
        """Different pictures among its images; 1 = all of them are exact copies."""
        return len({image.digest for image in self.images})

    @property
    def classes(self) -> list[str]:
        """Class names it spans."""
        return sorted({image.class_name for image in self.images if image.class_name})

    @property
    def conflict(self) -> bool:
        """Whether it is both normal and malignant: a label is wrong, or different cells look alike."""
        return {0, 1} <= {image.label for image in self.images}

    @property
    def subjects(self) -> list[str]:
        """Subjects it spans; empty where the dataset names none."""
        return sorted({image.subject for image in self.images if image.subject})

    @property
    def folds(self) -> list[str]:
        """Published folds it spans."""
        return sorted({image.fold for image in self.images if image.fold})

    @property
    def sides(self) -> list[str]:
        """Sides of the split that it lies on; more than one is a leak."""
        return [s for s in ("train", "val", "test", "unlabelled") if s in {i.side for i in self.images}]

    @property
    def leaks(self) -> bool:
        """Whether it is on more than one labelled side of the split."""
        return len([side for side in self.sides if side != "unlabelled"]) > 1

    @property
    def suspicion(self) -> list[int]:
        """What makes one worse than another, the worst first; size decides among equals."""
        several = [len(names) > 1 for names in (self.classes, self.subjects, self.folds)]
        return [self.conflict, self.leaks, *several, len(self.images)]


@dataclass(frozen=True)
class LeakAudit:
    """Duplicates of a dataset."""

    images: int
    max_bits: int
    """Hashes that differ in at most this many bits are near."""
    exact_groups: int
    """Groups of two or more files that decode to the same pixels."""
    exact_images: int
    """Files in them."""
    near_by_bits: tuple[int, ...]
    """Pairs of different pictures whose hashes differ in 0, 1, ... ``max_bits`` bits."""
    clusters: tuple[Cluster, ...]
    """Of two or more images, the most suspicious first."""

    @property
    def near_pairs(self) -> int:
        """Pairs of near, not equal pictures."""
        return sum(self.near_by_bits)

    def count_text(self) -> str:
        """``3 clusters of 2 to 5 files``."""
        sizes = sorted(len(cluster.images) for cluster in self.clusters)
        if len(sizes) == 1:
            return f"1 cluster of {sizes[0]} files"
        span = f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
        return f"{len(sizes):,} clusters of {span} files"

    def count(self, what: str) -> int:
        """Clusters that span several ``classes``, ``subjects``, ``folds``; or ``conflict``, or ``leaks``."""
        values = [getattr(cluster, what) for cluster in self.clusters]
        return sum(value if isinstance(value, bool) else len(value) > 1 for value in values)


def audit_leaks(images: Sequence[AuditImage], max_bits: int) -> LeakAudit:
    """Find all clusters of near-duplicates; far below the cost of comparing all pairs."""
    near = find_near(np.asarray([image.phash for image in images], np.uint64), max_bits)
    of_N = joined(len(images), near.links())
    members: dict[int, list[AuditImage]] = {}
    for number, image in zip(of_N.tolist(), images, strict=True):
        members.setdefault(number, []).append(image)
    clusters = [Cluster(tuple(same)) for same in members.values() if len(same) > 1]
    copies = [n for n in Counter(image.digest for image in images).values() if n > 1]
    return LeakAudit(
        images=len(images),
        max_bits=max_bits,
        exact_groups=len(copies),
        exact_images=sum(copies),
        near_by_bits=_by_bits(near, max_bits, sum(n * (n - 1) // 2 for n in copies)),
        clusters=tuple(sorted(clusters, key=lambda cluster: cluster.suspicion, reverse=True)),
    )


def _by_bits(near: Near, max_bits: int, exact_pairs: int) -> tuple[int, ...]:
    size = np.bincount(near.of_N, minlength=len(near.distinct_U))
    a, b = near.pairs_K2.T
    bits = hamming(near.distinct_U[a], near.distinct_U[b])
    count = np.bincount(bits, size[a] * size[b], minlength=max_bits + 1).astype(np.int64)
    count[0] += int((size * (size - 1) // 2).sum()) - exact_pairs  # of one hash, but not the same pixels
    return tuple(count.tolist())
