"""Training LeuGAN (paper, Eq. 1-2, in the non-saturating form). B cells, S side, K descriptors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cotray.config import GanConfig
from cotray.learning import Batch, Learner, Scalars, unwrap
from cotray.synthesis.diffaugment import diff_augment
from cotray.synthesis.leugan import Discriminator, Generator, init_weights

FIXED_SEED = 7
"""Validation draws the same latents for the same real cells every time, and pictures show the same latents
every time, so that epochs compare."""
SHOWN = (2, 8)
"""Rows and columns of cells in a picture of what the generator draws."""
POOLED = 8
"""Side to which validation images are averaged before they are compared."""


class LeuGanLearner(Learner):
    """Batches: image (B, S, S, 3) uint8, real cells of one class."""

    monitor = "val_distance"
    cpu_bf16 = False  # gains nothing for certain (docs/benchmarks.md)

    def __init__(self, cfg: GanConfig, seed: int) -> None:
        super().__init__()
        self.cfg = cfg
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            generator, discriminator = Generator(cfg), Discriminator(cfg)
            init_weights(generator)
            if not cfg.spectral_norm:
                init_weights(discriminator)
        self.nets = {"generator": generator, "discriminator": discriminator}

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam with beta1 as configured for both."""
        train, betas = self.cfg.train, (self.cfg.beta1, 0.999)
        return {
            name: torch.optim.Adam(
                self.nets[name].parameters(), lr=train.lr, betas=betas, weight_decay=train.weight_decay
            )
            for name in ("generator", "discriminator")
        }

    def train_step(self, batch: Batch) -> Scalars:
        """One discriminator step, one generator step; scalars loss (both), loss_d, loss_g, real_score."""
        real = to_gan_input(batch["image"].to(self.device))
        fake = self.nets["generator"](self._latent(len(real)))
        real_logit = self._judge(real)
        loss_d = F.softplus(-real_logit).mean() + F.softplus(self._judge(fake.detach())).mean()
        self.minimise("discriminator", loss_d, self.cfg.train.grad_clip)
        # Eq. 2's generator term, -log D(G(z)) for log(1 - D(G(z))): gradients do not vanish early on.
        loss_g = F.softplus(-self._judge(fake)).mean()
        self.minimise("generator", loss_g, self.cfg.train.grad_clip)
        figures = {"loss_d": loss_d, "loss_g": loss_g, "real_score": real_logit.sigmoid().mean()}
        shown = {name: value.detach() for name, value in figures.items()}
        return {"loss": shown["loss_d"] + shown["loss_g"], **shown}

    def _latent(self, n: int) -> Tensor:
        return torch.rand((n, self.cfg.latent), device=self.device) * 2 - 1

    def _judge(self, x_B3SS: Tensor) -> Tensor:
        logit: Tensor = self.nets["discriminator"](diff_augment(x_B3SS) if self.cfg.diffaugment else x_B3SS)
        return logit.float()

    @torch.no_grad()
    def predict_step(self, batch: Batch) -> dict[str, Tensor]:
        """Coarse descriptors of the real cells and of as many drawn ones: real, fake (B, K)."""
        # The batch's pixels seed its latents: were they those of every batch, a split of many batches
        # would be compared with one batch of drawn cells over and over.
        latent = torch.Generator().manual_seed(FIXED_SEED + int(batch["image"].sum()))
        z_BZ = torch.rand((len(batch["image"]), self.cfg.latent), generator=latent) * 2 - 1
        fake = unwrap(self.nets["generator"])(z_BZ.to(self.device)).float().cpu()
        return {"real": describe(to_gan_input(batch["image"])), "fake": describe(fake)}

    @torch.no_grad()
    def preview(self) -> NDArray[np.uint8]:
        """What the generator draws from the same latents every time: SHOWN cells in one picture (H, W, 3)."""
        latent = torch.Generator().manual_seed(FIXED_SEED)
        z_BZ = torch.rand((SHOWN[0] * SHOWN[1], self.cfg.latent), generator=latent) * 2 - 1
        cells = to_pixels(unwrap(self.nets["generator"])(z_BZ.to(self.device)).float().cpu())
        side = cells.shape[1]
        rows = cells.reshape(*SHOWN, side, side, 3).transpose(0, 2, 1, 3, 4)
        return np.ascontiguousarray(rows.reshape(SHOWN[0] * side, SHOWN[1] * side, 3))

    def score(self, outputs: Mapping[str, Tensor]) -> dict[str, float]:
        """val_distance: energy distance of coarse descriptors (0 = alike); decides the best epoch."""
        return {"val_distance": energy_distance(outputs["real"], outputs["fake"])}


def to_gan_input(image_BSS3: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) in -1..1."""
    return image_BSS3.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(x_B3SS: Tensor) -> NDArray[np.uint8]:
    """(B, 3, S, S) in -1..1 -> (B, S, S, 3) uint8."""
    pixels = ((x_B3SS + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())


def describe(x_B3SS: Tensor) -> Tensor:
    """Colour layout and texture: mean and deviation within POOLED x POOLED squares, (B, 6 * POOLED^2)."""
    mean = F.adaptive_avg_pool2d(x_B3SS, POOLED)
    square = F.adaptive_avg_pool2d(x_B3SS**2, POOLED)
    return torch.cat([mean, (square - mean**2).clamp(min=0).sqrt()], dim=1).flatten(1)


def energy_distance(a_BK: Tensor, b_BK: Tensor) -> float:
    """Twice the mean distance across, less those within (Szekely & Rizzo 2013); 0 for equal sets."""
    across, within_a, within_b = (
        torch.cdist(x, y).mean() for x, y in ((a_BK, b_BK), (a_BK, a_BK), (b_BK, b_BK))
    )
    return float(2 * across - within_a - within_b)
