from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cotray.config import SegmentConfig, load_config
from cotray.errors import WeightsError
from cotray.segmentation.leusam import PIXEL_MEAN, VIT, LeuSam, build_leusam, load_sam_checkpoint

TINY = SegmentConfig(image_size=64, embed_dim=16, depth=2, heads=2, prompt_dim=16)
SIDE = TINY.image_size


def tiny() -> LeuSam:
    torch.manual_seed(0)
    model = build_leusam(TINY)
    with torch.no_grad():  # fresh positions are zero: nothing would show that they are used
        for name, weight in model.named_parameters():
            if "pos" in name:
                weight.normal_(0, 0.1)
    return model.eval()


def windows(n: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    image = torch.randint(256, (n, SIDE, SIDE, 3), dtype=torch.uint8)
    low = torch.rand(n, 2) * SIDE / 2
    return image, torch.cat([low, low + 8 + torch.rand(n, 2) * 16], dim=1)


def on_meta(variant: str) -> LeuSam:
    """Published sizes without their memory."""
    with torch.device("meta"):
        return build_leusam(SegmentConfig.model_validate({"variant": variant, "image_size": 1024}))


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


# ---- the same forward as the package's -----------------------------------------------------------------


@torch.no_grad()
def test_many_windows_decode_as_the_package_decodes_one() -> None:
    model = tiny()
    from segment_anything.modeling import Sam  # building a LeuSAM has made its import safe

    package = Sam(model.image_encoder, model.prompt_encoder, model.mask_decoder).eval()
    image, box = windows(5)
    logits, quality = model(image, box)
    assert logits.shape == (5, SIDE // 4, SIDE // 4) and quality.shape == (5,)
    for row in range(5):
        record = {"image": image[row].permute(2, 0, 1).float(), "boxes": box[row : row + 1]}
        (one,) = package([record | {"original_size": (SIDE, SIDE)}], multimask_output=False)
        torch.testing.assert_close(logits[row], one["low_res_logits"][0, 0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(quality[row], one["iou_predictions"][0, 0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_box_decides_and_windows_do_not_mix() -> None:
    model = tiny()
    image, box = windows(3)
    both, _ = model(image, box)
    alone, _ = model(image[1:2], box[1:2])
    torch.testing.assert_close(both[1], alone[0], rtol=1e-4, atol=1e-4)
    moved, _ = model(image, box + 9)
    assert (both - moved).abs().max() > 1e-3


@torch.no_grad()
def test_an_image_of_the_mean_colour_reaches_the_encoder_as_zeros() -> None:
    model = tiny()
    seen: list[Tensor] = []
    model.image_encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.embed(torch.tensor(PIXEL_MEAN).expand(1, SIDE, SIDE, 3))
    assert seen[0].shape == (1, 3, SIDE, SIDE)
    assert seen[0].abs().max() < 1e-5


# ---- what is trained -----------------------------------------------------------------------------------


def test_every_trained_parameter_of_tiny_gets_a_gradient() -> None:
    model = tiny().train()
    logits, quality = model(*windows(2))
    (logits.square().mean() + quality.square().mean()).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == [], "DDP waits for ever for a gradient that does not come"
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    unused = ("point_embeddings.0", "point_embeddings.1", "not_a_point_embed", "mask_downscaling")
    assert frozen and all(name.removeprefix("prompt_encoder.").startswith(unused) for name in frozen)
    assert not any(p.grad is not None for p in model.parameters() if not p.requires_grad)


def test_frozen_encoders_leave_the_mask_decoder_to_train() -> None:
    parts = tiny()
    model = LeuSam(parts.image_encoder, parts.prompt_encoder, parts.mask_decoder, frozen=True)
    logits, quality = model(*windows(2))
    (logits.square().mean() + quality.square().mean()).backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {f"mask_decoder.{name}" for name, _ in model.mask_decoder.named_parameters()}


@pytest.mark.parametrize("variant", sorted(VIT))
def test_vit_variants_are_segment_anything_by_name_and_shape(variant: str) -> None:
    model = on_meta(variant)
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        published = sam_model_registry[variant]()
    assert shapes(model.state_dict()) == shapes(published.state_dict())
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"mask_decoder"}


def test_the_paper_preset_sees_1024_pixels_and_gives_masks_of_256() -> None:
    cfg = load_config("paper").segment
    assert (cfg.variant, cfg.image_size, cfg.window) == ("vit_b", 1024, "image")
    with torch.device("meta"), torch.no_grad():
        model = build_leusam(cfg)
        embedding = model.embed(torch.empty(1, 1024, 1024, 3, dtype=torch.uint8))
        logits, quality = model.decode(embedding.expand(3, -1, -1, -1), torch.empty(3, 4))
    assert embedding.shape == (1, 256, 64, 64)
    assert logits.shape == (3, 256, 256) and quality.shape == (3,)


# ---- a published checkpoint ----------------------------------------------------------------------------


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
