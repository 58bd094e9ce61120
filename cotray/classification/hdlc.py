"""HDLC: the hierarchical deep learning classifier (paper, section 3.6). N cells, S selected features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cotray.config import HdlcConfig


class HDLC(nn.Module):
    """Conv1d over the feature vector, a linear map back to one vector, six dense layers, one logit.

    The sigmoid is applied outside (training and calibration want logits).
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, cfg: HdlcConfig, in_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(in_features))
        self.register_buffer("scale", torch.ones(in_features))
        self.conv = nn.Conv1d(1, cfg.filters, kernel_size=3, padding=1)
        self.merge = nn.Linear(cfg.filters, 1)
        layers: list[nn.Module] = []
        width = in_features
        for hidden in cfg.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(cfg.dropout)]
            width = hidden
        self.dense = nn.Sequential(*layers, nn.Linear(width, 1))

    def set_scale(self, mean_S: Tensor, std_S: Tensor) -> None:
        """Standardise inputs by these from now on (part of the weights); a constant feature becomes 0."""
        self.mean.copy_(mean_S)
        self.scale.copy_(torch.where(std_S > 1e-6, std_S, torch.full_like(std_S, torch.inf)).reciprocal())

    def forward(self, feat_NS: Tensor) -> Tensor:
        """(N, S) float32 -> logits of malignant (N,)."""
        x_NS = (feat_NS - self.mean) * self.scale
        # The convolution as a product of windows: it leaves the filters last, where `merge` reads them.
        window_NS3 = F.pad(x_NS, (1, 1)).unfold(1, 3, 1)
        maps_NSF = torch.relu(F.linear(window_NS3, self.conv.weight[:, 0], self.conv.bias))
        vector_NS = self.merge(maps_NSF)[..., 0]
        out: Tensor = self.dense(vector_NS)[:, 0]
        return out
