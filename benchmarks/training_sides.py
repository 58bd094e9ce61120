"""The two sides of the training benchmark: cotray's loop, and a bare one in plain torch.

The bare side is what a script would write: tensors in memory, forward, backward, clip, optimizer step, cosine
rate. Networks, losses and augmentation are the same functions on both sides; LeuGAN's moving average, figures
to log and the watch for NaN are in cotray's side alone. B batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from cotray.classification.learner import HdlcLearner
from cotray.config import Config, TrainConfig
from cotray.features.learner import BackboneLearner
from cotray.fitting.job import CachedFeed, Job
from cotray.fitting.loop import Fit, Place
from cotray.learning import Learner, cosine_lr, mixed_precision, weighted_bce
from cotray.segmentation import learner as leusam
from cotray.synthesis.diffaugment import diff_augment
from cotray.synthesis.learner import LeuGanLearner

SEED, WEIGHT, FEATURES = 0, (0.8, 1.25), 256
BACKBONES = ("cotconet", "gmod", "smod", "resnet18", "vit_base_patch32_224")
MODELS = ("leusam", "leugan", *BACKBONES, "hdlc")
Arrays = Mapping[str, Any]
Tensors = Mapping[str, Tensor]
Minimise = Callable[[Tensor, str], None]


def settings(model: str, config: Config) -> Any:
    """The model's section of the config."""
    sections = {"leusam": config.segment, "leugan": config.gan, "hdlc": config.hdlc}
    if model in sections:
        return sections[model]
    side = 224 if model == "vit_base_patch32_224" else config.backbone.image_size
    return config.backbone.model_copy(update={"name": model, "image_size": side})


def build(model: str, section: Any) -> Learner:
    """The model's learner with fresh weights, always the same ones."""
    if model == "leusam":
        return leusam.LeuSamLearner(section, SEED)
    if model == "leugan":
        return LeuGanLearner(section, SEED)
    if model == "hdlc":
        return HdlcLearner(section, FEATURES, SEED, WEIGHT)
    return BackboneLearner(section, SEED, WEIGHT)


def arrays(model: str, section: Any, count: int) -> Arrays:
    """Noise in the shape of what the model learns from: time does not ask what is on it."""
    rng = np.random.default_rng(SEED)
    label = {"label": np.arange(count) % 2}
    if model == "hdlc":
        return {"feature": rng.normal(size=(count, FEATURES)).astype(np.float32), **label}
    side = section.image_size
    image = {"image": rng.integers(0, 256, (count, side, side, 3), np.uint8)}
    if model == "leugan":
        return image
    return windows(section, image, count) if model == "leusam" else image | label


def windows(section: Any, image: Arrays, count: int) -> Arrays:
    """Discs to segment; where the encoder is frozen, embeddings in the images' place."""
    side = section.image_size
    rows, columns = np.mgrid[:side, :side] - side / 2
    disc = (rows**2 + columns**2 < (side / 4) ** 2).astype(np.uint8)
    box = np.array([side / 4, side / 4, 3 * side / 4, 3 * side / 4], np.float32)
    rest = {"mask": np.repeat(disc[None], count, 0), "box": np.repeat(box[None], count, 0)}
    if section.variant == "tiny":
        return image | rest
    return {"embedding": np.zeros((count, 256, side // 16, side // 16), np.float16), **rest}


# ---- cotray's side ---------------------------------------------------------------------------------------


def job(model: str, section: Any, count: int, epochs: int) -> Job:
    """The training job, without a validation split."""
    train = section.train.model_copy(update={"epochs": epochs, "max_steps": None})
    return Job(
        model, functools.partial(build, model, section), arrays(model, section, count), {}, train, SEED
    )


def ours(made: Job, device: torch.device) -> Fit:
    """The loop in this process; each :meth:`Fit.epoch` is a round."""
    return Fit(made, CachedFeed(made, made.train, made.valid), Place(device=device))


# ---- the bare side ---------------------------------------------------------------------------------------


class Bare:
    """A bare loop over the same networks."""

    def __init__(self, model: str, section: Any, made: Job, device: torch.device) -> None:
        self.model, self.section, self.device, self.config = model, section, device, made.config
        self.learner = made.build()
        self.nets = {name: placed(net, device, made.config) for name, net in self.learner.nets.items()}
        self.learner.nets, self.learner.device = self.nets, device  # it only lends its augmentation
        self.data = {key: torch.from_numpy(value) for key, value in made.train.items()}
        self.optimizers = self.learner.build_optimizers()
        self.owned = {
            name: [p for group in optimizer.param_groups for p in group["params"]]
            for name, optimizer in self.optimizers.items()
        }
        self.mixed = mixed_precision(made.config.precision, device, self.learner.cpu_bf16)
        steps = made.config.epochs * -(-len(next(iter(self.data.values()))) // made.config.batch_size)
        rate = functools.partial(cosine_lr, total=steps, warmup=int(made.config.warmup * steps))
        self.schedules = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in self.optimizers.values()
        ]

    def epoch(self, order: Tensor) -> None:
        """One pass, in the given order."""
        for net in self.nets.values():
            net.train()
        for start in range(0, len(order), self.config.batch_size):
            index = order[start : start + self.config.batch_size]
            batch = {key: values[index].to(self.device) for key, values in self.data.items()}
            self.step(batch)
            for schedule in self.schedules:
                schedule.step()

    def step(self, batch: Tensors) -> None:
        """One step of the model."""
        steps = {"leusam": self._leusam, "leugan": self._leugan, "hdlc": self._hdlc}
        steps.get(self.model, self._backbone)(batch)

    def _forward(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)

    def _minimise(self, loss: Tensor, name: str) -> None:
        self.optimizers[name].zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.owned[name], self.config.grad_clip)
        self.optimizers[name].step()

    def _backbone(self, batch: Tensors) -> None:
        assert isinstance(self.learner, BackboneLearner)
        weight = WEIGHT if self.config.classes == "weight" else (1.0, 1.0)
        with self._forward():
            x = self.learner.augment(batch["image"].permute(0, 3, 1, 2).float() / 127.5 - 1)
            logit = self.nets["backbone"](x)
            loss = weighted_bce(logit, batch["label"], weight, self.section.label_smoothing).mean()
        self._minimise(loss, "backbone")

    def _hdlc(self, batch: Tensors) -> None:
        weight = WEIGHT if self.config.classes == "weight" else (1.0, 1.0)
        with self._forward():
            loss = weighted_bce(self.nets["hdlc"](batch["feature"]), batch["label"], weight).mean()
        self._minimise(loss, "hdlc")

    def _leusam(self, batch: Tensors) -> None:
        mask, box, image, embedding = batch["mask"], batch["box"], None, None
        with self._forward():
            if "embedding" in batch:
                embedding = batch["embedding"].float()
            else:
                image, mask, box = leusam.turn(batch["image"], mask, box)
                image = leusam.restain(image)
            target = F.adaptive_avg_pool2d(mask.float()[:, None], self.section.image_size // 4)[:, 0]
            points = leusam.draw_points(target, box, self.section.points, self.section.image_size)
            box = leusam.jitter(box, self.section.jitter)
            logits, quality = self.nets["leusam"](image, box, points, embedding)
            loss, _ = leusam.mask_losses(logits, quality, target)
        self._minimise(loss, "leusam")

    def _leugan(self, batch: Tensors) -> None:
        real = batch["image"].permute(0, 3, 1, 2).float() / 127.5 - 1
        with self._forward():
            latent = torch.rand((len(real), self.section.latent), device=self.device) * 2 - 1
            fake = self.nets["generator"](latent)
            loss = F.softplus(-self._judge(real)).mean() + F.softplus(self._judge(fake.detach())).mean()
        self._minimise(loss, "discriminator")
        with self._forward():
            loss = F.softplus(-self._judge(fake)).mean()
        self._minimise(loss, "generator")

    def _judge(self, x: Tensor) -> Tensor:
        logit: Tensor = self.nets["discriminator"](diff_augment(x) if self.section.diffaugment else x)
        return logit.float()


def placed(net: nn.Module, device: torch.device, config: TrainConfig) -> nn.Module:
    """On the device, laid out and compiled as the config says."""
    if config.channels_last:
        net = convert_conv2d_weight_memory_format(net, torch.channels_last)
    net = net.to(device)
    if config.compile:
        net.compile()
    return net
