"""The command `cotray segment` as people and scripts meet it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cotray.cli import main
from cotray.data.phantom import draw_phantom, phantom_index

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder of its own with one image and one file that is none; plain output."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "160"}.items():
        monkeypatch.setenv(name, value)
    Path("smears").mkdir()
    rgb = draw_phantom(phantom_index("all-idb2", 2, 1, seed=5)[0]).rgb
    Path("smears/cell.png").write_bytes(cv2.imencode(".png", rgb[..., ::-1])[1].tobytes())
    Path("smears/broken.jpg").write_bytes(b"no image")


def call(capsys: Captured, *args: str, code: int = 0) -> tuple[str, str]:
    """Output and errors of a command, which must end with ``code``."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(["segment", *args])
    out, err = capsys.readouterr()
    assert (left.value.code or 0) == code, out + err
    return out, err


def test_a_folder_is_segmented_without_any_training(capsys: Captured) -> None:
    out, err = call(capsys, "smears")
    assert err == ""
    assert "2 in = 1 segmented + 1 quarantined" in out and "broken.jpg: not an image" in out
    for name in ("masks/cell.png", "overlays/cell.png", "cells.csv", "cells.parquet", "images.csv"):
        assert (Path("runs/segment-smears") / name).is_file(), "beside other runs"
    labels = cv2.imread("runs/segment-smears/masks/cell.png", cv2.IMREAD_UNCHANGED)
    assert labels.dtype == np.uint16 and set(np.unique(labels)) == {0, 1}
    assert "2 were done before" in call(capsys, "smears")[0]


def test_json_is_one_object_per_image_and_nothing_else(capsys: Captured) -> None:
    out, _ = call(capsys, "smears", "--out", "o", "--json")
    broken, cell = [json.loads(line) for line in out.splitlines()]
    assert broken["image"] == "broken.jpg" and "not an image" in broken["error"]
    assert (cell["image"], cell["width"], cell["height"], cell["single"]) == ("cell.png", 257, 257, True)
    (one,) = cell["cells"]
    labels = cv2.imread(cell["mask"], cv2.IMREAD_UNCHANGED)
    assert one["area"] == (labels == one["cell"]).sum()
    x0, y0, x1, y1 = one["box"]
    assert (labels[y0:y1, x0:x1] > 0).sum() == one["area"]
    assert Path(cell["overlay"]).is_file()


def test_a_box_and_a_point_prompt_one_image(capsys: Captured) -> None:
    out, _ = call(capsys, "smears/cell.png", "--out", "o", "--json", "--box", "70,70,190,190")
    assert len(json.loads(out)["cells"]) == 1
    out, _ = call(capsys, "smears/cell.png", "--out", "p", "--json", "--point", "128,128")
    x0, y0, x1, y1 = json.loads(out)["cells"][0]["box"]
    assert x0 < 128 < x1 and y0 < 128 < y1


def test_where_no_image_can_be_read_the_exit_code_says_so(capsys: Captured) -> None:
    out, _ = call(capsys, "smears/broken.jpg", "--out", "o", code=2)
    assert "0 segmented + 1 quarantined" in out
    out, _ = call(capsys, "smears/broken.jpg", "--out", "o", "--json", code=2)
    assert json.loads(out)["error"]


WRONG = {
    "nothing": ([], "nothing to segment"),
    "not there": (["nowhere"], "[", "Check the path."),
    "empty folder": (["void"], "no image in this folder"),
    "a box of three": (["smears/cell.png", "--box", "1,2,3"], "x0,y0,x1,y1"),
    "a box inside out": (["smears/cell.png", "--box", "9,9,3,20"], "x0 < x1"),
    "a point in words": (["smears/cell.png", "--point", "here"], "x,y"),
    "a point outside": (["smears/cell.png", "--point", "999,3"], "257 x 257"),
    "prompts for many": (["smears", "--point", "9,9"], "one image"),
    "no bundle": (["smears", "--bundle", "nowhere"], "no bundle"),
    "unknown setting": (["smears", "--set", "roi.max_cels=3"], "Did you mean"),
    "another network": (["smears", "--set", "segment.embed_dim=48"], "do not fit"),
    "a run and images": (["smears", "--run", "r"], "--run does not go with images"),
    "a run and a place": (["--run", "r", "--out", "o", "--json"], "--out, --json"),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_what_is_wrong_is_said_in_one_line(what: str, capsys: Captured) -> None:
    Path("void").mkdir()
    args, *words = WRONG[what]
    out, err = call(capsys, *args, code=2)
    assert all(word in err for word in words) and err.startswith("cotray: ")
    assert err.count("\n") == 1 and "Traceback" not in out + err


@pytest.mark.parametrize("what", [name for name in WRONG if name != "a point outside"])
def test_what_cannot_begin_leaves_nothing_behind(what: str, capsys: Captured) -> None:
    Path("void").mkdir()
    call(capsys, *WRONG[what][0], code=2)
    assert sorted(p.name for p in Path().iterdir()) == ["smears", "void"]


def test_results_of_other_settings_ask_for_force(capsys: Captured) -> None:
    call(capsys, "smears", "--out", "o")
    _, err = call(capsys, "smears", "--out", "o", "--set", "roi.margin=0.2", code=2)
    assert "roi" in err and "--force" in err
    call(capsys, "smears", "--out", "o", "--set", "roi.margin=0.2", "--force")


def test_after_a_prompt_that_was_wrong_the_right_one_needs_no_force(capsys: Captured) -> None:
    call(capsys, "smears/cell.png", "--out", "o", "--point", "999,3", code=2)
    call(capsys, "smears/cell.png", "--out", "o", "--point", "128,128")


def test_a_file_in_the_way_of_the_results_is_said(capsys: Captured) -> None:
    Path("o").write_text("in the way")
    _, err = call(capsys, "smears", "--out", "o", code=2)
    assert err.startswith("cotray: ") and err.count("\n") == 1
