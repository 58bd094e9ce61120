"""References give the pixels that bytes give; a file that changed or went is named. Real Ray Data."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from cotray.config import Config, load_config
from cotray.errors import SourceChangedError
from cotray.stages.images import Images, open_images
from cotray.stages.pipeline import Request, run_pipeline
from cotray.storage import Folder

pytestmark = pytest.mark.usefixtures("ray_local")
Seen = dict[str, tuple[NDArray[np.uint8], NDArray[np.bool_] | None]]


def blob(seed: int, side: int = 64) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def write(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sink = io.BytesIO()
    image.save(sink, "PNG" if path.suffix == ".png" else "TIFF")
    path.write_bytes(sink.getvalue())


def make_idb2(root: Path, count: int = 12) -> None:
    """ALL-IDB2's layout with masks of all but the last image."""
    for number in range(1, count + 1):
        name = f"Im{number:03d}_{number % 2}"
        write(blob(number), root / "img" / f"{name}.tif")
        if number < count:
            mask = np.zeros((64, 64), np.uint8)
            mask[number : number + 20, 10:40] = 255
            write(Image.fromarray(mask), root / "masks-a" / f"{name}.png")


def settings(*sets: str) -> Config:
    return load_config("tiny", overrides=("tracking.enabled=false", "split.block=2", *sets))


def ingest(run: Path, *sets: str) -> Images:
    run_pipeline(Request(str(run), settings(*sets), until="ingest"))
    return open_images(Folder(str(run / "ingest")))


def seen(images: Images) -> Seen:
    parts = sorted(Path(images.parts.path).iterdir())
    rows = [row for part in range(len(parts)) for row in images.rows(part) if row["status"] == "used"]
    return {row["id"]: (images.rgb(row), images.mask(row)) for row in rows}


def same(a: Seen, b: Seen) -> bool:
    return a.keys() == b.keys() and all(
        np.array_equal(a[name][0], b[name][0])
        and (a[name][1] is None) == (b[name][1] is None)
        and (a[name][1] is None or np.array_equal(a[name][1], b[name][1]))
        for name in a
    )


def both(home: Path, *sets: str) -> tuple[Seen, Seen]:
    kept = seen(ingest(home / "kept", *sets))
    again = seen(ingest(home / "again", *sets, "ingest.store=reference"))
    return kept, again


def test_references_give_the_same_pixels_and_masks(tmp_path: Path) -> None:
    make_idb2(tmp_path / "data")
    sets = ("dataset.name=all-idb2", f"dataset.root={tmp_path / 'data'}")
    kept, again = both(tmp_path, *sets, "ingest.mask_regions=[[0.5, 0.5, 1, 1]]")
    assert len(kept) == 12 and same(kept, again)
    assert sum(mask is not None for _, mask in kept.values()) == 11
    for part in (tmp_path / "again" / "ingest" / "images").iterdir():
        table = pq.read_table(part)
        assert table["image"].null_count == table["mask"].null_count == len(table)


def test_phantoms_are_drawn_again(tmp_path: Path) -> None:
    kept, again = both(tmp_path, "dataset.phantom_subjects=6", "dataset.phantom_cells=2")
    assert len(kept) == 12 and same(kept, again)
    assert all(mask is not None and mask.any() for _, mask in again.values())


@pytest.mark.data
def test_references_to_real_images(tmp_path: Path, shared_data: Callable[[str], Path]) -> None:
    root = shared_data("all-idb2")
    sets = ("dataset.name=all-idb2", f"dataset.root={root}", "dataset.limit=16")
    kept, again = both(tmp_path, *sets)
    assert len(kept) == 16 and same(kept, again)
    assert all(mask is not None for _, mask in again.values())


def rewritten(path: Path) -> None:
    write(blob(999), path)


def another_mask(path: Path) -> None:
    write(Image.fromarray(np.full((64, 64), 255, np.uint8)), path)


def cut_off(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("file", "harm", "told"),
    [
        ("img/Im003_1.tif", rewritten, "has changed"),
        ("img/Im003_1.tif", cut_off, "cannot be read any more"),
        ("img/Im003_1.tif", Path.unlink, "gone|no longer"),
        ("masks-a/Im003_1.png", another_mask, "changed"),
        ("masks-a/Im003_1.png", Path.unlink, "changed|gone"),
    ],
)
def test_a_changed_file_is_named_with_the_cure(
    referenced: Path, file: str, harm: Callable[[Path], None], told: str
) -> None:
    path = referenced / "data" / file
    before = path.read_bytes()
    try:
        harm(path)
        with pytest.raises(SourceChangedError, match=told) as caught:
            seen(open_images(Folder(str(referenced / "run" / "ingest"))))
        assert "Im003_1" in caught.value.what
        assert "--force ingest" in str(caught.value.cure)
    finally:
        path.write_bytes(before)
    assert len(seen(open_images(Folder(str(referenced / "run" / "ingest"))))) == 12


def test_one_gone_between_listing_and_reading(referenced: Path) -> None:
    images = open_images(Folder(str(referenced / "run" / "ingest")))
    path = referenced / "data" / "img" / "Im005_1.tif"
    before = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(SourceChangedError, match=r"Im005_1\.tif is gone"):
            seen(images)
    finally:
        path.write_bytes(before)


@pytest.fixture(scope="module")
def referenced(tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Path:
    """A folder with `data` and a `run` that kept references to it."""
    home = tmp_path_factory.mktemp("referenced")
    make_idb2(home / "data")
    ingest(home / "run", "dataset.name=all-idb2", f"dataset.root={home / 'data'}", "ingest.store=reference")
    return home


def test_a_damaged_mask_leaves_its_image_in_use(tmp_path: Path) -> None:
    make_idb2(tmp_path / "data")
    cut_off(tmp_path / "data" / "masks-a" / "Im002_0.png")
    small = Image.fromarray(np.full((8, 8), 255, np.uint8))
    write(small, tmp_path / "data" / "masks-a" / "Im004_0.png")
    images = ingest(tmp_path / "run", "dataset.name=all-idb2", f"dataset.root={tmp_path / 'data'}")
    found = seen(images)
    assert len(found) == 12
    without = {name for name, (_, mask) in found.items() if mask is None}
    assert without == {"img/Im002_0.tif", "img/Im004_0.tif", "img/Im012_0.tif"}
    rows = pq.read_table(tmp_path / "run" / "ingest" / "manifest.parquet").to_pylist()
    noted = {row["id"] for row in rows if row["reason"]}
    assert noted == {"img/Im002_0.tif", "img/Im004_0.tif"}, "an image without a mask file needs no note"


def test_cells_of_references_are_those_of_bytes(referenced: Path, tmp_path: Path) -> None:
    sets = ("dataset.name=all-idb2", f"dataset.root={referenced / 'data'}", "segment.model=otsu")
    reference = settings(*sets, "ingest.store=reference")
    run_pipeline(Request(str(tmp_path / "again"), reference, until="segment"))
    run_pipeline(Request(str(tmp_path / "kept"), settings(*sets), until="segment"))
    cells = [pq.read_table(tmp_path / run / "segment" / "cells") for run in ("again", "kept")]
    assert len(cells[0]) >= 6 and cells[0].equals(cells[1])


def test_a_stage_names_the_file_that_changed(referenced: Path) -> None:
    path, run = referenced / "data" / "img" / "Im006_0.tif", referenced / "run"
    sets = ("dataset.name=all-idb2", f"dataset.root={referenced / 'data'}", "segment.model=otsu")
    config, before = settings(*sets, "ingest.store=reference"), path.read_bytes()
    rewritten(path)
    try:
        with pytest.raises(SourceChangedError, match=r"Im006_0\.tif has changed"):
            run_pipeline(Request(str(run), config, only="segment"))
    finally:
        path.write_bytes(before)
