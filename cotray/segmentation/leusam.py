"""LeuSAM: Segment Anything with one box prompt per cell (paper, section 3.2; Kirillov et al. 2023).

The image encoder, prompt encoder and mask decoder are the ``segment_anything`` package's own. `tiny` is
the same three at a small width, trained from scratch; `vit_*` have the published sizes and start from a
SAM checkpoint, with everything but the mask decoder frozen.

Shapes: B windows, S side of a window, C channels of an embedding, T = S/16 side of an embedding,
M = S/4 side of a low-resolution mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cotray.config import SegmentConfig
from cotray.errors import WeightsError
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


class LeuSam(nn.Module):
    """Windows and one box each -> one mask each, with a prediction of its quality."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self, image_encoder: nn.Module, prompt_encoder: nn.Module, mask_decoder: nn.Module, *, frozen: bool
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.frozen = frozen
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)
        self._freeze()

    def _freeze(self) -> None:
        """Parts that are not trained: SAM's encoders when given, and prompts that LeuSAM never uses."""
        prompt: Any = self.prompt_encoder
        unused = [*prompt.point_embeddings[:2], prompt.not_a_point_embed, prompt.mask_downscaling]
        for part in [self.image_encoder, prompt] if self.frozen else unused:
            part.requires_grad_(False)

    def embed(self, image_BSS3: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 or float in 0..255 -> (B, C, T, T)."""
        x_B3SS = (image_BSS3.permute(0, 3, 1, 2).float() - self.pixel_mean) / self.pixel_std
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            embedding: Tensor = self.image_encoder(x_B3SS)
        return embedding

    def decode(self, embedding_BCTT: Tensor, box_B4: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and boxes (x0, y0, x1, y1 in window pixels) -> mask logits (B, M, M), IoU (B,).

        The package's decoder takes one image with many prompts; this is the same forward with one
        prompt for each of many images.
        """
        sparse_BN, dense_BCTT = self.prompt_encoder(points=None, boxes=box_B4, masks=None)
        decoder: Any = self.mask_decoder
        tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([tokens.expand(len(box_B4), -1, -1), sparse_BN], dim=1)
        prompt: Any = self.prompt_encoder
        place = prompt.get_dense_pe().expand(len(box_B4), -1, -1, -1)
        hidden, source = decoder.transformer(embedding_BCTT + dense_BCTT, place, tokens)
        source = source.transpose(1, 2).view_as(embedding_BCTT)
        up_BKMM = decoder.output_upscaling(source)
        heads = zip(decoder.output_hypernetworks_mlps, hidden[:, 1:].unbind(1), strict=False)
        # All mask tokens are computed so that every parameter is in the graph (DDP wants that); the
        # first is SAM's single-mask token, the one meant for an unambiguous prompt such as a box.
        weight = torch.stack([mlp(token) for mlp, token in heads], dim=1)[:, 0]
        logits_BMM = torch.einsum("bk,bkhw->bhw", weight, up_BKMM)
        return logits_BMM, decoder.iou_prediction_head(hidden[:, 0])[:, 0]

    def forward(self, image_BSS3: Tensor, box_B4: Tensor) -> tuple[Tensor, Tensor]:
        """Both at once: mask logits (B, M, M) and predicted IoU (B,)."""
        return self.decode(self.embed(image_BSS3), box_B4)


def build_leusam(cfg: SegmentConfig) -> LeuSam:
    """LeuSAM as configured, with fresh weights."""
    ensure_torchvision()
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer

    tiny = cfg.variant == "tiny"
    width = cfg.prompt_dim if tiny else 256
    side = cfg.image_size // PATCH
    size = _tiny_encoder(cfg) if tiny else VIT[cfg.variant] | {"window_size": 14}
    encoder = ImageEncoderViT(
        img_size=cfg.image_size,
        patch_size=PATCH,
        mlp_ratio=4,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        qkv_bias=True,
        use_rel_pos=True,
        out_chans=width,
        **size,
    )
    prompt = PromptEncoder(
        embed_dim=width,
        image_embedding_size=(side, side),
        input_image_size=(cfg.image_size, cfg.image_size),
        mask_in_chans=16,
    )
    transformer = TwoWayTransformer(
        depth=2, embedding_dim=width, mlp_dim=256 if tiny else 2048, num_heads=4 if tiny else 8
    )
    decoder = MaskDecoder(num_multimask_outputs=3, transformer=transformer, transformer_dim=width)
    return LeuSam(encoder, prompt, decoder, frozen=not tiny)


def _tiny_encoder(cfg: SegmentConfig) -> dict[str, Any]:
    """Every block attends over the whole window: at this size that costs less than windowing."""
    return {
        "embed_dim": cfg.embed_dim,
        "depth": cfg.depth,
        "num_heads": cfg.heads,
        "window_size": 0,
        "global_attn_indexes": (),
    }


def load_sam_checkpoint(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put a SAM checkpoint's tensors into a LeuSAM, resizing its positions to the window's side.

    Raises WeightsError where a tensor is missing or does not fit.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    if missing:
        raise WeightsError(
            f"The SAM checkpoint lacks {len(missing)} tensors, e.g. '{missing[0]}'.",
            cure="Use the checkpoint of the configured segment.variant.",
        )
    fitted = {name: _fit(name, state[name], own[name]) for name in own}
    model.load_state_dict(fitted)


def _fit(name: str, given: Tensor, own: Tensor) -> Tensor:
    """``given`` in the shape of ``own``; positions are interpolated, anything else must match."""
    if given.shape == own.shape:
        return given
    if name.endswith("pos_embed") and given.ndim == 4 and given.shape[-1] == own.shape[-1]:
        grid = F.interpolate(given.permute(0, 3, 1, 2), own.shape[1:3], mode="bicubic", align_corners=False)
        return grid.permute(0, 2, 3, 1)
    if ".rel_pos_" in name and given.shape[-1] == own.shape[-1]:
        return F.interpolate(given.T[None], len(own), mode="linear")[0].T
    raise WeightsError(
        f"The checkpoint's '{name}' is {tuple(given.shape)}, and {tuple(own.shape)} is needed.",
        cure="Use the checkpoint of the configured segment.variant.",
    )
