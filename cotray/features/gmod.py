"""GMod: a pre-norm vision transformer whose tokens fold back into an image (paper, Eq. 3-8).

Shapes: B images, C channels, H W pixels, p patch side, T = HW/p^2 tokens, D = p*p*C token width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cotray.config import BackboneConfig


def split_patches(x_BCHW: Tensor, patch: int) -> Tensor:
    """Patches as flat tokens: (B, T, D), row by row; each token is a patch's (C, p, p) flattened."""
    batch, channels, height, width = x_BCHW.shape
    # One copy for the whole batch, where F.unfold goes through a GPU image by image.
    grid = x_BCHW.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * patch * patch)


def fold_tokens(x_BTD: Tensor, patch: int, size: tuple[int, int]) -> Tensor:
    """Inverse of :func:`split_patches`: because D = p*p*C, tokens are an image again: (B, C, H, W)."""
    rows, columns = size[0] // patch, size[1] // patch
    grid = x_BTD.reshape(len(x_BTD), rows, columns, -1, patch, patch)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(len(x_BTD), -1, *size)


def attention(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Eq. 7 for (B, heads, T, D / heads) each, by torch's fused kernels. On a CPU always in fp32: in bf16 its
    backward is slower there, and made steps under Ray Train take nearly twice as long."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), dropout_p=dropout)


class Block(nn.Module):
    """One encoder layer: attention (Eq. 4), then MLP (Eq. 5), each on a normed input with a residual."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        hidden = int(width * mlp_ratio)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
            nn.Dropout(dropout),
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x_BTD = x_BTD + self.attend(self.norm1(x_BTD))  # Eq. 4
        out: Tensor = x_BTD + self.mlp(self.norm2(x_BTD))  # Eq. 5
        return out

    def attend(self, x_BTD: Tensor) -> Tensor:
        """Multi-head self-attention (Eq. 7-8)."""
        batch, tokens, width = x_BTD.shape
        q, k, v = self.qkv(x_BTD).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = attention(q, k, v, dropout)  # Eq. 7
        out: Tensor = self.project(mixed.transpose(1, 2).reshape(batch, tokens, width))  # Eq. 8
        return out


class GMod(nn.Module):
    """Image -> image of the same size in which every patch has seen every other."""

    def __init__(self, cfg: BackboneConfig, channels: int = 3) -> None:
        super().__init__()
        self.patch = cfg.patch
        width = cfg.patch * cfg.patch * channels
        tokens = (cfg.image_size // cfg.patch) ** 2
        self.embed = nn.Linear(width, width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, tokens + 1, width) * 0.02)
        self.drop = nn.Dropout(cfg.gmod_dropout)
        blocks = [Block(width, cfg.heads, cfg.mlp_ratio, cfg.gmod_dropout) for _ in range(cfg.layers)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)

    def tokens(self, x_BCHW: Tensor) -> Tensor:
        """(B, T + 1, D): the class token first (Eq. 3, then all layers, then Eq. 6 for every token)."""
        x_BTD = self.embed(split_patches(x_BCHW, self.patch))
        x_BTD = torch.cat([self.class_token.expand(len(x_BTD), -1, -1), x_BTD], dim=1) + self.position
        out: Tensor = self.norm(self.blocks(self.drop(x_BTD)))
        return out

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); the class token is dropped before folding."""
        return fold_tokens(self.tokens(x_BCHW)[:, 1:], self.patch, (x_BCHW.shape[2], x_BCHW.shape[3]))
