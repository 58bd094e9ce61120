"""The catalog: names, limits, painted masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotray.data.catalog import DATASETS, decode_cell_mask, find_dataset, limit_records
from cotray.data.decode import decode_mask_file
from cotray.data.phantom import phantom_index
from cotray.data.records import ImageRecord
from cotray.errors import UnknownNameError
from cotray.imaging.masks import iou, own_cell


def records(**counts: int) -> list[ImageRecord]:
    return [ImageRecord(f"{name}/{i:04d}", 1, name, None) for name, n in counts.items() for i in range(n)]


def test_every_layout_is_found_by_its_name() -> None:
    assert all(find_dataset(name).name == name for name in DATASETS)
    assert {"c-nmc", "all-idb1", "all-idb2", "sn-am", "folder", "phantom"} <= set(DATASETS)
    assert all(layout.title and layout.summary for layout in DATASETS.values())


def test_unknown_dataset_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="all_idb2") as caught:
        find_dataset("all_idb2")
    assert "Did you mean 'all-idb2'?" in str(caught.value.cure) and "phantom" in str(caught.value.cure)


def test_limit_keeps_the_classes_shares_and_spreads_over_the_listing() -> None:
    kept = limit_records(records(a=600, b=300, c=100), 100)
    assert Counter(r.class_name for r in kept) == {"a": 60, "b": 30, "c": 10}
    places = [int(r.path[2:]) for r in kept if r.class_name == "a"]
    assert places[0] == 0 and places[-1] == 599 and set(np.diff(places)) <= {10, 11}


def test_limit_of_a_rare_class_is_at_least_one() -> None:
    assert Counter(r.class_name for r in limit_records(records(a=1000, b=3), 10))["b"] == 1


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 120))
@settings(deadline=None, max_examples=100)
def test_limit_is_never_exceeded_and_order_stays(sizes: list[int], limit: int) -> None:
    everything = records(**{f"c{i}": size for i, size in enumerate(sizes)})
    kept = limit_records(everything, limit)
    paths = [r.path for r in everything]
    assert len({r.path for r in kept}) == len(kept) == min(limit, len(everything))
    assert kept == sorted(kept, key=lambda r: paths.index(r.path))
    assert len({r.class_name for r in kept}) == min(len(sizes), limit)


def test_limit_takes_phantoms_of_both_classes() -> None:
    kept = limit_records(phantom_index("all-idb2", 24, 8, 0), 12)
    assert Counter(spec.class_name for spec in kept) == {"malignant": 8, "normal": 4}


@pytest.mark.parametrize("paint", ["on black", "on white"])
def test_painted_masks_are_read_whatever_lies_around_the_cell(paint: str) -> None:
    nucleus, cytoplasm, around = np.zeros((3, 30, 40), bool)
    around[:] = True
    cytoplasm[8:20, 9:30] = True
    nucleus[10:16, 12:20] = True
    raw = np.zeros((30, 40, 3), np.uint8)
    if paint == "on white":
        raw[around], raw[cytoplasm], raw[nucleus] = 255, (0, 0, 255), (0, 255, 255)
    else:
        raw[cytoplasm], raw[nucleus] = 128, 255
    assert np.array_equal(decode_cell_mask("all-idb2", raw, "mask.png"), cytoplasm)


@pytest.mark.data
def test_both_annotators_of_all_idb2_are_read_alike(shared_data: Callable[[str], Path]) -> None:
    root, agreement = shared_data("all-idb2"), []
    for file in sorted((root / "masks-banik").glob("*"))[::20]:
        other = next((root / "masks-putzu").glob(f"{file.stem}.*"))
        a, b = (decode_cell_mask("all-idb2", decode_mask_file(f.read_bytes()), f.name) for f in (file, other))
        agreement.append(iou(a, b))
    assert len(agreement) == 13 and np.mean(agreement) > 0.88


@pytest.mark.data
def test_banik_paints_neighbours_in_21_images_whose_own_cell_is_putzus(
    shared_data: Callable[[str], Path],
) -> None:
    root, before, after = shared_data("all-idb2"), [], []
    for file in sorted((root / "masks-banik").glob("*")):
        other = next((root / "masks-putzu").glob(f"{file.stem}.*"))
        a, b = (decode_cell_mask("all-idb2", decode_mask_file(f.read_bytes()), f.name) for f in (file, other))
        own = own_cell(a)
        if not np.array_equal(own, a):
            before.append(iou(a, b))
            after.append(iou(own, b))
        assert np.array_equal(own_cell(b), b), "his masks are of one cell"
    assert len(after) == 21
    assert min(after) > 0.85 and max(before) < 0.91 and np.mean(after) - np.mean(before) > 0.2
