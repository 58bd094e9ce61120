"""What ingest takes from tables: subjects named elsewhere, and data that contradict themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import trees

from cotray.config import Config, load_config
from cotray.errors import CotrayError, DuplicateIdError, LabelFileError, SubjectError
from cotray.stages.ingest import list_items, listing


def settings(dataset: str, root: Path, *more: str) -> Config:
    return load_config(overrides=[f"dataset.name={dataset}", f"dataset.root={root}", *more])


def test_subjects_named_outside_of_the_root_are_read_and_watched(tmp_path: Path) -> None:
    root, table = (
        trees.plant({"normal/1.png": b"", "sick/2.png": b""}, tmp_path / "lab"),
        tmp_path / "who.csv",
    )
    table.write_text("\ufeffpath,subject\nnormal/1.png,anna\nsick/2.png,bert\n", encoding="utf-8")
    config = settings("folder", root, f"dataset.subjects_csv={table}")
    assert [getattr(item, "subject", None) for item in list_items(config)[0]] == ["anna", "bert"]
    before = listing(config)
    assert listing(config) == before
    table.write_text("path,subject\nnormal/1.png,anna\nsick/2.png,anna\n", encoding="utf-8")
    assert listing(config) != before, "other subjects make another split"
    table.unlink()
    with pytest.raises(LabelFileError, match="Cannot read") as caught:
        listing(config)
    assert caught.value.where == str(table)


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({trees.LABELS: b"Patient_ID,labels\n"}, LabelFileError),
        ({"copy/UID_1_1_1_all.bmp": b""}, DuplicateIdError),
        ({"more/UID_1_9_1_hem.bmp": b""}, SubjectError),
    ],
)
def test_data_that_contradict_themselves_are_refused(
    files: trees.Tree, kind: type[CotrayError], tmp_path: Path
) -> None:
    config = settings("c-nmc", trees.plant(trees.cnmc(), tmp_path / "data"))
    assert len(list_items(config)[0]) == 16
    trees.plant(files, tmp_path / "data")
    with pytest.raises(kind) as caught:
        list_items(config)
    assert caught.value.where and caught.value.cure


def test_blast_centroids_come_with_the_images(tmp_path: Path) -> None:
    items, rejected = list_items(settings("all-idb1", trees.plant(trees.idb1(), tmp_path)))
    assert [getattr(item, "centroids", None) for item in items][:2] == [((10, 15),), ((10, 15), (20, 25))]
    assert rejected == []
