"""`segment.model` on the command line: a rival takes LeuSAM's place: in training, bundle, answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from quick import Finished, cotray, quick_sets

pytestmark = pytest.mark.slow


@pytest.fixture
def runs(finished: Finished, tmp_path: Path) -> Path:
    """A working folder with a copy of the finished run."""
    shutil.copytree(finished.home / "runs", tmp_path / "runs")
    return tmp_path


@pytest.mark.long
def test_a_unet_is_trained_by_the_same_harness_and_cuts_the_cells(runs: Path) -> None:
    sets = quick_sets("segment.model=unet", "segment.unet_width=4", "tracking.enabled=false")
    done = cotray("run", "--run", "runs/quick", "--until", "segment", *sets, cwd=runs)
    folder = runs / "runs" / "quick" / "segment"
    assert "UNet learns from" in done.stdout
    record = json.loads((folder / "stage.json").read_text())
    assert record["result"]["notes"][0] == "UNet trained on phantom masks"
    history = json.loads((folder / "unet.history.json").read_text())
    assert [row["epoch"] for row in history] == [1.0, 2.0]
    assert record["result"]["counts"]["cells"] > 0
    assert record["result"]["metrics"]["test_mask_iou"] > 0.3
    cotray("segment", str(picture(runs)), "--bundle", "runs/quick", "--out", "seen", cwd=runs)
    assert any((runs / "seen").rglob("*.png"))


@pytest.mark.long
def test_a_run_with_nothing_to_learn_has_a_bundle_that_answers(runs: Path) -> None:
    sets = quick_sets("segment.model=otsu", "tracking.enabled=false")
    cotray("run", "--run", "runs/quick", *sets, cwd=runs)
    record = json.loads((runs / "runs" / "quick" / "segment" / "stage.json").read_text())
    assert record["result"]["notes"][0] == "Otsu and watershed trained on no masks"
    assert record["result"]["metrics"]["test_mask_iou"] > 0.6
    done = cotray("predict", str(picture(runs)), "--bundle", "runs/quick", "--json", cwd=runs)
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["class"] in ("normal", "malignant")
    assert 0 <= answer["probability"] <= 1


def picture(folder: Path) -> Path:
    """A drawn cell on disk."""
    import cv2

    from cotray.data.phantom import draw_phantom, phantom_index

    path = folder / "cell.png"
    drawn = draw_phantom(phantom_index("all-idb2", 4, 1, seed=5)[0])
    cv2.imwrite(str(path), cv2.cvtColor(drawn.rgb, cv2.COLOR_RGB2BGR))
    return path
