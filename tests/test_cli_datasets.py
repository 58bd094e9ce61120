"""`cotray datasets`: layouts told, folders checked against what was published, phantoms drawn."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trees

from cotray.cli import main
from cotray.data.catalog import DATASETS

Captured = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("plain_and_elsewhere")


def call(capsys: Captured, *args: str, code: int = 0) -> tuple[str, str]:
    """Output and errors of a command of `cotray datasets`, which must end with ``code``."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(["datasets", *args])
    out, err = capsys.readouterr()
    assert (left.value.code or 0) == code, out + err
    return out, err


def rows(text: str) -> list[list[str]]:
    """The words of each line of the table of parts and classes."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if re.match(r"^\s*part\s+class\s+images", line))
    end = next(i for i, line in enumerate(lines) if line.startswith("subjects:"))
    return [line.split() for line in lines[start + 1 : end]]


def test_datasets_are_listed_and_described(capsys: Captured) -> None:
    text, _ = call(capsys, "list")
    assert [name for name in DATASETS if not re.search(rf"^\s*{name}\s", text, re.M)] == []
    text, _ = call(capsys, "describe", "c-nmc")
    assert "C-NMC 2019" in text and re.search(r"training\s+all\s+7,272\s+47", text)
    text, _ = call(capsys, "describe", "all-idb1")
    assert "files of centroids: 108" in text and "1712x1368" in text


def test_check_tells_parts_classes_subjects_sizes_and_what_is_missing(capsys: Captured) -> None:
    trees.plant(trees.cnmc(per_subject=2), Path("mine"))
    text, err = call(capsys, "check", "mine", "--dataset", "c-nmc")
    table = rows(text)
    assert ["fold_1", "all", "4", "2", "2,418"] in table
    assert ["training", "hem", "12", "6", "3,389", "26"] in table
    assert ["preliminary", "all", "1", "1", "1,219"] in table
    assert ["final", "unlabelled", "2", "2,586"] in table
    assert "28 image files: 28 fit the layout, 0 do not" in text and "subjects: 14" in text
    assert re.search(r"sizes: all alike \(published: 450x450\)\s+24x24: 28", text)
    missing = text[text.index("missing\n") :]
    assert "fold_2/hem: 4 found, published 1,096 (1,092 missing)" in missing
    assert "training/all: 6 subjects found, published 47" in missing and err == ""


def test_check_guesses_the_layout_and_says_so(capsys: Captured) -> None:
    for name, make in trees.TREES.items():
        trees.plant(make(), Path(name))
        text, _ = call(capsys, "check", name)
        assert f"read as {DATASETS[name].title} (guessed: " in text and "--dataset overrides" in text
    text, _ = call(capsys, "check", "all-idb1")
    assert "with blast centroids: 4 files, 3 blasts" in text
    assert "centroid files: 4 found, published 108" in text


def test_a_complete_set_is_called_complete(capsys: Captured) -> None:
    trees.plant(trees.idb2(260), Path("whole"))
    text, _ = call(capsys, "check", "whole")
    assert "complete: nothing published is missing" in text and rows(text)[0] == ["blast", "130", "130"]


def test_check_for_machines(capsys: Captured) -> None:
    trees.plant(trees.cnmc(), Path("mine"))
    Path("mine/odd.bmp").write_bytes(b"no image")
    text, _ = call(capsys, "check", "mine", "--json")
    found: dict[str, Any] = json.loads(text)
    assert found["dataset"] == "c-nmc" and found["guessed"] and found["root"].endswith("/mine")
    fold = next(line for line in found["lines"] if line["part"] == "fold_0" and line["class_name"] == "all")
    assert (fold["images"], fold["published"], fold["subjects"]) == (2, 2397, 2)
    assert found["sizes"] == {"24x24": 16} and found["unreadable"] == ["odd.bmp"]
    assert found["rejected"][0][0] == "odd.bmp" and found["faults"] == []
    assert any(line.startswith("fold_0/all") for line in found["missing"])


def test_sizes_need_not_be_read(capsys: Captured) -> None:
    trees.plant(dict.fromkeys(trees.snam(), b""), Path("mine"))
    text, _ = call(capsys, "check", "mine", "--no-sizes")
    assert "sizes" not in text and "headers" not in text
    text, _ = call(capsys, "check", "mine")
    assert "headers that cannot be read (ingest quarantines such files): 4" in text
    text, _ = call(capsys, "check", "mine", "--no-sizes", "--json")
    assert json.loads(text)["sizes"] is None


def test_mixed_sizes_are_told_and_no_error(capsys: Captured) -> None:
    for number, side in enumerate((24, 24, *range(30, 42))):
        path = Path(f"mixed/img/Im{number:03d}_{number % 2}.tif")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(trees.drawn(number, "tif", side, 24))
    text, _ = call(capsys, "check", "mixed", "--dataset", "all-idb2")
    assert re.search(r"sizes: mixed, 13 kinds .*\n\s+24x24: 2\n", text) and "3 more kinds: 3" in text


CONTRADICTIONS = {
    "labels CSV": ({trees.LABELS: b"Patient_ID,labels\n"}, "lacks the columns: new_names", trees.LABELS),
    "missing image": (
        {trees.LABELS: trees.cnmc()[trees.LABELS] + b"\nUID_9_1_1_all.bmp,3.bmp,1"},
        "1 of the 3 images named there do not exist",
        trees.LABELS,
    ),
    "duplicate": ({"copy/UID_1_1_1_all.bmp": b""}, "1 images are there twice", "copy/UID_1_1_1_all.bmp"),
    "subject": ({"more/UID_1_9_1_hem.bmp": b""}, "1 subjects are in two classes", "more/UID_1_9_1_hem.bmp"),
}


@pytest.mark.parametrize("what", list(CONTRADICTIONS))
def test_contradictions_are_told_beside_what_was_found_and_end_with_2(what: str, capsys: Captured) -> None:
    files, words, where = CONTRADICTIONS[what]
    trees.plant(trees.cnmc() | files, Path("mine"))
    text, err = call(capsys, "check", "mine", code=2)
    assert err.startswith("cotray: ") and words in err and f"[{where}" in err and err.count("\n") == 1
    assert "ingest would refuse these data" in text and any(row[0] == "fold_1" for row in rows(text))
    text, err = call(capsys, "check", "mine", "--json", code=2)
    assert words in json.loads(text)["faults"][0] and words in err


def test_a_subject_in_both_class_folders_is_noted(capsys: Captured) -> None:
    subjects = b"path,subject\nnormal/1.png,anna\nsick/2.png,anna\n"
    trees.plant({"normal/1.png": b"", "sick/2.png": b"", "who.csv": subjects}, Path("lab"))
    text, _ = call(capsys, "check", "lab", "--set", "dataset.subjects_csv=who.csv")
    assert "1 subjects have images in both classes" in text and "subjects: 1" in text
    outside = Path("elsewhere.csv").resolve()
    Path("lab/who.csv").rename(outside)
    text, _ = call(capsys, "check", "lab", "--set", f"dataset.subjects_csv={outside}")
    assert "1 subjects have images in both classes" in text
    _, err = call(capsys, "check", "lab", "--set", "dataset.subjects_csv=who.csv", code=2)
    assert "Cannot read this file" in err and "who.csv" in err


def test_a_lab_folder_shows_its_classes_and_the_map_to_copy(capsys: Captured) -> None:
    trees.plant({f"{name}/{n}.png": b"" for name in ("Benign", "Early", "Pro") for n in (1, 2)}, Path("lab"))
    text, err = call(capsys, "check", "lab", code=2)
    assert "read as Class folders (guessed" in text and rows(text) == [
        ["Benign", "2"],
        ["Early", "2"],
        ["Pro", "2"],
    ]
    assert "class_map={Benign: 0, Early: 1, Pro: 1}" in err
    given = ["--set", "dataset.class_map={Benign: 0, Early: 1, Pro: 1}"]
    assert rows(call(capsys, "check", "lab", *given)[0])[0] == ["Benign", "2"]


PLACES = {
    "archive": ({"C-NMC_training_data.zip": b"PK"}, "there", "unzip"),
    "nothing": ({"readme.txt": b""}, "there", "no image here"),
    "absent": ({}, "nowhere", "no such folder"),
    "a file": ({"one.png": b""}, "there/one.png", "a file, not a folder"),
    "another layout": ({"cats/1.png": b""}, "there", "No file fits the layout of ALL-IDB2"),
}


@pytest.mark.parametrize("what", list(PLACES))
def test_places_without_the_dataset_are_one_line(what: str, capsys: Captured) -> None:
    files, root, words = PLACES[what]
    trees.plant(files, Path("there"))
    out, err = call(capsys, "check", root, "--dataset", "all-idb2", code=2)
    assert words in err and root in err and err.count("\n") == 1 and out == ""


def test_a_phantom_has_no_files_to_check(capsys: Captured) -> None:
    Path("x").mkdir()
    _, err = call(capsys, "check", "x", "--dataset", "phantom", code=2)
    assert "datasets phantom" in err


def test_checking_starts_no_ray_and_no_torch() -> None:
    trees.plant(trees.idb2(), Path("mine"))
    code = (
        "import sys\nfrom cotray.cli import main\n"
        "try: main(['datasets', 'check', 'mine'])\nexcept SystemExit: pass\n"
        "sys.exit(','.join({'torch', 'mlflow', 'ray'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "260" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("layout", "dataset", "names"),
    [("all-idb2", "all-idb2", "none named"), ("c-nmc", "c-nmc", "4"), ("fields", "folder", "none named")],
)
def test_a_phantom_is_drawn_and_checks_as_its_layout(
    layout: str, dataset: str, names: str, capsys: Captured
) -> None:
    size = ["--subjects", "4", "--per-subject", "1"]
    text, _ = call(capsys, "phantom", "new", "--layout", layout, *size)
    assert "4 phantom images in new" in text
    assert sum(path.is_file() for path in Path("new").rglob("*")) == 4
    classes = ["--set", "dataset.class_map={malignant: 1, normal: 0}"] if dataset == "folder" else []
    text, _ = call(capsys, "check", "new", *classes)
    assert f"read as {DATASETS[dataset].title}" in text
    assert "4 image files: 4 fit the layout, 0 do not" in text and f"subjects: {names}" in text


def test_a_phantom_is_not_drawn_over_something(capsys: Captured) -> None:
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    _, err = call(capsys, "phantom", "full", code=2)
    assert "not empty" in err and [path.name for path in Path("full").iterdir()] == ["mine.txt"]


def test_a_folder_may_have_any_name(capsys: Captured) -> None:
    text, _ = call(capsys, "phantom", "[red]x[/]", "--subjects", "2", "--per-subject", "1")
    assert "2 phantom images in [red]x[/]" in text
    _, err = call(capsys, "check", "[red]x[/]", "--dataset", "folder", code=2)
    assert "class_map" in err


def test_images_that_do_not_fit_the_layout_are_named(capsys: Captured) -> None:
    trees.plant(
        dict.fromkeys(("img/Im001_1.tif", "img/Im002_0.tif", "img/[red]other.png"), b""), Path("some")
    )
    text, _ = call(capsys, "check", "some", "--dataset", "all-idb2", "--no-sizes")
    assert (
        "3 image files: 2 fit the layout, 1 do not" in text and "img/[red]other.png: the name is not" in text
    )
    assert "blast: 1 found, published 130 (129 missing)" in text
