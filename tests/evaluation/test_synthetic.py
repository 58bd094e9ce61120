"""Pictures and table of synthetic cells."""

from __future__ import annotations

import io

import numpy as np
import pytest
from blobs import blobs
from PIL import Image

from cotray.errors import DataError
from cotray.evaluation.synthetic_figures import FRAMES, nearest_figure, over_time_figure, pairs_figure
from cotray.evaluation.synthetic_report import FIGURES, synthetic_rows
from cotray.synthesis.quality import cell_quality

CELLS = list(blobs(8, 0))


def size(png: bytes) -> tuple[int, int]:
    image = Image.open(io.BytesIO(png))
    assert len(image.convert("RGB").getcolors(2**24) or []) > 50, "there is something on it"
    return image.size


def grid(grey: int) -> np.ndarray:
    rows = np.concatenate([np.concatenate(CELLS, axis=1)] * 2)
    return (rows // 2 + grey).astype(np.uint8)


def test_the_strip_has_a_row_for_each_epoch_and_not_too_many() -> None:
    few, many = (over_time_figure({10 * n: grid(n) for n in range(1, count)}) for count in (4, 40))
    assert size(many)[1] == pytest.approx(size(few)[1] * FRAMES / 3, rel=0.02)
    assert over_time_figure({1: grid(0)}) != over_time_figure({1: grid(60)})
    with pytest.raises(DataError):
        over_time_figure({})


def test_pairs_are_drawn_one_above_the_other() -> None:
    two, four = (pairs_figure(CELLS[:n], CELLS[-n:], [0.5] * n) for n in (2, 4))
    assert size(two)[1] == size(four)[1] and size(two)[0] < size(four)[0]
    with pytest.raises(DataError):
        pairs_figure([], [], [])


@pytest.mark.parametrize("scale", [0.0, 1.0, 50.0])
def test_distances_are_drawn_whatever_they_are(scale: float) -> None:
    rng = np.random.default_rng(0)
    own = rng.gamma(3, size=40)
    assert size(nearest_figure(own, scale * rng.gamma(3, size=30), 0.2))[0] > 300
    assert size(nearest_figure(np.zeros(9), scale * np.ones(9), 0.0))[0] > 300


def test_the_table_has_a_column_for_each_space() -> None:
    pixels = cell_quality(blobs(12, 0), blobs(12, 1), seed=0)
    rows = synthetic_rows(pixels | {"backbone_recall": 0.25})
    assert [row.name for row in rows] == [name for name, _ in FIGURES.values()]
    values = {row.name: row.values for row in rows}
    assert values["Recall"] == (f"{pixels['pixels_pca_recall']:.3f}", "0.250")
    assert values["Precision"][1] == ""
    assert synthetic_rows({}) == []
