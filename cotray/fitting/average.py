"""A moving average of a learner's weights (`train.ema`), validated and kept instead of the last ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cotray.learning import Learner, unwrap


class WeightAverage:
    """The average of everything that a learner saves and that is a real number, batch-norm statistics too."""

    def __init__(self, learner: Learner, decay: float) -> None:
        self.learner, self.decay = learner, decay
        self.live = self._live()  # views: an optimizer's step and loaded weights show in them
        self.mean = {key: tensor.detach().clone() for key, tensor in self.live.items()}

    def _live(self) -> dict[str, Tensor]:
        found = {}
        for name, net in self.learner.nets.items():
            saved = self.learner.saved(name)
            for key, tensor in unwrap(net).state_dict().items():
                if key in saved and tensor.is_floating_point():
                    found[f"{name}/{key}"] = tensor
        return found

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the present weights; ``step`` steps were made. Early on the average forgets faster."""
        move = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))
        move(list(self.mean.values()), list(self.live.values()), step)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While entered the learner's networks hold the average."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for key, mean in self.mean.items():
            kept = self.live[key].clone()
            self.live[key].copy_(mean)
            mean.copy_(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """The average, on the CPU."""
        return {key: tensor.detach().cpu().clone() for key, tensor in self.mean.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state_dict`."""
        for key, tensor in self.mean.items():
            tensor.copy_(state[key])
