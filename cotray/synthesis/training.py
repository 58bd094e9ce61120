"""Training LeuGAN on cells of one class and drawing from it, whoever drives the training. N cells, S side."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cotray.config import GanConfig
from cotray.errors import WeightsError
from cotray.fitting.job import Job
from cotray.imaging.resize import resize_square
from cotray.synthesis.learner import LeuGanLearner
from cotray.synthesis.leugan import Generator

HELD = 8
"""One of so many cells is held back to say which epoch is best."""


def leugan_job(cfg: GanConfig, image_NSS3: NDArray[np.uint8], seed: int) -> Job:
    """Training on ``image_NSS3`` (uint8 RGB of any side, of one class; two cells at least)."""
    real = resize_square(image_NSS3, cfg.image_size)
    held = max(2, len(real) // HELD)
    order = np.random.default_rng(seed).permutation(len(real))
    return Job(
        name="leugan",
        build=functools.partial(LeuGanLearner, cfg, seed),
        train={"image": real[order[held:]]},
        valid={"image": real[order[:held]]},
        config=cfg.train,
        seed=seed,
        preview_every=cfg.grid_every,
    )


def load_generator(cfg: GanConfig, weights: Mapping[str, Mapping[str, Tensor]]) -> Generator:
    """The generator of a trained LeuGAN, ready to draw. Raises WeightsError where it is of other settings."""
    generator = Generator(cfg)
    try:
        generator.load_state_dict(dict(weights["generator"]))
    except (KeyError, RuntimeError) as error:
        raise WeightsError(
            f"These weights are no generator of these settings: {str(error)[:200]}",
            where="leugan",
            cure="Train it again: `cotray synthesize --run ... --force`.",
        ) from error
    return generator.eval()
