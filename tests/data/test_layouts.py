"""Parsers of the dataset layouts: names in, labels and subjects out; errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import trees
from hypothesis import given
from hypothesis import strategies as st

from cotray.config import DatasetConfig
from cotray.data.catalog import DATASETS
from cotray.data.label_files import read_centroids
from cotray.data.names import images_below, natural
from cotray.data.records import ImageRecord, Parsed
from cotray.errors import (
    ClassError,
    DataError,
    DatasetNotFoundError,
    DuplicateIdError,
    EmptyDatasetError,
    LabelFileError,
    SubjectError,
)


def parse(
    name: str,
    files: Iterable[str],
    texts: dict[str, str] | None = None,
    survey: bool = False,
    **settings: object,
) -> Parsed:
    """Parse as ingest does (or only look); ``texts`` are the files that can be read."""

    def read(path: str) -> str:
        if path not in (texts or {}):
            raise FileNotFoundError(2, "No such file or directory", path)
        return (texts or {})[path]

    config = DatasetConfig.model_validate({"name": name, **settings})
    layout = DATASETS[name]
    return (layout.survey if survey else layout.parse)([*files, *(texts or {})], read, config)


def parse_tree(name: str, tree: trees.Tree, **settings: object) -> Parsed:
    """Parse a tree; any of its files can be read."""
    config = DatasetConfig.model_validate({"name": name, **settings})
    return DATASETS[name].parse(list(tree), lambda path: tree[path].decode("utf-8-sig"), config)


def known(parsed: Parsed) -> list[tuple[object, ...]]:
    """What is known of each record besides its path, in the order of the listing."""
    return [(r.label, r.class_name, r.subject, r.official_split, r.centroids) for r in parsed.records]


# ---- every published layout, wherever and however it is written ---------------------------------------

MOVED: dict[str, Callable[[str], str]] = {
    "as published": lambda path: path,
    "below other folders": lambda path: f"my downloads/2024 (final)/{path}",
    "without its top folder": lambda path: path.partition("/")[2] if path.count("/") > 1 else path,
    "upper case": str.upper,
    "lower case": str.lower,
}


@pytest.mark.parametrize("name", list(trees.TREES))
@pytest.mark.parametrize("how", list(MOVED))
def test_a_published_tree_is_read_wherever_it_lies_and_in_any_case(name: str, how: str) -> None:
    tree = trees.TREES[name]()
    expected = parse_tree(name, tree)
    moved = parse_tree(name, {MOVED[how](path): data for path, data in tree.items()})
    assert known(moved) == known(expected)
    assert not moved.rejected and len(expected.records) == len(images(tree))


def images(tree: trees.Tree) -> list[str]:
    return [path for path in tree if path.rpartition(".")[2] in {"bmp", "jpg", "tif", "png"}]


CLUTTER = {
    "__MACOSX/{}/._Im001_1.tif": b"Mac OS X\x00\xff",
    "__MACOSX/{}/Im009_1.tif": b"",
    "{}/.DS_Store": b"\x00",
    "{}/Thumbs.db": b"",
    "{}/@eaDir/Im001_1.tif/SYNOPHOTO_THUMB_M.jpg": b"",
    "__MACOSX/C-NMC_test_prelim_phase_data/._C-NMC_test_prelim_phase_data_labels.csv": b"\xff\xfe\x00",
    "{}/notes.txt": b"hello",
}


@pytest.mark.parametrize("name", list(trees.TREES))
def test_what_operating_systems_leave_behind_is_no_data(name: str) -> None:
    tree = trees.TREES[name]()
    top = next(iter(tree)).partition("/")[0]
    littered = parse_tree(name, {**{path.format(top): data for path, data in CLUTTER.items()}, **tree})
    assert littered == parse_tree(name, tree)


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
    found = {r.path.rpartition("/")[2]: r for r in parse_tree("c-nmc", trees.cnmc()).records}
    both = [r for r in parse_tree("c-nmc", trees.cnmc()).records if r.path.endswith(("/1.bmp", "/2.bmp"))]
    assert [(r.official_split, r.label, r.subject) for r in both] == [
        ("final", None, None), ("final", None, None), ("preliminary", 1, "57"), ("preliminary", 0, "H49"),
    ]  # fmt: skip
    assert found["UID_H13_1_1_hem.bmp"].official_split == "fold_2"


@pytest.mark.parametrize(
    ("path", "phase"),
    [
        ("training_data/fold_1/all/UID_1_1_1_all.bmp", "fold_1"),
        ("C-NMC_training_data/fold_0/fold_0/all/UID_1_1_1_all.bmp", "fold_0"),
        ("Fold 2/ALL/UID_1_1_1_all.bmp", "fold_2"),
        ("all/UID_1_1_1_all.bmp", None),
        ("validation_data/C-NMC_test_prelim_phase_data/7.bmp", "preliminary"),
        ("testing_data/C-NMC_test_prelim_phase_data/7.bmp", "preliminary"),
        ("testing_data/C-NMC_test_final_phase_data/7.bmp", "final"),
        ("testing_data/7.bmp", "final"),
    ],
)
def test_cnmc_phases_by_the_innermost_folder_of_any_mirror(path: str, phase: str | None) -> None:
    assert [r.official_split for r in parse("c-nmc", [path]).records] == [phase]


@pytest.mark.parametrize("top", ["C-NMC_test_final_phase_data", "testing_data/C-NMC_test_final_phase_data"])
def test_cnmc_the_name_of_the_root_tells_the_phase_too(top: str) -> None:
    (record,) = parse("c-nmc", ["1.bmp"], root=f"s3://lab/{top}").records
    assert (record.official_split, record.label) == ("final", None)


def test_cnmc_other_names_are_rejected_with_the_reason() -> None:
    parsed = parse("c-nmc", ["a/UID_1_1_1_all.bmp", "a/notes.png", "a/UID_1_1_all.bmp"])
    assert [path for path, _ in parsed.rejected] == ["a/notes.png", "a/UID_1_1_all.bmp"]
    assert all("UID_<subject>" in why for _, why in parsed.rejected)


def test_cnmc_a_name_and_a_folder_that_disagree_are_rejected() -> None:
    parsed = parse("c-nmc", ["fold_0/hem/UID_1_1_1_all.bmp", "fold_0/all/UID_2_1_1_all.bmp"])
    assert parsed.rejected == [("fold_0/hem/UID_1_1_1_all.bmp", "the name says all, the folder hem")]


def test_cnmc_preliminary_images_that_the_csv_does_not_name_are_rejected() -> None:
    files = [f"x_prelim/{number}.bmp" for number in (1, 2, 3)]
    parsed = parse("c-nmc", files, {"prelim_labels.csv": PRELIMINARY})
    assert parsed.rejected == [("x_prelim/3.bmp", "prelim_labels.csv does not name it")]


def test_cnmc_preliminary_images_without_their_csv_have_no_label() -> None:
    parsed = parse("c-nmc", ["x_prelim/1.bmp"])
    assert [(r.label, r.official_split) for r in parsed.records] == [(None, "preliminary")]


TWICE = PRELIMINARY + "UID_57_29_1_all.bmp,1.bmp,1\n"


def test_cnmc_a_row_that_is_there_twice_is_one_row() -> None:
    parsed = parse("c-nmc", ["x/1.bmp", "x/2.bmp"], {"x/prelim_labels.csv": TWICE})
    assert [r.subject for r in parsed.records] == ["57", "H49"]


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("Patient_ID,labels\nUID_1_1_1_all,1\n", LabelFileError, "new_names; it has Patient_ID, labels"),
        (PRELIMINARY.replace(",1\n", ",all\n"), LabelFileError, "'all'"),
        ("", LabelFileError, "lacks the columns: Patient_ID, new_names, labels"),
        (PRELIMINARY + "UID_9_1_1_all.bmp,3.bmp,1\n", LabelFileError, "1 of the 3 images .* the first: 3"),
        (PRELIMINARY + "UID_57_29_1_all.bmp,1.bmp,0\n", DuplicateIdError, "'1' has two rows"),
        (PRELIMINARY + "UID_58_29_1_all.bmp,1.bmp,1\n", DuplicateIdError, "'57' and '58'"),
        (PRELIMINARY + "UID_58_29_1_all.bmp,3.bmp\n", LabelFileError, "has no labels"),
    ],
)
def test_cnmc_csv_that_does_not_fit(text: str, kind: type[DataError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        parse("c-nmc", ["x/1.bmp", "x/2.bmp"], {"x/prelim_labels.csv": text})
    assert str(caught.value.where).startswith("x/prelim_labels.csv") and caught.value.cure


def test_cnmc_one_cell_in_two_folders() -> None:
    files = ["fold_0/all/UID_1_1_1_all.bmp", "merged/all/uid_1_1_1_ALL.bmp", "fold_1/all/UID_2_1_1_all.bmp"]
    with pytest.raises(DuplicateIdError, match=r"1 images are there twice.*fold_0.*merged") as caught:
        parse("c-nmc", files)
    assert caught.value.where == files[1] and "--root" in str(caught.value.cure)


def test_cnmc_a_subject_in_two_classes() -> None:
    files = ["fold_0/all/UID_1_1_1_all.bmp", "fold_1/hem/UID_1_2_1_hem.bmp", "fold_1/hem/UID_H1_2_1_hem.bmp"]
    with pytest.raises(
        SubjectError, match=r"1 subjects .* 1 is all by fold_0\S+, hem by this file"
    ) as caught:
        parse("c-nmc", files)
    assert caught.value.where == files[1] and caught.value.cure


def test_cnmc_a_preliminary_subject_may_not_contradict_its_training_cells() -> None:
    files = ["fold_0/hem/UID_57_1_1_hem.bmp", "prelim/1.bmp", "prelim/2.bmp"]
    with pytest.raises(SubjectError, match="57"):
        parse("c-nmc", files, {"prelim.csv": PRELIMINARY})


def test_all_faults_are_told_by_looking_where_reading_raises_the_first() -> None:
    files = ["fold_0/all/UID_1_1_1_all.bmp", "fold_1/all/UID_1_1_1_all.bmp", "fold_1/hem/UID_1_2_1_hem.bmp"]
    parsed = parse("c-nmc", files, {"prelim.csv": PRELIMINARY}, survey=True)
    assert [type(fault) for fault in parsed.faults] == [LabelFileError, DuplicateIdError, SubjectError]
    assert len(parsed.records) == 3


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


def test_idb1_centroids_are_read_and_kept() -> None:
    found = {r.path.rpartition("/")[2]: r.centroids for r in parse_tree("all-idb1", trees.idb1()).records}
    assert found == {
        "Im001_1.jpg": ((10, 15),),
        "Im002_1.jpg": ((10, 15), (20, 25)),
        "Im003_0.jpg": (),
        "Im004_0.jpg": (),
    }
    assert [r.centroids for r in parse("all-idb1", ["im/Im001_1.jpg"]).records] == [None]


POINTS = st.lists(st.tuples(*[st.floats(0, 3000, allow_nan=False, allow_subnormal=False)] * 2), max_size=20)


@given(POINTS, st.sampled_from([" ", "\t", "   ", " \t"]), st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_centroids_come_back_whatever_white_space_parts_them(
    points: list[tuple[float, float]], gap: str, line: str
) -> None:
    text = "".join(f"{gap if i % 2 else ''}{x!r}{gap}{y!r}{line}" for i, (x, y) in enumerate(points))
    assert list(read_centroids("a.xyc", lambda path: text)) == points


@pytest.mark.parametrize("line", ["12", "12 13 14", "12 x", "nan 3", "-1 4", "inf 2", "12,13"])
def test_a_centroid_file_that_is_none_is_named_with_its_line(line: str) -> None:
    with pytest.raises(LabelFileError, match="is no centroid") as caught:
        parse("all-idb1", ["im/Im001_1.jpg"], {"xyc/Im001_1.xyc": f"1 2\n{line}\n"})
    assert caught.value.where == "xyc/Im001_1.xyc:2" and caught.value.cure


def test_idb_both_versions_below_one_root_are_told_apart() -> None:
    tree = trees.idb1() | trees.idb2()
    for name, own in (("all-idb1", "ALL_IDB1/"), ("all-idb2", "ALL_IDB2/")):
        parsed = parse_tree(name, tree)
        assert len(parsed.records) == 4 and all(r.path.startswith(own) for r in parsed.records)
        assert len(parsed.rejected) == 4 and all("a folder of ALL-IDB" in why for _, why in parsed.rejected)


@pytest.mark.parametrize("name", ["all-idb1", "all-idb2"])
def test_idb_one_image_in_two_folders(name: str) -> None:
    with pytest.raises(DuplicateIdError, match=r"a/Im001_1\.tif and b/im001_1\.png") as caught:
        parse(name, ["a/Im001_1.tif", "b/im001_1.png", "a/Im002_1.tif"])
    assert caught.value.cure


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


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("SN-AM-BALL-MM/B-ALL/1.bmp", 1),
        ("SN-AM-BALL-MM/SN-AM-MM/1.bmp", 0),
        ("b_all and mm/test/multiple_myeloma/1.bmp", 0),
        ("MM/B ALL/1.bmp", 1),
        ("ALL/1.bmp", 1),
        ("SN-AM-BALL-MM/1.bmp", None),
        ("football/1.bmp", None),
        ("comma/1.bmp", None),
    ],
)
def test_snam_the_innermost_folder_that_names_one_class_decides(path: str, label: int | None) -> None:
    parsed = parse("sn-am", [path], survey=True)
    assert [r.label for r in parsed.records] == ([] if label is None else [label])
    assert len(parsed.rejected) == (label is None)


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


@pytest.mark.parametrize(
    "text",
    [
        f"path,subject\n{FOUR[0]},anna\n{FOUR[1]},bert\n",
        f"Subject;age;PATH\nanna;9;{FOUR[0]}\nbert;8;{FOUR[1]}\n;;\n",
        f"path,subject\n./{FOUR[0].replace('/', chr(92))},anna\n{FOUR[1].upper()}, bert \n",
    ],
    ids=["as asked for", "as a spreadsheet writes it", "as another system writes it"],
)
def test_subjects_csv(text: str) -> None:
    parsed = parse("folder", FOUR, {"subjects.csv": text}, class_map=MAP, subjects_csv="subjects.csv")
    assert [r.subject for r in parsed.records] == ["anna", "bert", None, None]


def test_a_subject_of_class_folders_may_be_in_two_classes() -> None:
    text = f"path,subject\n{FOUR[0]},anna\n{FOUR[1]},anna\n"
    parsed = parse("folder", FOUR, {"s.csv": text}, class_map=MAP, subjects_csv="s.csv")
    assert [(r.subject, r.label) for r in parsed.records[:2]] == [("anna", 0), ("anna", 1)]


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("path,subject\nmissing.jpg,anna\n", LabelFileError, "1 files .* the first: missing.jpg"),
        ("file,subject\na,b\n", LabelFileError, "lacks the columns: path; it has file, subject"),
        ("", LabelFileError, "lacks the columns: path, subject"),
        (f"path,subject\n{FOUR[0]}\n", LabelFileError, "A row has no subject"),
        (f"path,subject\n{FOUR[0]},anna\n{FOUR[0]},bert\n", DuplicateIdError, "'anna' and 'bert'"),
        (None, LabelFileError, "Cannot read this file: No such file"),
    ],
)
def test_subjects_csv_that_does_not_fit(text: str | None, kind: type[DataError], message: str) -> None:
    texts = {} if text is None else {"s.csv": text}
    with pytest.raises(kind, match=message) as caught:
        parse("folder", FOUR, texts, class_map=MAP, subjects_csv="s.csv")
    assert str(caught.value.where).partition(":")[0] == "s.csv" and caught.value.cure


def test_a_csv_that_is_no_text() -> None:
    def read(path: str) -> str:
        return b"path,subject\n\xff\xfe".decode()

    config = DatasetConfig(name="folder", class_map=MAP, subjects_csv="s.csv")
    with pytest.raises(LabelFileError, match="UTF-8") as caught:
        DATASETS["folder"].parse(FOUR, read, config)
    assert caught.value.where == "s.csv"


# ---- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["c-nmc", "all-idb1", "all-idb2", "sn-am", "folder"])
def test_a_folder_without_images(name: str) -> None:
    with pytest.raises(EmptyDatasetError, match="no image") as caught:
        parse(name, ["readme.txt", ".hidden/a.png", "masks/a.png", "a/.b.png"])
    assert caught.value.cure


@pytest.mark.parametrize("name", ["c-nmc", "all-idb1", "all-idb2", "sn-am", "folder"])
def test_a_download_that_is_not_unpacked_is_named(name: str) -> None:
    with pytest.raises(EmptyDatasetError, match=r"2 archives, the first: C-NMC_training_data\.zip") as caught:
        parse(name, ["C-NMC_training_data.zip", "more/x.tar.gz", "__MACOSX/y.zip"], root="/data/mine")
    assert "unzip" in str(caught.value.cure) and caught.value.where == "/data/mine"


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
    tree, read = trees.cnmc() | trees.idb1(), list[str]()

    def remember(path: str) -> str:
        read.append(path)
        return tree[path].decode()

    for name in trees.TREES:
        DATASETS[name].survey([*tree, "other.csv"], remember, DatasetConfig(name=name))
    assert sorted(read) == [path for path in sorted(tree) if path.endswith((".xyc", ".csv"))]
