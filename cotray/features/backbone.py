"""The backbone (GMod feeding SMod) and its parts alone, each with a linear head.

Shapes: B images of (3, S, S), D features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cotray.config import BackboneConfig
from cotray.features.gmod import GMod
from cotray.features.smod import SMod

SHOWN_BLOCK = 2
"""SMod block whose maps Grad-CAM weighs: late enough to mean something, early enough to show where."""


class Backbone(nn.Module):
    """Features and, for training, one logit of malignant."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.head = nn.Linear(feature_dim, 1)

    @abstractmethod
    def features(self, x_B3SS: Tensor) -> Tensor:
        """(B, D): what the later stages use."""

    @property
    def maps(self) -> nn.Module | None:
        """The layer whose maps (B, K, h, w) tell where the backbone looks; None where there are no maps."""
        return None

    def forward(self, x_B3SS: Tensor) -> Tensor:
        """Logits of malignant: (B,)."""
        out: Tensor = self.head(self.features(x_B3SS))[:, 0]
        return out


class CoTCoNet(Backbone):
    """GMod, then SMod on its map (Fig. 2 of the paper), with the image beside it if ``cfg.skip``."""

    def __init__(self, cfg: BackboneConfig) -> None:
        super().__init__(smod_width(cfg))
        self.gmod = GMod(cfg)
        if cfg.skip:
            nn.init.constant_(self.gmod.norm.weight, cfg.gmod_scale)
        self.smod = SMod(cfg.smod, channels=6 if cfg.skip else 3)
        self.skip = cfg.skip

    @property
    def maps(self) -> nn.Module:
        """A middle block of SMod."""
        return self.smod.blocks[SHOWN_BLOCK]

    def features(self, x_B3SS: Tensor) -> Tensor:
        """Flattened SMod maps: D = 256 * (S/32)^2 at the paper's filters."""
        seen = self.gmod(x_B3SS)
        out: Tensor = self.smod(torch.cat([x_B3SS, seen], dim=1) if self.skip else seen)
        return out


class GModOnly(Backbone):
    """The transformer alone; its class token is the feature vector (ablation)."""

    def __init__(self, cfg: BackboneConfig) -> None:
        super().__init__(cfg.patch * cfg.patch * 3)
        self.gmod = GMod(cfg)

    def features(self, x_B3SS: Tensor) -> Tensor:
        """The class token: D = p*p*3."""
        return self.gmod.tokens(x_B3SS)[:, 0]


class SModOnly(Backbone):
    """The convolutions alone, on the image (ablation)."""

    def __init__(self, cfg: BackboneConfig) -> None:
        super().__init__(smod_width(cfg))
        self.smod = SMod(cfg.smod)

    @property
    def maps(self) -> nn.Module:
        """As of the whole backbone."""
        return self.smod.blocks[SHOWN_BLOCK]

    def features(self, x_B3SS: Tensor) -> Tensor:
        """Flattened SMod maps."""
        out: Tensor = self.smod(x_B3SS)
        return out


GMOD_SETTINGS = ("patch", "layers", "heads", "mlp_ratio", "gmod_dropout", "skip", "gmod_scale")


def without_effect(cfg: BackboneConfig, usual: BackboneConfig) -> list[str]:
    """GMod's settings that differ from ``usual``, where the backbone has no GMod."""
    if cfg.name in ("cotconet", "gmod"):
        return []
    return [name for name in GMOD_SETTINGS if getattr(cfg, name) != getattr(usual, name)]


def smod_width(cfg: BackboneConfig) -> int:
    """Features that SMod gives for the configured side."""
    return int(cfg.smod.filters[-1]) * (cfg.image_size // 32) ** 2


BACKBONES: dict[str, Callable[[BackboneConfig], Backbone]] = {
    "cotconet": CoTCoNet,
    "gmod": GModOnly,
    "smod": SModOnly,
}
