"""Which cells form GraFR's bank, and what is kept of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cotray import manifest
from cotray.config import load_config
from cotray.features.grafr import GraFR
from cotray.stages.extract import _reconstruct, _save_bank, bank_rows, kept_in_bank, load_bank
from cotray.storage import Folder


def rows_of(train: int = 60, others: int = 12) -> Any:
    """Training cells of two classes and unlabelled ones, then others that may not enter a bank."""
    rows = [
        {"id": f"t{n}", "source": "real", "split": "train", "label": [0, 1, 1, None][n % 4]}
        for n in range(train)
    ]
    more = [("leugan", "train"), ("real", "val"), ("real", "test"), ("real", "unlabelled")]
    rows += [
        {"id": f"o{n}", "source": more[n % 4][0], "split": more[n % 4][1], "label": 1} for n in range(others)
    ]
    return manifest.table(rows)


def features(count: int = 72) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)


def test_the_bank_is_of_real_training_cells() -> None:
    np.testing.assert_array_equal(bank_rows(rows_of()), np.arange(72) < 60)
    np.testing.assert_array_equal(
        kept_in_bank(load_config("tiny"), rows_of(), features()), np.arange(72) < 60
    )


def test_a_coreset_keeps_its_share_of_each_class() -> None:
    config = load_config("tiny", overrides=["grafr.coreset=20"])
    rows, feat = rows_of(), features()
    kept = kept_in_bank(config, rows, feat)
    assert not kept[60:].any()
    assert kept.sum() == 20
    assert np.bincount([0, 1, 1, 2] * 15, weights=kept[:60]).tolist() == [5, 10, 5]
    np.testing.assert_array_equal(kept_in_bank(config, rows, feat), kept)


def test_cells_outside_a_coreset_are_asked_as_any_other() -> None:
    config = load_config("tiny", overrides=["grafr.coreset=20", "grafr.mode=replace", "grafr.k=3"])
    rows, feat = rows_of(), features()
    made, bank, _ = _reconstruct(config, rows, feat)
    kept = kept_in_bank(config, rows, feat)
    np.testing.assert_array_equal(bank, feat[kept])
    grafr = GraFR(config.grafr)
    np.testing.assert_allclose(made[kept], grafr.fit_transform(bank), atol=1e-6)
    np.testing.assert_allclose(made[~kept], grafr.transform(feat[~kept]), atol=1e-6)


@pytest.mark.parametrize("index", ["exact", "ivf"])
@pytest.mark.parametrize("place", ["disk", "memory"])
def test_bank_and_index_come_back(index: str, place: str, tmp_path: Any) -> None:
    config = load_config("tiny", overrides=[f"grafr.index={index}", "grafr.mode=replace"])
    bank, queries = features(400), features(5) + 0.1
    grafr = GraFR(config.grafr).fit(bank)
    folder = Folder(str(tmp_path) if place == "disk" else f"memory://extract-{index}")
    _save_bank(folder, bank, grafr.state())
    known = {k: v.numpy() for k, v in load_bank(SimpleNamespace(input=lambda _: folder)).items()}  # type: ignore[arg-type]
    again = GraFR(config.grafr).fit(known.pop("bank"), known)
    np.testing.assert_array_equal(again.transform(queries), grafr.transform(queries))
    assert set(known) == ({"means", "lists"} if index == "ivf" else set())
