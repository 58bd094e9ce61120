from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cotray.data.decode import encode_bmp, encode_png
from cotray.errors import AccessError, DatasetNotFoundError, RunError, RunNotWritableError, StorageError
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


def test_a_place_that_nobody_can_open_is_named() -> None:
    with pytest.raises(StorageError, match="Cannot open this place") as caught:
        Folder("nonsense://x/y").files()
    assert caught.value.where == "nonsense://x/y" and caught.value.cure


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


def test_links_are_followed_once_and_may_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "disk" / "img").mkdir(parents=True)
    (tmp_path / "disk" / "img" / "a.tif").write_bytes(b"123")
    root = tmp_path / "data"
    root.mkdir()
    (root / "ALL_IDB2").symlink_to(tmp_path / "disk")
    (root / "again").symlink_to(tmp_path / "disk")
    (root / "loop").symlink_to(root)
    (root / "one.tif").symlink_to(tmp_path / "disk" / "img" / "a.tif")
    (root / "lost.tif").symlink_to("nowhere")
    (root / "lost+found").mkdir()
    (root / "lost+found" / "b.tif").write_bytes(b"")
    folder = Folder(str(root))
    assert folder.files() == ["ALL_IDB2/img/a.tif", "lost.tif", "one.tif"]
    assert [size for size, _ in folder.sizes().values()] == [3, 0, 3]
    before = folder.sizes()
    os.utime(tmp_path / "disk" / "img" / "a.tif", (1, 1))
    assert folder.sizes()["one.tif"] != before["one.tif"], "a change of the file itself is seen"
    (tmp_path / "link").symlink_to(root)
    assert Folder(str(tmp_path / "link")).files() == folder.files()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_that_may_not_be_read_is_told_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "shut").mkdir()
    (tmp_path / "shut").chmod(0)
    try:
        with pytest.raises(AccessError, match="No permission") as caught:
            Folder(str(tmp_path)).files()
        assert str(caught.value.where).endswith("shut")
    finally:
        (tmp_path / "shut").chmod(0o755)


def test_bitmaps_are_compressed_and_pngs_left_as_they_are(tmp_path: Path) -> None:
    folder, flat = Folder(str(tmp_path)), np.zeros((200, 200, 3), np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, flat.shape, np.uint8)
    for name, images in {
        "bmp": [None, encode_bmp(flat), encode_bmp(noise)],
        "png": [encode_png(noise)],
    }.items():
        rows = pa.table({"image": pa.array(images, pa.binary())})
        folder.write_parquet(name, rows)
        assert folder.read_parquet(name).equals(rows)
        kept = pq.read_metadata(tmp_path / name).row_group(0).column(0)
        assert kept.compression == {"bmp": "ZSTD", "png": "UNCOMPRESSED"}[name]
    assert (tmp_path / "bmp").stat().st_size < 1.1 * noise.nbytes
