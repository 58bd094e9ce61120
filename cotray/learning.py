"""What a trainable model is to the training harness, and the pieces all of them share.

A :class:`Learner` is pure torch: it owns networks, optimizers and losses and knows neither
Ray nor files. ``cotray.stages.training`` drives any of them the same way: wrap for DDP, loop
over epochs and batches, validate, checkpoint, resume.

Shapes: B batch; everything else is the learner's own business.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from cotray.config import TrainConfig
from cotray.errors import WeightsError

Batch = Mapping[str, Tensor]
Weights = dict[str, dict[str, Tensor]]
"""State dicts by network."""
Wrap = Callable[[nn.Module], nn.Module]
Scalar = float | Tensor
"""A figure of a step; a tensor of no dimensions, where reading it at once would make a GPU wait."""
Scalars = Mapping[str, Scalar]


EVEN = (1.0, 1.0)
"""Class weights where the loss weighs none."""
CPU_BF16 = ("amx_bf16", "avx512_bf16")
"""What CPUs that multiply bf16 in hardware call it."""


def on_cpu(weights: Weights) -> Weights:
    """The same tensors, or copies of those that are elsewhere."""
    return {net: {key: value.cpu() for key, value in state.items()} for net, state in weights.items()}


def derive_seed(seed: int, *key: int) -> int:
    """A 63-bit seed for one place (``key``: epoch, rank, item ...) under one run seed."""
    state = np.random.SeedSequence(entropy=seed, spawn_key=key).generate_state(2, np.uint32)
    return int(state[0]) << 31 | int(state[1]) >> 1


def cosine_lr(step: int, total: int, warmup: int) -> float:
    """Factor on the base rate: linear warm-up, then half a cosine down to zero."""
    if step < warmup:
        return (step + 1) / max(1, warmup)
    progress = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def weighted_bce(
    logit_B: Tensor, label_B: Tensor, class_weight: tuple[float, float], smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy per item times the weight of its class (normal, malignant): (B,)."""
    truth = label_B.float()
    target = truth * (1 - smoothing) + smoothing / 2
    weight = torch.where(truth > 0.5, class_weight[1], class_weight[0])
    return F.binary_cross_entropy_with_logits(logit_B.float(), target, reduction="none") * weight


def weighted_scores(logit_B: Tensor, label_B: Tensor, class_weight: tuple[float, float]) -> dict[str, float]:
    """val_loss (weighted) and val_balanced_accuracy (mean of recall over the classes that are there)."""
    hit = ((logit_B > 0) == (label_B > 0)).float()
    recalls = [hit[label_B == c].mean() for c in (0, 1) if bool((label_B == c).any())]
    return {
        "val_loss": float(weighted_bce(logit_B, label_B, class_weight).mean()),
        "val_balanced_accuracy": float(torch.stack(recalls).mean()),
    }


class Learner(ABC):
    """Networks, optimizers and losses of one model.

    Life: construct (networks built, seeded) -> :meth:`prepare` (device, DDP, optimizers) ->
    ``train_step``/``predict_step`` per batch. The harness reseeds torch's global generator at
    the start of each epoch from (seed, epoch, rank), so that a resumed run repeats dropout and
    augmentation exactly; a learner keeps no random state of its own.
    """

    monitor: str = "val_loss"
    """Name of the validation metric that decides which checkpoint is best."""
    monitor_mode: str = "min"
    """``min`` or ``max``."""
    cpu_bf16: bool = True
    """Whether its steps are faster in bf16 on a CPU that multiplies it."""

    def __init__(self) -> None:
        self.nets: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.device = torch.device("cpu")
        self.total_steps = 1
        self.step = 0
        self.share, self.last_piece = 1.0, True
        self._sums: dict[str, list[Tensor | None]] = {}

    @abstractmethod
    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Optimizers over ``self.nets``, at their base learning rates."""

    @abstractmethod
    def train_step(self, batch: Batch) -> Scalars:
        """Forward, backward and step on one batch; returns scalars to log (a ``loss`` at least), detached."""

    @abstractmethod
    def predict_step(self, batch: Batch) -> dict[str, Tensor]:
        """Per-item outputs ``(B, ...)`` on the CPU, without gradients, for :meth:`score`."""

    @abstractmethod
    def score(self, outputs: Mapping[str, Tensor]) -> dict[str, float]:
        """Metrics over a whole split from the concatenated outputs of :meth:`predict_step`."""

    def preview(self) -> NDArray[np.uint8] | None:
        """A picture (H, W, 3) for people of what has been learned so far; None where there is none to show.

        Networks are in evaluation mode; torch's global generator is left alone.
        """
        return None

    def prepare(
        self, device: torch.device, wrap: Wrap, total_steps: int, config: TrainConfig | None = None
    ) -> None:
        """Move to ``device``, wrap each network (DDP), build optimizers, set the schedule's length.

        Of ``config`` memory layout and compilation count here.
        """
        self.device, self.total_steps = device, max(1, total_steps)
        self.nets = {name: wrap(_placed(net, device, config)) for name, net in self.nets.items()}
        self.optimizers = self.build_optimizers()
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["base_lr"] = group["lr"]

    def set_train(self, mode: bool) -> None:
        """Switch every network between training and evaluation."""
        for net in self.nets.values():
            net.train(mode)

    def schedule(self, warmup_fraction: float = 0.05) -> None:
        """Set every optimizer's rate for the current step; call once per train step."""
        factor = cosine_lr(self.step, self.total_steps, int(warmup_fraction * self.total_steps))
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
        self.step += 1

    @property
    def rate(self) -> float:
        """The first optimizer's learning rate."""
        return float(next(iter(self.optimizers.values())).param_groups[0]["lr"])

    def begin_piece(self, share: float, last: bool) -> None:
        """The next train step sees a piece of a batch, ``share`` of its items; ``last``: the step follows."""
        self.share, self.last_piece = share, last

    def minimise(self, name: str, loss: Tensor, grad_clip: float) -> None:
        """Backward and one step of the optimizer ``name``, its gradients' norm clipped.

        Of a batch in pieces, each one's gradients are kept; the step is made with their sum at the last.
        """
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, enabled=False):  # only the forward is in mixed precision
            (loss * self.share).backward()
        owned = [p for group in optimizer.param_groups for p in group["params"]]
        self._add_kept(name, owned)
        if self.last_piece:
            torch.nn.utils.clip_grad_norm_(owned, grad_clip)
            optimizer.step()
            torch.clear_autocast_cache()  # or a network used again in this context would be as it was

    def _add_kept(self, name: str, owned: Sequence[Tensor]) -> None:
        """Earlier pieces' gradients go into ``owned``'s own; they are kept apart because another network's
        loss (a GAN's) also leaves gradients there."""
        kept = self._sums.pop(name, None)
        for parameter, earlier in zip(owned, kept or (), strict=False):
            if earlier is not None:
                parameter.grad = earlier if parameter.grad is None else parameter.grad.add_(earlier)
        if not self.last_piece:
            self._sums[name] = [p.grad for p in owned]
            self.optimizers[name].zero_grad(set_to_none=True)

    def forget_pieces(self) -> None:
        """Drop the gradients of a batch whose pieces were not all seen."""
        self._sums.clear()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def saved(self, name: str) -> set[str]:
        """Names in the state of the network ``name`` that are kept: all, unless the rest can be had again."""
        return set(unwrap(self.nets[name]).state_dict())

    def weights(self) -> Weights:
        """What is :meth:`saved` of each network's state dict, unwrapped; copies, on the CPU."""
        return on_cpu(self.snapshot())

    def snapshot(self) -> Weights:
        """The same where the networks are: a GPU copies within itself, and need not be waited for."""
        found: Weights = {}
        for name, net in self.nets.items():
            saved = self.saved(name)
            state = unwrap(net).state_dict()
            found[name] = {k: v.detach().clone() for k, v in state.items() if k in saved}
        return found

    def load_weights(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Load what :meth:`weights` gave. Raises WeightsError where names or shapes differ."""
        for name, net in self.nets.items():
            try:
                missing, unexpected = unwrap(net).load_state_dict(weights[name], strict=False)
                wrong = [*unexpected, *(self.saved(name) & set(missing))]
                if wrong:
                    raise KeyError(f"missing or unexpected: {', '.join(sorted(wrong)[:3])}")
            except (KeyError, RuntimeError) as error:
                raise WeightsError(
                    f"These weights do not fit the network '{name}': {str(error)[:300]}",
                    cure="Use weights made with the same preset and model settings.",
                ) from error

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly: weights, optimizers, step; copies, on the CPU."""
        return {
            "weights": self.weights(),
            "optimizers": {k: _copied(o.state_dict()) for k, o in self.optimizers.items()},
            "step": self.step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`; call after :meth:`prepare`."""
        self.load_weights(state["weights"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.step = int(state["step"])


def _placed(net: nn.Module, device: torch.device, config: TrainConfig | None) -> nn.Module:
    """On ``device``; channels last and compiled if asked for. Names of weights stay as they are."""
    if config is not None and config.channels_last:
        net = convert_conv2d_weight_memory_format(net, torch.channels_last)
    net = net.to(device)
    if config is not None and config.compile:
        net.compile()
    return net


def mixed_precision(precision: str, device: torch.device, cpu_bf16: bool = True) -> bool:
    """Whether training steps on ``device`` run under bf16 autocast (`train.precision`); ``cpu_bf16``: whether
    the model gains from it on a CPU."""
    if precision != "auto":
        return precision == "bf16"
    return torch.cuda.is_bf16_supported() if device.type == "cuda" else cpu_bf16 and has_cpu_bf16()


@functools.cache
def has_cpu_bf16() -> bool:
    """Whether this CPU multiplies matrices of bf16 in hardware: without, bf16 is slower than fp32."""
    if not hasattr(torch.cpu, "get_capabilities"):  # an older torch; fp32 is right everywhere
        return False
    known = torch.cpu.get_capabilities()
    return any(known.get(name) for name in CPU_BF16) and torch.backends.mkldnn.is_available()


def unwrap(net: nn.Module) -> nn.Module:
    """The network inside a DDP wrapper, or itself."""
    inner = getattr(net, "module", None)
    return inner if isinstance(inner, nn.Module) else net


def _copied(tree: Any) -> Any:
    """The same tree of dicts and lists, its tensors copied to the CPU."""
    if isinstance(tree, Tensor):
        return tree.detach().cpu().clone()
    if isinstance(tree, dict):
        return {key: _copied(value) for key, value in tree.items()}
    return [_copied(value) for value in tree] if isinstance(tree, list) else tree
