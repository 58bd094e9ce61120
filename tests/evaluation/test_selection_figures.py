from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from cotray.errors import DataError
from cotray.evaluation.selection_figures import LONGEST, convergence_figure, shorten, stability_figure

HISTORY = [
    {"best_fitness": 0.4 / (i + 1), "best_size": 30.0 - i, "evaluations": 31.0 * (i + 1), "seconds": 0.5 * i}
    for i in range(9)
]
MEMBERS = np.random.default_rng(0).uniform(size=(5, 60)) < np.linspace(0.9, 0.02, 60)
NAMES = [f"gene $x_{i} <b>" + "long " * (i % 9) for i in range(60)]
MASK = np.arange(60) < 7

DRAWN: dict[str, Callable[[], bytes]] = {
    "one search": lambda: convergence_figure({"sca": HISTORY}),
    "rivals": lambda: convergence_figure({"sca": HISTORY, "ga": HISTORY[:4], "a $b_{": HISTORY[2:]}),
    "a single row": lambda: convergence_figure({"sca": HISTORY[:1]}),
    "stability": lambda: stability_figure(NAMES, MEMBERS, MASK),
    "two members that never agree": lambda: stability_figure(
        ["a", "b"], np.eye(2) > 0, np.array([True, False])
    ),
}


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


@pytest.mark.parametrize("name", list(DRAWN))
def test_figures_are_legible_png(name: str) -> None:
    image = Image.open(io.BytesIO(DRAWN[name]()))
    assert image.format == "PNG" and min(image.size) >= 150
    assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_figures_are_repeatable_in_threads() -> None:
    names = ["rivals", "stability"]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda name: DRAWN[name](), names)) == [DRAWN[name]() for name in names]


def test_each_search_has_a_line_of_its_own() -> None:
    """The second line's colour is there with a rival only."""
    orange = np.array([0xC2, 0x41, 0x0C])
    alone, both = (pixels(DRAWN[name]()) for name in ("one search", "rivals"))
    near = [(np.abs(image - orange).sum(axis=2) < 30).sum() for image in (alone, both)]
    assert near[0] == 0 and near[1] > 500


def test_what_is_in_the_mask_is_blue() -> None:
    blue = np.array([0x03, 0x69, 0xA1])
    often = np.ones((3, 4), bool)
    areas = []
    for chosen in (0, 2, 4):
        image = pixels(stability_figure(list("abcd"), often, np.arange(4) < chosen))
        areas.append(int((np.abs(image - blue).sum(axis=2) < 12).sum()))
    assert areas[0] == 0 and areas[2] == pytest.approx(2 * areas[1], rel=0.02) and areas[1] > 1000


def test_a_long_name_keeps_both_ends() -> None:
    assert shorten("short") == "short"
    name = "first" + "x" * 60 + "last"
    assert len(shorten(name)) <= LONGEST
    assert shorten(name).startswith("first") and shorten(name).endswith("last")


@pytest.mark.parametrize(
    "draw",
    [
        lambda: convergence_figure({}),
        lambda: convergence_figure({"sca": HISTORY, "ga": []}),
        lambda: stability_figure(NAMES, MEMBERS[:1], MASK),
    ],
)
def test_nothing_to_draw_is_said(draw: Callable[[], bytes]) -> None:
    with pytest.raises(DataError):
        draw()
