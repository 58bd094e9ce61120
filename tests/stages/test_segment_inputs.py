from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from cotray.errors import DataError, DatasetNotFoundError, EmptyDatasetError
from cotray.stages.segment_inputs import Inputs, find_inputs
from cotray.storage import Folder

ELSEWHERE = Folder("/nowhere")


def files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def names(found: Inputs) -> list[str]:
    return [item.path for item in found.items]


def same_bytes(found: Inputs, root: Path) -> bool:
    return all(
        found.root.read_bytes(i.path) == (Path(found.root.uri) / i.path).read_bytes() for i in found.items
    )


def test_a_folder_is_searched_wholly_for_images(tmp_path: Path) -> None:
    files(tmp_path, "b.JPG", "a/2.png", "a/deep/1.tif", "notes.txt", ".hidden/3.png", "masks/4.png")
    found = find_inputs([str(tmp_path)], ELSEWHERE)
    assert names(found) == ["a/2.png", "a/deep/1.tif", "b.JPG"]
    assert found.root.uri == str(tmp_path) and same_bytes(found, tmp_path)


def test_a_file_is_named_from_its_own_folder_whatever_it_is_called(tmp_path: Path) -> None:
    files(tmp_path, "a/smear", "a/other.png")
    assert names(find_inputs([str(tmp_path / "a/smear")], ELSEWHERE)) == ["smear"]


def test_several_inputs_are_named_from_what_they_share(tmp_path: Path) -> None:
    files(tmp_path, "a/1.png", "b/1.png", "b/c/1.png")
    given = [str(tmp_path / "b/c"), str(tmp_path / "a/1.png"), f"{tmp_path}/b/"]
    found = find_inputs(given, ELSEWHERE)
    assert names(found) == ["a/1.png", "b/1.png", "b/c/1.png"], "each once"
    assert found.root.uri == str(tmp_path) and same_bytes(found, tmp_path)


def test_a_former_folder_keeps_naming_the_images_that_it_holds(tmp_path: Path) -> None:
    files(tmp_path, "a/deep/1.png", "ab/2.png")
    former = str(tmp_path / "a")
    found = find_inputs([str(tmp_path / "a/deep/1.png")], ELSEWHERE, former)
    assert names(found) == ["deep/1.png"] and found.root.uri == former
    assert names(find_inputs([str(tmp_path / "ab")], ELSEWHERE, former)) == ["2.png"], "it does not hold this"


def test_relative_names_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path, "a/1.png")
    monkeypatch.chdir(tmp_path)
    for given in ("a", "./a/", "a/1.png"):
        assert names(find_inputs([given], ELSEWHERE)) == ["1.png"]


def test_results_of_a_former_run_are_no_images(tmp_path: Path) -> None:
    files(tmp_path, "1.png", "out/overlays/1.png", "outer/2.png")
    assert names(find_inputs([str(tmp_path)], Folder(f"{tmp_path}/out"))) == ["1.png", "outer/2.png"]


def test_a_changed_file_bears_another_mark(tmp_path: Path) -> None:
    files(tmp_path, "1.png", "2.png")
    before = find_inputs([str(tmp_path)], ELSEWHERE).items
    assert find_inputs([str(tmp_path)], ELSEWHERE).items == before
    os.utime(tmp_path / "1.png", (1, 1))
    (tmp_path / "2.png").write_bytes(b"longer than before")
    after = find_inputs([str(tmp_path)], ELSEWHERE).items
    assert all(a.path == b.path and a.mark != b.mark for a, b in zip(before, after, strict=True))


@pytest.fixture
def remote() -> Iterator[str]:
    """A filesystem that is not this machine's disk."""
    fs = fsspec.filesystem("memory")
    for name in ("/lab/x/1.png", "/lab/y/2.png"):
        fs.pipe_file(name, name.encode())
    yield "memory://lab"
    fs.rm("/lab", recursive=True)


def test_uris_are_read_like_folders(remote: str) -> None:
    found = find_inputs([remote], ELSEWHERE)
    assert names(found) == ["x/1.png", "y/2.png"]
    several = find_inputs([f"{remote}/x/1.png", f"{remote}/y"], ELSEWHERE)
    assert names(several) == names(found)
    assert [several.root.read_bytes(name) for name in names(several)] == [b"/lab/x/1.png", b"/lab/y/2.png"]


def test_two_filesystems_at_once_are_refused(remote: str, tmp_path: Path) -> None:
    files(tmp_path, "1.png")
    with pytest.raises(DataError, match="filesystems"):
        find_inputs([remote, str(tmp_path)], ELSEWHERE)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    files(tmp_path, "notes.txt")
    with pytest.raises(DatasetNotFoundError, match=r"absent\.png"):
        find_inputs([str(tmp_path / "absent.png")], ELSEWHERE)
    with pytest.raises(EmptyDatasetError, match="no image in this folder"):
        find_inputs([str(tmp_path)], ELSEWHERE)
