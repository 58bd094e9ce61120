from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from cotray.errors import DatasetNotFoundError, RunError, RunNotWritableError
from cotray.storage import Folder, absolute, require_writable


def test_bytes_json_and_parquet_round_trip(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "a"))
    folder.write_bytes("deep/er/x.bin", b"123")
    folder.write_json("x.json", {"b": 1, "a": [1, 2]})
    rows = pa.table({"n": [1, 2, 3]})
    folder.write_parquet("t/part.parquet", rows)
    assert folder.read_bytes("deep/er/x.bin") == b"123"
    assert folder.read_json("x.json") == {"a": [1, 2], "b": 1}
    assert folder.read_parquet("t/part.parquet").equals(rows)
    assert folder.files() == ["deep/er/x.bin", "t/part.parquet", "x.json"]
    assert set(folder.sizes()) == set(folder.files())


def test_the_same_code_works_on_another_filesystem() -> None:
    folder = Folder("memory://bucket/run")
    folder.write_json("x.json", {"a": 1})
    folder.write_parquet("t.parquet", pa.table({"n": [1]}))
    assert folder.read_json("x.json") == {"a": 1}
    assert folder.read_parquet("t.parquet")["n"].to_pylist() == [1]
    assert (folder / "sub").uri == "memory://bucket/run/sub"
    folder.remove()
    assert not folder.exists("x.json")


def test_a_write_leaves_no_temporary_file_and_replaces_whole(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write_bytes("x", b"old")
    folder.write_bytes("x", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert folder.read_bytes("x") == b"new"


def test_survives_pickling(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write_bytes("x", b"1")
    assert pickle.loads(pickle.dumps(folder)).read_bytes("x") == b"1"


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    with pytest.raises(RunNotWritableError, match="--run"):
        require_writable(Folder(str(blocker / "run")))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    (tmp_path / "t.parquet").write_text("nonsense")
    with pytest.raises(RunError, match=r"x\.json"):
        Folder(str(tmp_path)).read_json("x.json")
    with pytest.raises(RunError, match=r"t\.parquet"):
        Folder(str(tmp_path)).read_parquet("t.parquet")
    with pytest.raises(DatasetNotFoundError, match="nowhere"):
        Folder(str(tmp_path / "nowhere")).files()


def test_absolute_leaves_uris_alone() -> None:
    assert absolute("s3://b/x") == "s3://b/x"
    assert Path(absolute("x/y")).is_absolute()
