from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cotray.config import SegmentConfig
from cotray.errors import WeightsError
from cotray.segmentation.checkpoint import load_sam_checkpoint
from cotray.segmentation.leusam import LeuSam, build_leusam

SIDE = 64
TINY = SegmentConfig(image_size=SIDE, embed_dim=16, depth=2, heads=2, prompt_dim=16)


def tiny() -> LeuSam:
    torch.manual_seed(0)
    return build_leusam(TINY).eval()


def windows(n: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    image = torch.randint(256, (n, SIDE, SIDE, 3), dtype=torch.uint8)
    low = torch.rand(n, 2) * SIDE / 2
    return image, torch.cat([low, low + 8 + torch.rand(n, 2) * 16], dim=1)


def larger() -> dict[str, Tensor]:
    """The tiny architecture at twice the side: what a checkpoint for larger windows holds."""
    torch.manual_seed(2)
    return build_leusam(TINY.model_copy(update={"image_size": 2 * SIDE})).state_dict()


def test_a_checkpoint_of_the_same_side_is_taken_as_it_is() -> None:
    state, model = tiny().state_dict(), build_leusam(TINY)
    load_sam_checkpoint(model, state | {"pixel_mean": torch.zeros(3, 1, 1)})
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@torch.no_grad()
def test_positions_of_a_larger_checkpoint_are_interpolated() -> None:
    state, model = larger(), build_leusam(TINY)
    ramp = torch.linspace(0, 1, 8)
    state["image_encoder.pos_embed"] = ramp.view(1, 1, 8, 1).expand(1, 8, 8, 16).clone()
    distance = torch.linspace(-1, 1, 15)
    state["image_encoder.blocks.0.attn.rel_pos_h"] = distance.view(15, 1).expand(15, 8).clone()
    load_sam_checkpoint(model, state)
    own = model.state_dict()
    place, relative = own["image_encoder.pos_embed"], own["image_encoder.blocks.0.attn.rel_pos_h"]
    assert place.shape == (1, 4, 4, 16) and relative.shape == (7, 8)
    assert torch.allclose(place[0, :, :, 0], place[0, :1, :, 0].expand(4, 4), atol=1e-6), (
        "columns stay columns"
    )
    assert (place[0, 0, :, 0].diff() > 0.1).all(), "and stay in order"
    torch.testing.assert_close(relative[:, 0], -relative[:, 0].flip(0), rtol=0, atol=1e-5)
    assert relative[3, 0].abs() < 1e-6, "the middle is distance 0"
    name = "mask_decoder.iou_token.weight"
    assert torch.equal(own[name], state[name])
    logits, _ = model(*windows(1))
    assert torch.isfinite(logits).all()


def test_a_checkpoint_without_a_tensor_is_refused() -> None:
    state = tiny().state_dict()
    del state["mask_decoder.iou_token.weight"]
    with pytest.raises(WeightsError, match=r"lacks 1 tensors.*iou_token.*segment\.variant"):
        load_sam_checkpoint(build_leusam(TINY), state)


def test_a_checkpoint_of_another_width_is_refused_and_changes_nothing() -> None:
    wide = build_leusam(TINY.model_copy(update={"embed_dim": 32})).state_dict()
    model = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=r"is \(.*32.*\), and \(.*16.*\) is needed"):
        load_sam_checkpoint(model, wide)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
