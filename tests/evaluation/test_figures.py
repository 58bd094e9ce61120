from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from cotray.errors import DataError
from cotray.evaluation import figures

RNG = np.random.default_rng(0)
LABELS = np.arange(60) % 2
PROB = np.clip(LABELS * 0.4 + RNG.random(60) * 0.6, 0, 1)
HISTORY = [
    {"epoch": e + 1.0, "loss": 1 / (e + 1), "val_loss": 1.1 / (e + 1), "val_f1": e / 9, "seconds": 2.0}
    for e in range(9)
]
SEARCH = [{"best_fitness": 0.3 / (i + 1), "best_size": 40.0 - i, "evaluations": 20.0 * i} for i in range(9)]
IMAGES = [RNG.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8) for i in range(5)]

DRAWN: dict[str, Callable[[], bytes]] = {
    "roc": lambda: figures.roc_figure({"cotray": (LABELS, PROB), "colour $only_": (LABELS, 1 - PROB)}),
    "confusion": lambda: figures.confusion_figure(LABELS, PROB >= 0.5),
    "reliability": lambda: figures.reliability_figure(LABELS, PROB),
    "probability": lambda: figures.probability_figure(LABELS, PROB, 0.4),
    "history": lambda: figures.history_figure(HISTORY, ("loss", "val_loss"), "val_f1", title="50$ {x_1}"),
    "history default": lambda: figures.history_figure(HISTORY[:1]),
    "selection": lambda: figures.selection_figure(SEARCH),
    "grid": lambda: figures.grid_figure(IMAGES, 3, ["a$b_{", "b", "c", "d", "<e>"]),
}


@pytest.mark.parametrize("name", list(DRAWN))
def test_figures_are_legible_png(name: str) -> None:
    image = Image.open(io.BytesIO(DRAWN[name]()))
    assert image.format == "PNG"
    assert min(image.size) >= 150
    assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_one_class_and_edges_can_be_drawn() -> None:
    assert figures.reliability_figure([1, 1], [1.0, 1.0])
    assert figures.probability_figure([0, 0], [0.0, 1.0])
    assert figures.confusion_figure([1, 1], [True, False])
    assert figures.grid_figure(IMAGES[:1], 6)


def test_figures_are_repeatable_in_threads() -> None:
    names = ["roc", "confusion", "reliability", "selection"]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(lambda name: DRAWN[name](), names))
    assert parallel == [DRAWN[name]() for name in names]


def test_pyplot_is_not_used() -> None:
    code = (
        "import sys, cotray.evaluation.figures as f;"
        "f.confusion_figure([0, 1], [0, 1]);"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.history_figure([]),
        lambda: figures.history_figure(HISTORY, "nothing"),
        lambda: figures.selection_figure([]),
        lambda: figures.grid_figure([], 3),
    ],
)
def test_nothing_to_draw_is_said(draw: Callable[[], bytes]) -> None:
    with pytest.raises(DataError):
        draw()


def test_overlay_draws_on_a_copy_at_the_right_place() -> None:
    rgb = np.full((100, 140, 3), 128, np.uint8)
    mask = np.zeros((100, 140), bool)
    mask[60:80, 90:120] = True
    out = figures.overlay(rgb, [mask], [(10, 20, 40, 50)], ["0.97"])
    changed = (out != rgb).any(axis=2)
    assert (rgb == 128).all() and out.shape == rgb.shape and out.dtype == np.uint8
    assert changed[20, 20] and changed[49, 39] and not changed[35, 25], "the box's edge, not its inside"
    assert changed[60, 100] and not changed[70, 105], "the mask's contour, not its inside"
    assert changed[5:20, 10:30].any(), "the text above the box"
    assert not changed[53:57].any()


def test_overlay_of_nothing_is_the_image_and_a_text_stays_inside() -> None:
    rgb = np.full((40, 60, 3), 128, np.uint8)
    np.testing.assert_array_equal(figures.overlay(rgb, [], [], []), rgb)
    out = figures.overlay(rgb, [], [(50, 0, 60, 10)], ["0.97"])
    assert (out[:, -3:] != 128).any() and out.shape == rgb.shape
