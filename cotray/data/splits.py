"""Groups and splits: no group on two sides, both classes on every side, frozen by a digest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cotray.config import SplitConfig
from cotray.data.hashing import Hashes, find_near, joined
from cotray.data.layouts import natural
from cotray.errors import ClassError, DataError, TooFewGroupsError

SIDES = ("train", "val", "test")


def group_records(
    paths: Sequence[str],
    labels: Sequence[int | None],
    subjects: Sequence[str | None],
    hashes_N: Hashes,
    config: SplitConfig,
) -> list[str]:
    """The group of each image: its subject, or a block of neighbours; near-duplicates are merged.

    Where a dataset names no subject, ``config.block`` consecutive files of a class (by natural order of
    the path) form a group: files taken from one patient or one smear lie side by side. Images whose
    perceptual hashes are near then join their groups, so that no near-duplicate crosses the split.
    """
    base = _base_groups(paths, labels, subjects, config.block)
    names = {name: number for number, name in enumerate(dict.fromkeys(base))}
    number_N = np.asarray([names[name] for name in base], np.int64)
    links = find_near(hashes_N, config.near_duplicate_bits).links()
    merged = joined(len(names), number_N[links])
    return [f"g{merged[number]:05d}" for number in number_N]


def _base_groups(
    paths: Sequence[str], labels: Sequence[int | None], subjects: Sequence[str | None], block: int
) -> list[str]:
    base = [f"subject {subject}" if subject else "" for subject in subjects]
    rest: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        if not base[index]:
            rest.setdefault(f"{path.rpartition('/')[0]} {labels[index]}", []).append(index)
    for where, members in rest.items():
        members.sort(key=lambda i: natural(paths[i]))
        for place, index in enumerate(members):
            base[index] = f"block {where} {place // block}"
    return base


def make_split(
    groups: Sequence[str], labels: Sequence[int | None], config: SplitConfig, seed: int
) -> list[str]:
    """``train``, ``val``, ``test`` or ``unlabelled`` for each image.

    ``disjoint`` gives whole groups, class by class, so that each side gets its share of each class'
    images as nearly as whole groups allow. A class with two groups has one in train and one in test.
    ``leaky`` shuffles images of a class regardless of groups. With ``config.folds`` the test side is one
    fold of a stratified K-fold over the same groups: over all folds each image is tested exactly once.
    Raises ClassError, TooFewGroupsError.
    """
    counts = Counter(label for label in labels if label is not None)
    if len(counts) < 2:
        only = "normal" if 0 in counts else "malignant" if 1 in counts else "unlabelled"
        raise ClassError(
            f"All {len(labels)} usable images are {only}; two classes are needed.",
            cure="Give images of both classes, or check dataset.class_map.",
        )
    units = list(groups) if config.mode == "disjoint" else [str(i) for i in range(len(groups))]
    units_of = {of_class: _units_of(of_class, units, labels) for of_class in sorted(counts)}
    for of_class, members in units_of.items():
        if len(members) < (config.folds or 2):
            raise _too_few(of_class, counts[of_class], config)
    of_unit = _fold(units, labels, config, seed) if config.folds else {}
    rng = np.random.default_rng(seed)
    for members in units_of.values():
        _assign(members, of_unit, config, rng)
    _ensure_sides(list(units_of.values()), of_unit)
    return [
        "unlabelled" if label is None else of_unit[unit] for unit, label in zip(units, labels, strict=True)
    ]


def _fold(
    units: Sequence[str], labels: Sequence[int | None], config: SplitConfig, seed: int
) -> dict[str, str]:
    """``test`` for the units of the fold that is asked for; the folds depend on data and seed alone."""
    known = [index for index, label in enumerate(labels) if label is not None]
    label_N = np.asarray([labels[index] for index in known], np.int64)
    unit_N = np.asarray([units[index] for index in known])
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # slow to import

    splitter = StratifiedGroupKFold if config.mode == "disjoint" else StratifiedKFold
    folds = splitter(int(config.folds or 2), shuffle=True, random_state=seed)
    # Only StratifiedGroupKFold looks at the groups; images of the leaky split are units of their own.
    parts = list(folds.split(label_N, label_N, unit_N if config.mode == "disjoint" else None))
    rest, test = parts[config.fold]
    if min(len(set(label_N[rest])), len(set(label_N[test]))) < 2:
        raise TooFewGroupsError(
            f"Fold {config.fold} of {config.folds} would train or test on one class only: "
            "too many groups hold both classes.",
            cure="Use fewer folds (split.folds), or another seed.",
        )
    return dict.fromkeys(unit_N[test].tolist(), "test")


def _units_of(label: int, units: Sequence[str], labels: Sequence[int | None]) -> dict[str, int]:
    """Unit -> number of its images with this label; a unit of both classes counts for each."""
    return dict(Counter(u for u, seen in zip(units, labels, strict=True) if seen == label))


def _too_few(label: int, images: int, config: SplitConfig) -> TooFewGroupsError:
    name = "malignant" if label else "normal"
    wanted = "two groups, so they cannot be on both sides of a split"
    if config.folds:
        wanted = f"{config.folds} groups, so they cannot be in each of {config.folds} folds"
    return TooFewGroupsError(
        f"The {images} {name} images form fewer than {wanted}.",
        cure="Give images of more subjects, or lower split.block or split.near_duplicate_bits"
        + (", or split.folds." if config.folds else "."),
    )


def _assign(
    members: dict[str, int], of_unit: dict[str, str], config: SplitConfig, rng: np.random.Generator
) -> None:
    """Give each unit of a class to the side that lacks most of its share; large units first, ties drawn.

    With folds the test side is given already.
    """
    total = sum(members.values())
    test = 1 / config.folds if config.folds else config.test_fraction
    want = {
        "train": total * (1 - test) * (1 - config.val_fraction),
        "val": total * (1 - test) * config.val_fraction,
        "test": total * test,
    }
    order = [list(members)[i] for i in rng.permutation(len(members))]
    order.sort(key=lambda unit: -members[unit])
    for unit in order:
        if unit in of_unit:
            want[of_unit[unit]] -= members[unit]
    if config.folds:
        del want["test"]
    for unit in (unit for unit in order if unit not in of_unit):
        side = max(want, key=lambda name: want[name])
        of_unit[unit] = side
        want[side] -= members[unit]


def _ensure_sides(classes: Sequence[dict[str, int]], of_unit: dict[str, str]) -> None:
    """Every class is trained on and tested, even where whole groups would say otherwise."""
    for members in classes:
        for need in ("train", "test"):
            if all(of_unit[unit] != need for unit in members):
                donors = [u for u in members if of_unit[u] == "val"]
                donors = donors or [u for u in members if not _alone(u, classes, of_unit)]
                of_unit[min(donors, key=lambda unit: members[unit])] = need


def _alone(unit: str, classes: Sequence[dict[str, int]], of_unit: dict[str, str]) -> bool:
    """Whether a class would have nothing on this side without this unit.

    Of two units of a class on one side, at most one is alone there in the other class: one can go.
    """
    side = of_unit[unit]
    return any(
        unit in members and all(of_unit[other] != side for other in members if other != unit)
        for members in classes
    )


def check_disjoint(groups: Sequence[str], sides: Sequence[str]) -> None:
    """Raise DataError where a group is on two labelled sides."""
    seen: dict[str, str] = {}
    for group, side in zip(groups, sides, strict=True):
        if side in SIDES and seen.setdefault(group, side) != side:
            raise DataError(f"The group {group} is on two sides of the split: {seen[group]} and {side}.")


def split_digest(ids: Sequence[str], sides: Sequence[str], groups: Sequence[str]) -> str:
    """sha256 over (id, side, group), whatever the order."""
    lines = sorted(f"{i}\t{s}\t{g}" for i, s, g in zip(ids, sides, groups, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def group_sizes(groups: Sequence[str]) -> NDArray[np.int64]:
    """Sizes of the groups, largest first."""
    return np.sort(np.asarray(list(Counter(groups).values()), np.int64))[::-1]
