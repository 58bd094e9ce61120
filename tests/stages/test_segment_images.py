"""Masks, overlays and tables of the images that are given; what is done is not done again."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from cotray.data.decode import decode_stored
from cotray.data.phantom import PhantomImage, draw_phantom, phantom_index
from cotray.errors import ConfigError, InvalidValueError, RunMismatchError
from cotray.imaging.masks import decode_rle, iou, mask_box
from cotray.stages import segment_images as module
from cotray.stages.base import Voice
from cotray.stages.segment_images import Outcome, Request, decode_labels, picture_name, segment_images
from cotray.stages.segment_model import Ask

SEED = 77
FIELD = 0
"""Which field: it has four cells, apart from one another."""


def drawn(layout: str, number: int = 0) -> PhantomImage:
    return draw_phantom(phantom_index(layout, 4, 1, SEED)[number])


def write(path: Path, rgb: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, rgb[..., ::-1])[1].tobytes())
    return path


@pytest.fixture
def smears(tmp_path: Path) -> Path:
    """Three images in two folders, and a file that is none."""
    root = tmp_path / "smears"
    write(root / "one.png", drawn("all-idb2").rgb)
    write(root / "deep/two.bmp", drawn("all-idb2", 1).rgb)
    write(root / "field.tif", drawn("fields", FIELD).rgb)
    (root / "broken.png").write_bytes(b"no image")
    return root


def ask(smears: Path, out: Path, **more: Any) -> Outcome:
    return segment_images(Request([str(smears)], str(out), **more))


def labels(out: Path, name: str) -> NDArray[np.uint16]:
    return decode_labels((out / "masks" / picture_name(name)).read_bytes())


def rows(outcome: Outcome, image: str) -> list[dict[str, Any]]:
    return [row for row in outcome.cells.to_pylist() if row["image"] == image]


def stamps(out: Path) -> dict[str, int]:
    return {str(p.relative_to(out)): p.stat().st_mtime_ns for p in (out / "masks").rglob("*.png")}


# ---- what is written -----------------------------------------------------------------------------------


def test_every_image_gets_a_mask_an_overlay_and_its_rows(smears: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = ask(smears, out)
    assert outcome.images["image"].to_pylist() == ["broken.png", "deep/two.bmp", "field.tif", "one.png"]
    for name, image in (
        ("one.png", drawn("all-idb2")),
        ("deep/two.bmp", drawn("all-idb2", 1)),
        ("field.tif", drawn("fields", FIELD)),
    ):
        found = labels(out, name)
        assert found.shape == image.rgb.shape[:2] and found.dtype == np.uint16
        cells = rows(outcome, name)
        assert [row["cell"] for row in cells] == list(range(1, int(found.max()) + 1)) != []
        for row in cells:
            mask = found == row["cell"]
            assert np.array_equal(decode_rle(row["mask_rle"], *found.shape), mask)
            assert mask_box(mask) == (row["x0"], row["y0"], row["x1"], row["y1"])
            assert row["area"] == mask.sum() and 0 <= row["predicted_iou"] <= 1
        picture = decode_stored((out / "overlays" / picture_name(name)).read_bytes())
        changed = (picture != image.rgb).any(axis=2)
        assert 0 < changed.mean() < 0.2
    assert not list(out.glob("**/broken*")), "a file that is no image has no mask"
    assert not (out / "parts").exists()


def test_the_shipped_weights_find_what_was_drawn(smears: Path, tmp_path: Path) -> None:
    outcome = ask(smears, tmp_path / "out")
    truth, found = drawn("fields", FIELD), labels(tmp_path / "out", "field.tif")
    assert len(truth.boxes) > 1
    assert rows(outcome, "field.tif")[-1]["cell"] == len(truth.boxes)
    for number in range(1, len(truth.boxes) + 1):
        true = truth.instances == number
        (own,) = {int(n) for n in np.unique(found[true])} - {0}
        assert iou(found == own, true) > 0.85
    single = dict(zip(outcome.images["image"].to_pylist(), outcome.images["single"].to_pylist(), strict=True))
    assert single == {"one.png": True, "deep/two.bmp": True, "field.tif": False, "broken.png": None}


def test_tables_say_the_same_as_parquet_and_as_csv(smears: Path, tmp_path: Path) -> None:
    outcome, out = ask(smears, tmp_path / "out"), tmp_path / "out"
    cells = pq.read_table(out / "cells.parquet").to_pylist()
    assert cells == outcome.cells.to_pylist()
    with (out / "cells.csv").open(newline="") as file:
        told = list(csv.DictReader(file))
    assert [[int(n) for n in row["mask_rle"].split()] for row in told] == [c["mask_rle"] for c in cells]
    for key in ("image", "cell", "x0", "y1", "area"):
        assert [row[key] for row in told] == [str(cell[key]) for cell in cells]
    with (out / "images.csv").open(newline="") as file:
        images = {row["image"]: row for row in csv.DictReader(file)}
    assert (
        images["broken.png"]["status"] == "quarantined" and "not an image" in images["broken.png"]["reason"]
    )
    assert images["field.tif"]["width"] == "640" and images["one.png"]["cells"] == "1"


def test_one_cell_or_many_is_the_users_to_say(smears: Path, tmp_path: Path) -> None:
    assert len(rows(ask(smears, tmp_path / "a", ask=Ask(single=True)), "field.tif")) == 1
    outcome = ask(smears, tmp_path / "b", ask=Ask(single=False))
    assert outcome.images["single"].to_pylist().count(False) == 3
    few = ask(smears, tmp_path / "c", sets=["roi.max_cells=1"])
    assert len(rows(few, "field.tif")) == 1, "settings may be changed"


# ---- boxes and points ----------------------------------------------------------------------------------


def whole(image: PhantomImage, number: int) -> NDArray[np.bool_]:
    return image.instances == number


@pytest.mark.parametrize("kind", ["box", "point"])
def test_a_cell_that_is_pointed_at_is_segmented(kind: str, smears: Path, tmp_path: Path) -> None:
    truth = drawn("fields", FIELD)
    number = len(truth.boxes)
    x0, y0, x1, y1 = truth.boxes[number - 1]
    prompt = (
        Ask(boxes=((x0, y0, x1, y1),)) if kind == "box" else Ask(points=(((x0 + x1) // 2, (y0 + y1) // 2),))
    )
    outcome = ask(smears / "field.tif", tmp_path / "out", ask=prompt)
    (row,) = outcome.cells.to_pylist()
    assert iou(decode_rle(row["mask_rle"], 480, 640), whole(truth, number)) > 0.85


def test_boxes_and_points_go_together_and_reach_over_the_edge(smears: Path, tmp_path: Path) -> None:
    truth = drawn("fields", FIELD)
    (x0, y0, x1, y1), (u0, v0, u1, v1) = truth.boxes[:2]
    prompts = Ask(boxes=((x0, y0, x1, y1), (-30, -20, 10, 9)), points=(((u0 + u1) // 2, (v0 + v1) // 2),))
    outcome = ask(smears / "field.tif", tmp_path / "out", ask=prompts)
    masks = [decode_rle(row["mask_rle"], 480, 640) for row in outcome.cells.to_pylist()]
    for number in (1, 2):
        assert max(iou(mask, whole(truth, number)) for mask in masks) > 0.85


@pytest.mark.parametrize("prompt", [Ask(boxes=((900, 10, 950, 60),)), Ask(points=((640, 10),))])
def test_a_prompt_outside_the_image_is_refused(prompt: Ask, smears: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="640 x 480"):
        ask(smears / "field.tif", tmp_path / "out", ask=prompt)


def test_prompts_are_for_one_image(smears: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one image, and 4 are given"):
        ask(smears, tmp_path / "out", ask=Ask(points=((1, 1),)))
    assert not (tmp_path / "out").exists()


# ---- going on ------------------------------------------------------------------------------------------


def test_what_is_done_is_not_done_again(smears: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = ask(smears, out)
    before = stamps(out)
    again = ask(smears, out)
    assert (first.skipped, again.skipped) == (0, 4)
    assert stamps(out) == before and again.cells.equals(first.cells)
    write(smears / "new.png", drawn("all-idb2", 2).rgb)
    os.utime(smears / "one.png", (1, 1))
    third = ask(smears, out)
    assert third.skipped == 3
    changed = {name for name, at in stamps(out).items() if before.get(name) != at}
    assert changed == {"masks/new.png", "masks/one.png"}
    assert len(third.images) == 5
    forced = ask(smears, out, force=True)
    assert forced.skipped == 0 and forced.cells.equals(third.cells)
    assert not {name for name, at in stamps(out).items() if before.get(name) == at}


class Stopping(Voice):
    """Stops the work after some images, as a user would."""

    def __init__(self, after: int) -> None:
        self.after = after

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        if done == self.after:
            raise KeyboardInterrupt


def test_a_stopped_run_goes_on_and_ends_as_if_it_had_not(smears: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    with pytest.raises(KeyboardInterrupt):
        ask(smears, out, voice=Stopping(2))
    before = stamps(out)
    assert len(before) == 1, "of the first two files one is no image"
    done = ask(smears, out)
    assert done.skipped == 2 and stamps(out).items() >= before.items()
    assert done.cells.equals(ask(smears, other).cells)
    for name in stamps(out):
        assert (out / name).read_bytes() == (other / name).read_bytes()


def test_results_of_other_settings_are_not_mixed(smears: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ask(smears, out)
    before = stamps(out)
    with pytest.raises(RunMismatchError, match="roi"):
        ask(smears, out, sets=["roi.max_cells=1"])
    elsewhere = write(tmp_path / "elsewhere/three.png", drawn("all-idb2", 2).rgb)
    with pytest.raises(RunMismatchError, match="images"):
        ask(elsewhere, out)
    assert stamps(out) == before
    forced = ask(elsewhere, out, force=True)
    assert set(stamps(out)) == {"masks/three.png"} and len(forced.images) == 1


def test_one_image_of_a_folder_can_be_corrected_by_hand(smears: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = ask(smears, out)
    before = stamps(out)
    x0, y0, x1, y1 = drawn("all-idb2", 1).boxes[0]
    by_hand = Ask(boxes=((x0, y0, x1, y1), (2, 2, 40, 40)))
    corrected = ask(smears / "deep/two.bmp", out, ask=by_hand)
    assert corrected.images["image"].to_pylist() == ["deep/two.bmp"] and corrected.skipped == 0
    assert {n for n, at in stamps(out).items() if before[n] != at} == {"masks/deep/two.bmp.png"}
    again = ask(smears, out)
    assert again.skipped == 4, "the correction stays"
    assert rows(again, "deep/two.bmp") == rows(corrected, "deep/two.bmp") != rows(first, "deep/two.bmp")
    assert rows(again, "one.png") == rows(first, "one.png")
    assert ask(smears / "deep/two.bmp", out, ask=by_hand).skipped == 1


@pytest.mark.slow
@pytest.mark.long
def test_many_images_go_through_ray_and_come_out_alike(
    smears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_local: None
) -> None:
    here = ask(smears, tmp_path / "here")
    monkeypatch.setattr(module, "IN_PROCESS", 1)
    there = ask(smears, tmp_path / "there")
    assert there.cells.equals(here.cells)
    drop: Sequence[str] = ["seconds"]
    assert there.images.drop_columns(drop).equals(here.images.drop_columns(drop))
    for name in stamps(tmp_path / "here"):
        same = [(tmp_path / place / name).read_bytes() for place in ("here", "there")]
        assert same[0] == same[1]


def test_images_and_results_may_be_at_a_uri(smears: Path, tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    for path in (path for path in smears.rglob("*") if path.is_file()):
        fs.pipe_file(f"/lab/smears/{path.relative_to(smears)}", path.read_bytes())
    try:
        remote = segment_images(Request(["memory://lab/smears"], "memory://lab/out"))
        local = ask(smears, tmp_path / "out")
        assert remote.cells.equals(local.cells)
        for name in stamps(tmp_path / "out"):
            assert fs.cat_file(f"/lab/out/{name}") == (tmp_path / "out" / name).read_bytes()
    finally:
        fs.rm("/lab", recursive=True)
