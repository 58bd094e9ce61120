"""Parsers of the dataset layouts: names in, labels and subjects out; errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cotray.config import DatasetConfig
from cotray.data import layouts
from cotray.data.catalog import DATASETS
from cotray.data.layouts import images_below, natural
from cotray.data.records import ImageRecord, Parsed
from cotray.errors import ClassError, DatasetNotFoundError, EmptyDatasetError, LabelFileError


def parse(name: str, files: list[str], texts: dict[str, str] | None = None, **settings: object) -> Parsed:
    """Parse as ingest does; ``texts`` are the files that can be read."""

    def read(path: str) -> str:
        if path not in (texts or {}):
            raise FileNotFoundError(path)
        return (texts or {})[path]

    config = DatasetConfig.model_validate({"name": name, **settings})
    return DATASETS[name].parse([*files, *(texts or {})], read, config)


# ---- C-NMC -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "label", "subject"),
    [
        ("UID_5_1_1_all.bmp", 1, "5"),
        ("UID_H10_22_3_hem.bmp", 0, "H10"),
        ("UID_h10_22_3_hem.bmp", 0, "H10"),
        ("uid_57_29_1_ALL.BMP", 1, "57"),
    ],
)
def test_cnmc_names(name: str, label: int, subject: str) -> None:
    kind = "all" if label else "hem"
    path = f"C-NMC_training_data/fold_2/{kind}/{name}"
    expected = ImageRecord(path, label, kind, subject, official_split="fold_2")
    assert parse("c-nmc", [path]).records == [expected]


PRELIMINARY = "Patient_ID,new_names,labels\nUID_57_29_1_all.bmp,1.bmp,1\nUID_H49_29_3_hem.bmp,2.bmp,0\n"


def test_cnmc_preliminary_set_by_its_csv_and_final_set_without_labels() -> None:
    files = [
        "C-NMC_test_prelim_phase_data/1.bmp",
        "C-NMC_test_prelim_phase_data/2.bmp",
        "C-NMC_test_final_phase_data/977.bmp",
        "C-NMC_training_data/fold_0/all/UID_57_1_1_all.bmp",
    ]
    texts = {"C-NMC_test_prelim_phase_data_labels.csv": PRELIMINARY}
    found = {r.path.rpartition("/")[2]: r for r in parse("c-nmc", files, texts).records}
    assert (found["1.bmp"].label, found["1.bmp"].subject) == (1, "57")
    assert (found["2.bmp"].label, found["2.bmp"].subject) == (0, "H49")
    assert found["2.bmp"].official_split == "preliminary"
    assert (found["977.bmp"].label, found["977.bmp"].subject) == (None, None)
    assert found["UID_57_1_1_all.bmp"].subject == found["1.bmp"].subject


def test_cnmc_other_names_are_rejected_with_the_reason() -> None:
    parsed = parse("c-nmc", ["a/UID_1_1_1_all.bmp", "a/notes.png", "a/UID_1_1_all.bmp"])
    assert [path for path, _ in parsed.rejected] == ["a/notes.png", "a/UID_1_1_all.bmp"]
    assert all("UID_<subject>" in why for _, why in parsed.rejected)


@pytest.mark.parametrize(
    ("text", "message"),
    [("Patient_ID,labels\nUID_1_1_1_all,1\n", "new_names"), (PRELIMINARY.replace(",1\n", ",all\n"), "'all'")],
)
def test_cnmc_csv_that_is_not_as_published(text: str, message: str) -> None:
    with pytest.raises(LabelFileError, match=message) as caught:
        parse("c-nmc", ["x/1.bmp"], {"x/prelim_labels.csv": text})
    assert caught.value.where == "x/prelim_labels.csv"


# ---- ALL-IDB ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "suffix"), [("all-idb1", "jpg"), ("all-idb2", "tif")])
def test_idb_names(name: str, suffix: str) -> None:
    parsed = parse(name, [f"im/Im002_0.{suffix}", f"im/Im010_1.{suffix}", f"im/Im001_1.{suffix}", "im/x.jpg"])
    found = [(r.path, r.label, r.class_name) for r in parsed.records]
    assert found == [
        (f"im/Im001_1.{suffix}", 1, "blast"),
        (f"im/Im002_0.{suffix}", 0, "healthy"),
        (f"im/Im010_1.{suffix}", 1, "blast"),
    ]
    assert parsed.rejected == [("im/x.jpg", "the name is not ImXXX_{1,0}")]


def test_idb_masks_are_matched_by_stem_and_are_no_images() -> None:
    files = [
        "img/Im001_1.tif",
        "img/Im002_0.tif",
        "masks-b/Im001_1.png",
        "masks-a/im001_1.tif",
        "masks-a/x.txt",
    ]
    parsed = parse("all-idb2", files)
    assert [r.mask_path for r in parsed.records] == ["masks-a/im001_1.tif", None]
    assert not parsed.rejected


# ---- SN-AM and class folders -----------------------------------------------------------------------


def test_snam_folders() -> None:
    files = [
        "B-ALL/1.bmp",
        "TestData/B_ALL/2.bmp",
        "MM/3.bmp",
        "set/MM_train/4.bmp",
        "Myeloma/5.bmp",
        "other/6.bmp",
    ]
    parsed = parse("sn-am", files)
    assert {r.path[-5]: (r.label, r.class_name) for r in parsed.records} == {
        "1": (1, "B-ALL"), "2": (1, "B-ALL"), "3": (0, "MM"), "4": (0, "MM"), "5": (0, "MM"),
    }  # fmt: skip
    assert parsed.rejected == [("other/6.bmp", "neither below a B-ALL nor an MM folder")]


FOUR = ["Original/Benign/b.jpg", "Original/Early/e.jpg", "Original/Pre/p.jpg", "Original/Pro/sub/q.jpg"]
MAP = {"Benign": 0, "early": 1, "Pre": 1, "Pro": 1}


def test_class_map() -> None:
    parsed = parse("folder", [*FOUR, "Original/stray.jpg"], class_map=MAP)
    assert {r.path[-5]: (r.label, r.class_name) for r in parsed.records} == {
        "b": (0, "Benign"), "e": (1, "early"), "p": (1, "Pre"), "q": (1, "Pro"),
    }  # fmt: skip
    assert [path for path, _ in parsed.rejected] == ["Original/stray.jpg"]


def test_two_folders_of_which_one_is_named_like_normal_need_no_map() -> None:
    parsed = parse("folder", ["healthy/1.png", "sick/2.png"])
    assert [(r.class_name, r.label) for r in parsed.records] == [("healthy", 0), ("sick", 1)]


@pytest.mark.parametrize("files", [FOUR, ["a/1.png", "b/2.png"], ["normal/1.png", "benign/2.png"], ["1.png"]])
def test_unknown_classes_are_an_error_with_a_map_to_copy(files: list[str]) -> None:
    with pytest.raises(ClassError) as caught:
        parse("folder", files)
    assert "dataset.class_map={" in str(caught.value.cure)


def test_the_map_in_the_cure_names_the_folders() -> None:
    with pytest.raises(ClassError, match="Benign, Early") as caught:
        parse("folder", FOUR[:3])
    assert "{Benign: 0, Early: 1, Pre: 1}" in str(caught.value.cure)


def test_a_map_that_names_no_folder() -> None:
    with pytest.raises(DatasetNotFoundError, match=r"dataset\.class_map"):
        parse("folder", FOUR, class_map={"Malignant": 1})


def test_subjects_csv() -> None:
    texts = {"subjects.csv": f"path,subject\n{FOUR[0]},anna\n{FOUR[1]},bert\n"}
    parsed = parse("folder", FOUR, texts, class_map=MAP, subjects_csv="subjects.csv")
    assert [r.subject for r in parsed.records] == ["anna", "bert", None, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,subject\nmissing.jpg,anna\n", "missing.jpg"),
        ("file,subject\na,b\n", "lacks the columns: path"),
        ("", "lacks the columns: path, subject"),
        (None, "Cannot read"),
    ],
)
def test_subjects_csv_that_does_not_fit(text: str | None, message: str) -> None:
    texts = {} if text is None else {"s.csv": text}
    with pytest.raises(LabelFileError, match=message) as caught:
        parse("folder", FOUR, texts, class_map=MAP, subjects_csv="s.csv")
    assert caught.value.where == "s.csv"


# ---- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["c-nmc", "all-idb1", "all-idb2", "sn-am", "folder"])
def test_a_folder_without_images(name: str) -> None:
    with pytest.raises(EmptyDatasetError, match="no image") as caught:
        parse(name, ["readme.txt", ".hidden/a.png", "masks/a.png", "a/.b.png"])
    assert caught.value.cure


@pytest.mark.parametrize("name", ["c-nmc", "all-idb2", "sn-am"])
def test_a_dataset_of_another_layout(name: str) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"No file fits.*cat/one\.png") as caught:
        parse(name, ["cat/one.png", "dog/two.png"])
    assert "--dataset folder" in str(caught.value.cure)


def test_images_are_in_natural_order() -> None:
    assert images_below(["a/10.png", "a/2.PNG", "b/1.tiff", "a/2.txt"]) == ["a/2.PNG", "a/10.png", "b/1.tiff"]
    assert sorted(["x10y2", "x9", "x10y1", "1"], key=natural) == ["1", "x9", "x10y1", "x10y2"]


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "layout", "malignant", "normal", "subjects"),
    [("c-nmc-sample", "c-nmc", 26, 26, 26), ("all-idb2", "all-idb2", 130, 130, 0)],
)
def test_real_folders(
    shared_data: Callable[[str], Path], name: str, layout: str, malignant: int, normal: int, subjects: int
) -> None:
    root = shared_data(name)
    parsed = parse(layout, [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()])
    assert [sum(r.label == label for r in parsed.records) for label in (1, 0)] == [malignant, normal]
    assert len({r.subject for r in parsed.records} - {None}) == subjects
    assert layout == "c-nmc" or all(r.mask_path for r in parsed.records)
    assert not parsed.rejected


@pytest.mark.data
def test_taleqani_as_class_folders(shared_data: Callable[[str], Path]) -> None:
    root = shared_data("taleqani")
    files = [str(p.relative_to(root)) for p in root.rglob("*.jpg")]
    parsed = parse("folder", files, class_map={"Benign": 0, "Early": 1, "Pre": 1, "Pro": 1})
    assert [sum(r.label == label for r in parsed.records) for label in (0, 1)] == [504, 2752]


def test_parsers_read_nothing_but_tables() -> None:
    """Images themselves are never opened while a layout is parsed."""
    read: list[str] = []

    def remember(path: str) -> str:
        read.append(path)
        return PRELIMINARY

    files = ["C-NMC_test_prelim_phase_data/1.bmp", "prelim.csv", "other.csv"]
    assert len(layouts.parse_cnmc(files, remember, DatasetConfig()).records) == 1
    assert read == ["prelim.csv"]
