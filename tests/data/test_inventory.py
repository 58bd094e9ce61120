"""What was found against what was published: counted on listings as large as the published ones."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest
import trees
from hypothesis import given, settings
from hypothesis import strategies as st

from cotray.config import DatasetConfig
from cotray.data.catalog import find_dataset, guess_dataset
from cotray.data.inventory import HEAD, Inventory, Sizes, read_sizes, size_of, take_inventory
from cotray.errors import DatasetNotFoundError, DuplicateIdError, EmptyDatasetError, LabelFileError


def count(
    name: str, files: Sequence[str], texts: dict[str, str] | None = None, **settings: object
) -> Inventory:
    """The inventory of a listing; ``texts`` are the tables in it."""
    config = DatasetConfig.model_validate({"name": name, **settings})
    return take_inventory(
        find_dataset(name), [*files, *(texts or {})], lambda path: (texts or {})[path], config
    )


@functools.cache
def whole_cnmc() -> tuple[list[str], dict[str, str]]:
    """Every file of C-NMC 2019 by name, with as many subjects as published, and the labels CSV."""
    files = []
    for fold, sizes in enumerate(((2397, 1130), (2418, 1163), (2457, 1096))):
        for kind, size, people in (("all", sizes[0], 47), ("hem", sizes[1], 26)):
            for cell in range(size):
                subject = f"{'H' if kind == 'hem' else ''}{cell % people + 1}"
                name = f"UID_{subject}_{fold}_{cell}_{kind}.bmp"
                files.append(f"{trees.TRAINING}/fold_{fold}/{kind}/{name}")
    files += [f"{trees.PRELIMINARY}/{n}.bmp" for n in range(1, 1868)]
    files += [f"{trees.FINAL}/{n}.bmp" for n in range(1, 2587)]
    rows = (
        f"UID_{'H' * (n > 1219)}{100 + n % 13}_1_1_x.bmp,{n}.bmp,{int(n <= 1219)}" for n in range(1, 1868)
    )
    return files, {trees.LABELS: "\n".join(["Patient_ID,new_names,labels", *rows])}


def listed(found: Inventory) -> dict[tuple[str, str], int]:
    return {(line.part, line.class_name): line.images for line in found.lines}


def test_the_whole_of_cnmc_is_complete() -> None:
    found = count("c-nmc", *whole_cnmc())
    assert found.missing == found.notes == found.faults == found.rejected == ()
    assert found.images == 10_661 + 1_867 + 2_586
    here = listed(found)
    assert here["training", "all"] == 7272 == sum(here[f"fold_{k}", "all"] for k in range(3))
    assert here["training", "hem"] == 3389 == sum(here[f"fold_{k}", "hem"] for k in range(3))
    assert here["preliminary", "all"] == 1219 and here["final", "unlabelled"] == 2586
    people = {line.class_name: line.subjects for line in found.lines if line.part == "training"}
    assert people == {"all": 47, "hem": 26}


def test_what_is_missing_is_named_by_fold_and_class() -> None:
    files, texts = whole_cnmc()
    kept = [f for f in files if "fold_2/hem" not in f and "UID_47_" not in f and trees.FINAL not in f]
    found = count("c-nmc", kept[1:], texts)
    assert "fold_2/hem: 0 found, published 1,096 (1,096 missing)" in found.missing
    assert "final/unlabelled: 0 found, published 2,586 (2,586 missing)" in found.missing
    assert "training/all: 46 subjects found, published 47" in found.missing
    assert not any(line.startswith("preliminary") for line in found.missing)
    assert found.faults == (), "a download that is not complete is no contradiction"


def test_one_merged_training_folder_is_compared_as_a_whole() -> None:
    files, texts = whole_cnmc()
    merged = [f"merged/{f.rpartition('/')[2]}" if trees.TRAINING in f else f for f in files]
    found = count("c-nmc", merged, texts)
    assert found.missing == () and listed(found)["training", "hem"] == 3389
    assert not any(part.startswith("fold") for part, _ in listed(found))
    less = count("c-nmc", merged[1:], texts)
    assert less.missing == ("training/all: 7,271 found, published 7,272 (1 missing)",)


def test_more_than_published_is_noted() -> None:
    files, texts = whole_cnmc()
    found = count("c-nmc", [*files, f"{trees.TRAINING}/fold_0/hem/UID_H1_9_9999_hem.bmp"], texts)
    assert found.missing == ()
    assert found.notes == ("fold_0/hem: 1 more than published", "training/hem: 1 more than published")


def test_preliminary_images_without_labels_are_noted() -> None:
    files, _ = whole_cnmc()
    found = count("c-nmc", files)
    assert found.notes == ("1,867 preliminary images have no label: their labels CSV is not there",)
    assert "preliminary/hem: 0 found, published 648 (648 missing)" in found.missing
    assert listed(found)["preliminary", "unlabelled"] == 1867


def test_faults_do_not_hide_what_was_found() -> None:
    files, texts = whole_cnmc()
    found = count("c-nmc", [*files, "copy/" + files[0].rpartition("/")[2]], texts)
    assert [type(fault) for fault in found.faults] == [DuplicateIdError] and found.missing == ()
    broken = count("c-nmc", files, {trees.LABELS: "name,label\n"})
    assert [type(fault) for fault in broken.faults] == [LabelFileError]
    assert listed(broken)["training", "all"] == 7272


@pytest.mark.parametrize("name", ["all-idb1", "all-idb2", "sn-am"])
def test_other_published_sets(name: str) -> None:
    sizes = {"all-idb1": 108, "all-idb2": 260}
    make = trees.TREES[name]
    tree = make(sizes[name]) if name in sizes else make(90) | make(100)
    if name == "all-idb1":  # 49 of patients, 59 of others
        tree = {path.replace("_1.", "_0.") if 49 < _number(path) <= 54 else path: b"" for path in tree}
    if name == "sn-am":
        tree = {path: b"" for path in tree if "B-ALL" not in path or _number(path) <= 90}
    found = count(name, [path for path in tree if not path.endswith("xyc")], _texts(tree))
    assert found.missing == found.notes == found.faults == found.rejected == ()
    assert found.subjects == 0 and found.images == {**sizes, "sn-am": 190}[name]
    less = count(name, list(tree)[4:], _texts(tree))
    assert any("missing)" in line for line in less.missing)


def _number(path: str) -> int:
    return int("".join(filter(str.isdigit, path.rpartition("/")[2].partition("_")[0])))


def _texts(tree: trees.Tree) -> dict[str, str]:
    return {path: "1 2\n3 4\n" * (path.endswith("_1.xyc")) for path in tree if path.endswith("xyc")}


def test_centroids_are_counted_and_missed() -> None:
    tree = trees.idb1()
    texts = {path: data.decode() for path, data in tree.items() if path.endswith("xyc")}
    found = count("all-idb1", [path for path in tree if path not in texts], texts)
    assert (found.centroid_files, found.centroids) == (4, 3)
    assert "centroid files: 4 found, published 108" in found.missing
    lost = count("all-idb1", ["ALL_IDB1/im/Im001_1.jpg"], texts)
    assert "3 centroid files have no image, the first: im002_1.xyc" in lost.notes


def test_what_is_not_unpacked_yet_is_noted() -> None:
    found = count("sn-am", ["B-ALL/1.bmp", "MM.zip", "__MACOSX/x.zip"])
    assert "not unpacked: MM.zip" in found.notes


def test_class_folders_are_counted_with_and_without_a_map() -> None:
    files = ["a/round/1.png", "a/round/2.png", "a/early/1.png", "top.png"]
    texts = {"s.csv": "path,subject\na/round/1.png,anna\na/early/1.png,anna\n"}
    mapped = {"class_map": {"round": 0, "early": 1, "prol": 1}, "subjects_csv": "s.csv"}
    found = count("folder", files, texts, **mapped)
    assert listed(found) == {("", "round"): 2, ("", "early"): 1} and len(found.rejected) == 1
    assert found.notes == (
        "1 subjects have images in both classes; the split keeps each on one side",
        "1 images have no subject in s.csv",
        "no image is in a folder named prol, which the class map names",
    )
    unmapped = count("folder", files)
    assert listed(unmapped) == listed(found) and "class_map" in str(unmapped.faults[0])


@pytest.mark.parametrize(
    ("files", "kind"), [(["a.txt"], EmptyDatasetError), (["x/cat.png"], DatasetNotFoundError)]
)
def test_a_place_that_holds_no_such_dataset(files: list[str], kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        count("all-idb2", files, root="/data/here")
    assert getattr(caught.value, "where", None) == "/data/here"


# ---- which layout it is ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(trees.TREES))
def test_the_layout_is_guessed_from_the_names(name: str) -> None:
    tree = trees.TREES[name]()
    guessed, why = guess_dataset([*tree, "extra/readme.txt", "stray.png"])
    assert guessed == name and " images " in why
    assert guess_dataset([f"__MACOSX/._{n}.png" for n in range(99)] + list(tree))[0] == name


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["Original/Benign/WBC-Benign-001.jpg", "Original/Pro/WBC-Pro-001.jpg"], "folder"),
        (["C-NMC_test_final_phase_data/1.bmp"], "c-nmc"),
        (["a/1.bmp", "b/2.bmp"], "folder"),
        (["x/all/cell.png", "x/hem/cell.png"], "folder"),
        (["img/Im001_1.tif"], "all-idb2"),
        (["img/Im001_1.tif", "xyc/Im001_1.xyc"], "all-idb1"),
        (["UID_1_1_1_all.bmp", "a.png", "b.png"], "folder"),
        (["ALL/anna/1.png", "Normal/bert/1.png"], "folder"),
        (["x/1.bmp", "x/2.bmp", "C-NMC_test_prelim_phase_data_labels.csv"], "c-nmc"),
    ],
)
def test_guesses(files: list[str], name: str) -> None:
    assert guess_dataset(files)[0] == name


def test_the_name_of_the_root_helps_to_guess() -> None:
    assert guess_dataset(["1.bmp"], "/data/C-NMC_test_final_phase_data")[0] == "c-nmc"


def test_nothing_is_guessed_of_nothing() -> None:
    with pytest.raises(EmptyDatasetError):
        guess_dataset(["a.txt", ".DS_Store"])


# ---- sizes -------------------------------------------------------------------------------------------


def sizes_of(files: dict[str, bytes], opened: list[str] | None = None) -> Sizes:
    def heads(paths: Sequence[str]) -> Iterator[bytes]:
        return (files[path][:HEAD] for path in paths)

    def open_file(path: str) -> BinaryIO:
        if opened is not None:
            opened.append(path)
        return io.BytesIO(files[path])

    return read_sizes(list(files), heads, open_file)


@given(
    st.lists(st.tuples(st.sampled_from(["png", "jpg", "bmp", "tif"]), st.integers(1, 40), st.integers(1, 40)))
)
@settings(deadline=None, max_examples=25)
def test_sizes_are_counted_whatever_the_format(images: list[tuple[str, int, int]]) -> None:
    files = {f"{n}.{kind}": trees.drawn(n, kind, w, h) for n, (kind, w, h) in enumerate(images)}
    found = sizes_of(files)
    expected = {(w, h): sum((w, h) == (v, g) for _, v, g in images) for _, w, h in images}
    assert {(w, h): number for w, h, number in found.counts} == expected and found.unreadable == ()
    numbers = [number for *_, number in found.counts]
    assert numbers == sorted(numbers, reverse=True)


def test_only_the_beginning_of_a_file_is_needed_unless_its_size_stands_behind() -> None:
    bmp, tif = trees.drawn(1, "bmp", 300, 200), trees.drawn(2, "tif", 300, 200)
    behind = tif_with_its_directory_at_the_end(tif)
    opened: list[str] = []
    found = sizes_of({"a.bmp": bmp, "b.tif": behind}, opened)
    assert found.counts == ((300, 200, 2),) and opened == ["b.tif"]
    assert size_of(io.BytesIO(bmp[:100])) == (300, 200)


def tif_with_its_directory_at_the_end(tif: bytes) -> bytes:
    """The same TIFF, its directory moved behind the pixels; offsets in it stay true."""
    start = int.from_bytes(tif[4:8], "little")
    entries = int.from_bytes(tif[start : start + 2], "little")
    directory = tif[start : start + 2 + 12 * entries + 4]
    return tif[:4] + len(tif).to_bytes(4, "little") + tif[8:] + directory


def test_files_that_are_no_images_are_named() -> None:
    files = {"a.png": b"", "b.png": b"no image", "c.bmp": trees.drawn(1)[:10], "d.png": trees.drawn(1, "png")}
    found = sizes_of(files)
    assert found.unreadable == ("a.png", "b.png", "c.bmp") and found.counts == ((24, 24, 1),)


@pytest.mark.data
def test_sizes_of_real_cells(shared_data: Callable[[str], Path]) -> None:
    root = shared_data("all-idb2")
    found = sizes_of({path.name: path.read_bytes() for path in sorted((root / "img").glob("*.tif"))})
    assert found.counts[0] == (257, 257, 250) and sum(number for *_, number in found.counts) == 260
