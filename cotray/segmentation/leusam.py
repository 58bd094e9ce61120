"""LeuSAM: Segment Anything with one box prompt per cell (paper, section 3.2; Kirillov et al. 2023).

The image encoder, prompt encoder and mask decoder are the ``segment_anything`` package's own. `tiny` is
the same three at a small width, a fine path beside them (:class:`Detail`) and prompts drawn as a coarse mask
(:func:`draw_prompts`), trained from scratch; `vit_*` have the published sizes and start from a SAM
checkpoint, with everything but the mask decoder frozen.

Shapes: B windows, S side of a window, C channels of an embedding, T = S/16 side of an embedding, M = S/4
side of a low-resolution mask, U = C/8 channels of a mask's features, K candidate masks, P points.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cotray.config import SegmentConfig
from cotray.segmentation._torchvision import ensure_torchvision

PATCH = 16
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
VIT: dict[str, dict[str, Any]] = {
    "vit_b": {"embed_dim": 768, "depth": 12, "num_heads": 12, "global_attn_indexes": (2, 5, 8, 11)},
    "vit_l": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "global_attn_indexes": (5, 11, 17, 23)},
    "vit_h": {"embed_dim": 1280, "depth": 32, "num_heads": 16, "global_attn_indexes": (7, 15, 23, 31)},
}
"""Published sizes (segment_anything.build_sam)."""
Points = tuple[Tensor, Tensor]
"""Places (B, P, 2), x and y in window pixels, and labels (B, P): 1 on the cell, 0 beside it (SAM's own)."""


class Embedded(NamedTuple):
    """Windows as the decoder sees them."""

    embedding_BCTT: Tensor
    detail_BUMM: Tensor | None = None

    def expand(self, size: int) -> Embedded:
        """One window's embedding for ``size`` prompts, without a copy."""
        detail = None if self.detail_BUMM is None else self.detail_BUMM.expand(size, -1, -1, -1)
        return Embedded(self.embedding_BCTT.expand(size, -1, -1, -1), detail)


class Detail(nn.Module):
    """A fine path past the encoder's patches: colours at M x M, for masks learned from few images.

    SAM learned its edges from a billion masks; `tiny` has hundreds. Early features added to the mask's, as
    HQ-SAM does (Ke et al. 2023). The last layer starts at zero: a fresh model is the package's own.
    """

    def __init__(self, channels: int, mask_channels: int) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(3, channels, 7, stride=4, padding=3),
            nn.GroupNorm(4, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(4, channels),
            nn.GELU(),
        )
        last = nn.Conv2d(channels, mask_channels, 3, padding=1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.fuse = nn.Sequential(
            nn.Conv2d(mask_channels + channels, channels, 3, padding=1), nn.GELU(), last
        )

    def forward(self, up_BUMM: Tensor, detail: Tensor) -> Tensor:
        """The mask's features, refined by the fine ones."""
        refined: Tensor = up_BUMM + self.fuse(torch.cat([up_BUMM, detail], dim=1))
        return refined


class LeuSam(nn.Module):
    """Windows and one box each (and points, if any) -> one mask each, with a prediction of its quality."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        image_encoder: nn.Module,
        prompt_encoder: nn.Module,
        mask_decoder: nn.Module,
        detail: Detail | None = None,
        *,
        frozen: bool,
        best_of_three: bool = False,
        drawn: bool = False,
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.detail = detail
        self.frozen, self.best_of_three, self.drawn = frozen, best_of_three, drawn
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)
        self._freeze()

    def _freeze(self) -> None:
        """Parts that are not trained: SAM's encoders when given, and prompts that LeuSAM never uses."""
        prompt: Any = self.prompt_encoder
        unused = [prompt.not_a_point_embed, prompt.no_mask_embed if self.drawn else prompt.mask_downscaling]
        for part in [self.image_encoder, prompt] if self.frozen else unused:
            part.requires_grad_(False)

    def embed(self, image_BSS3: Tensor) -> Embedded:
        """(B, S, S, 3) uint8 or float in 0..255 -> embeddings (B, C, T, T), fine features (B, U, M, M)."""
        x_B3SS = (image_BSS3.permute(0, 3, 1, 2).float() - self.pixel_mean) / self.pixel_std
        learns = any(p.requires_grad for p in self.image_encoder.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
            embedding = self.image_encoder(x_B3SS)
        return Embedded(embedding, None if self.detail is None else self.detail.look(x_B3SS))

    def candidates(
        self, seen: Embedded, box_B4: Tensor, points: Points | None = None
    ) -> tuple[Tensor, Tensor]:
        """Boxes (x0, y0, x1, y1 in window pixels) -> mask logits (B, K, M, M), predicted IoU (B, K).

        K is 1, SAM's single mask, or the 3 of `best_of_three`. The package's decoder takes one image with
        many prompts; this is the same forward with one prompt for each of many images.
        """
        sparse_BNC, dense_BCTT, place_BCTT = self._prompts(box_B4, points)
        decoder: Any = self.mask_decoder
        tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([tokens.expand(len(box_B4), -1, -1), sparse_BNC], dim=1)
        hidden, source = decoder.transformer(seen.embedding_BCTT + dense_BCTT, place_BCTT, tokens)
        up_BUMM = decoder.output_upscaling(source.transpose(1, 2).view_as(seen.embedding_BCTT))
        if self.detail is not None and seen.detail_BUMM is not None:
            up_BUMM = self.detail(up_BUMM, seen.detail_BUMM)
        heads = zip(decoder.output_hypernetworks_mlps, hidden[:, 1:].unbind(1), strict=False)
        # All mask tokens are computed so that every parameter is in the graph (DDP wants that). The first
        # is SAM's single-mask token, the one meant for an unambiguous prompt such as a box.
        wanted = slice(1, None) if self.best_of_three else slice(0, 1)
        weight_BKU = torch.stack([mlp(token) for mlp, token in heads], dim=1)[:, wanted]
        logits_BKMM = torch.einsum("bku,buhw->bkhw", weight_BKU, up_BUMM)
        return logits_BKMM.float(), decoder.iou_prediction_head(hidden[:, 0])[:, wanted].float()

    def _prompts(self, box_B4: Tensor, points: Points | None) -> tuple[Tensor, Tensor, Tensor]:
        """Prompt tokens (B, N, C), SAM's "no mask" (B, C, T, T) and the places' code (B, C, T, T)."""
        prompt: Any = self.prompt_encoder
        # Places are coded by sines of large angles: bf16 would scatter them.
        with torch.autocast("cuda" if box_B4.is_cuda else "cpu", enabled=False):
            drawn = draw_prompts(box_B4, points, prompt.mask_input_size[0]) if self.drawn else None
            sparse, dense = prompt(points=points, boxes=box_B4, masks=drawn)
            place = prompt.get_dense_pe().expand(len(box_B4), -1, -1, -1)
            if points is None and self.training:  # their parameters must be in the graph here too
                sparse = sparse + 0 * sum(kind.weight.sum() for kind in prompt.point_embeddings[:2])
        return sparse, dense, place

    def decode(self, seen: Embedded, box_B4: Tensor, points: Points | None = None) -> tuple[Tensor, Tensor]:
        """The mask of each box: logits (B, M, M), predicted IoU (B,)."""
        return best(*self.candidates(seen, box_B4, points))

    def forward(
        self,
        image_BSS3: Tensor | None,
        box_B4: Tensor,
        points: Points | None = None,
        embedding_BCTT: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """All at once, from windows or their cached embeddings: candidates (B, K, M, M), IoU (B, K)."""
        if image_BSS3 is not None:
            return self.candidates(self.embed(image_BSS3), box_B4, points)
        assert embedding_BCTT is not None
        return self.candidates(Embedded(embedding_BCTT), box_B4, points)


def draw_prompts(box_B4: Tensor, points: Points | None, side: int) -> Tensor:
    """Prompts as a coarse mask (B, 1, M, M) for SAM's third kind of prompt: 1 in the box, -1 beside it, and a
    blob of 4 or -4 at each point. Boxes and points are in pixels of a window of 4 M.
    """
    middle = (torch.arange(side, device=box_B4.device) + 0.5) * 4
    x0, y0, x1, y1 = (box_B4[:, i, None] for i in range(4))
    wide, high = (middle > x0) & (middle < x1), (middle > y0) & (middle < y1)
    drawn = (high[:, :, None] & wide[:, None]).float() * 2 - 1
    if points is not None:
        place_BP2, label_BP = points
        wide_BPM, high_BPM = (
            (-((middle - place_BP2[..., axis, None] - 0.5) ** 2) / (2 * 8.0**2)).exp() for axis in (0, 1)
        )
        blob = torch.einsum("bph,bpw->bphw", high_BPM, wide_BPM)
        drawn = drawn + (blob * (8.0 * label_BP - 4)[..., None, None]).sum(dim=1)
    return drawn[:, None]


def best(logits_BKMM: Tensor, iou_BK: Tensor) -> tuple[Tensor, Tensor]:
    """The candidate of the highest predicted IoU: logits (B, M, M), IoU (B,)."""
    row, which = torch.arange(len(iou_BK), device=iou_BK.device), iou_BK.argmax(dim=1)
    return logits_BKMM[row, which], iou_BK[row, which]


# ---- building ------------------------------------------------------------------------------------------


def build_leusam(cfg: SegmentConfig) -> LeuSam:
    """LeuSAM as configured, with fresh weights."""
    tiny = cfg.variant == "tiny"
    if not tiny:
        return build_sam(cfg, VIT[cfg.variant] | {"window_size": 14})
    # Every block attends over the whole window: at this size that costs less than windowing.
    size = {"embed_dim": cfg.embed_dim, "depth": cfg.depth, "num_heads": cfg.heads, "window_size": 0}
    return build_sam(cfg, size, width=cfg.prompt_dim, heads=4, mlp=256, detail=cfg.detail)


def build_sam(
    cfg: SegmentConfig,
    encoder: dict[str, Any],
    *,
    width: int = 256,
    heads: int = 8,
    mlp: int = 2048,
    detail: int | None = None,
) -> LeuSam:
    """The package's three parts for windows of ``cfg.image_size``.

    ``encoder`` are sizes of the image encoder; width, heads and mlp those of the mask decoder (SAM's by
    default). ``detail`` is the fine path's channels; None makes a SAM to fine-tune, its encoders frozen.
    """
    ensure_torchvision()
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer

    image_encoder = ImageEncoderViT(
        img_size=cfg.image_size,
        patch_size=PATCH,
        mlp_ratio=4,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        qkv_bias=True,
        use_rel_pos=True,
        out_chans=width,
        **encoder,
    )
    side = cfg.image_size // PATCH
    prompt = PromptEncoder(
        embed_dim=width,
        image_embedding_size=(side, side),
        input_image_size=(cfg.image_size, cfg.image_size),
        mask_in_chans=16,
    )
    transformer = TwoWayTransformer(depth=2, embedding_dim=width, mlp_dim=mlp, num_heads=heads)
    decoder = MaskDecoder(num_multimask_outputs=3, transformer=transformer, transformer_dim=width)
    fine = Detail(detail, width // 8) if detail else None
    three = cfg.masks == "best_of_three"
    frozen = detail is None
    drawn = cfg.drawn_prompts and not frozen
    return LeuSam(image_encoder, prompt, decoder, fine, frozen=frozen, best_of_three=three, drawn=drawn)
