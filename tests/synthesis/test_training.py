"""LeuGAN's whole training in this process: few cells, lost numbers, weights of other settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from blobs import blobs

from cotray.config import GanConfig, TrainConfig
from cotray.errors import NonFiniteLossError, WeightsError
from cotray.fitting.loop import fit_here
from cotray.synthesis.sample import synthesize
from cotray.synthesis.training import HELD, leugan_job, load_generator

TINY = GanConfig(
    image_size=32, channels=16, latent=16, train=TrainConfig(epochs=2, batch_size=64, weight_decay=0.0)
)


def settings(**train: object) -> GanConfig:
    return TINY.model_copy(update={"train": TINY.train.model_copy(update=train)})


@pytest.mark.parametrize("count", [3, 17, 100])
def test_it_learns_from_fewer_cells_than_a_batch_holds(count: int) -> None:
    weights, history = fit_here(leugan_job(TINY, blobs(count, 0), seed=0))
    assert len(history) == 2 and np.isfinite([row["loss"] for row in history]).all()
    assert synthesize(load_generator(TINY, weights), 5, seed=0).shape == (5, 32, 32, 3)


def test_every_cell_is_learned_from_or_held_back() -> None:
    cells = np.arange(40, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 48, 48, 3), np.uint8)
    job = leugan_job(TINY, cells, seed=1)
    learned, held = (set(part["image"][:, 0, 0, 0].tolist()) for part in (job.train, job.valid))
    assert learned | held == set(range(40)) and not learned & held
    assert len(held) == 40 // HELD
    assert job.train["image"].shape[1:] == (32, 32, 3)
    assert job.preview_every == TINY.grid_every


def test_lost_numbers_are_named() -> None:
    with pytest.raises(NonFiniteLossError) as told:
        fit_here(leugan_job(settings(lr=1e30, epochs=20), blobs(20, 0), seed=0))
    assert "leugan" in str(told.value) and "train.lr" in str(told.value)


@pytest.mark.parametrize("other", [{"channels": 32}, {"latent": 8}, {"image_size": 64}])
def test_a_generator_of_other_settings_is_refused(other: dict[str, int]) -> None:
    weights, _ = fit_here(leugan_job(TINY, blobs(12, 0), seed=0))
    with pytest.raises(WeightsError, match="no generator of these settings"):
        load_generator(TINY.model_copy(update=other), weights)
    with pytest.raises(WeightsError):
        load_generator(TINY, {"discriminator": weights["discriminator"]})


def test_the_averaged_weights_are_what_draws() -> None:
    plain, _ = fit_here(leugan_job(settings(epochs=3), blobs(24, 0), seed=0))
    averaged, _ = fit_here(leugan_job(settings(epochs=3, ema=0.99), blobs(24, 0), seed=0))
    name = "dense.weight"
    assert not torch.equal(plain["generator"][name], averaged["generator"][name])
