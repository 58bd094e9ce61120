from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cotray.config import SegmentConfig, load_config
from cotray.segmentation.leusam import PIXEL_MEAN, VIT, LeuSam, best, build_leusam, draw_prompts

TINY = SegmentConfig(image_size=64, embed_dim=16, depth=2, heads=2, prompt_dim=16)
SIDE = TINY.image_size


def tiny(**settings: object) -> LeuSam:
    torch.manual_seed(0)
    model = build_leusam(TINY.model_copy(update=settings))
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


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("with_points", [False, True])
@pytest.mark.parametrize("masks", ["single", "best_of_three"])
@torch.no_grad()
def test_many_windows_decode_as_the_package_decodes_one(masks: str, with_points: bool, drawn: bool) -> None:
    model = tiny(masks=masks, drawn_prompts=drawn)  # the fine path of a fresh model adds nothing
    from segment_anything.modeling import Sam  # building a LeuSAM has made its import safe

    package = Sam(model.image_encoder, model.prompt_encoder, model.mask_decoder).eval()
    (image, box), three = windows(5), masks == "best_of_three"
    place, label = torch.rand(5, 2, 2) * SIDE, torch.tensor([[1, 0]] * 3 + [[0, 1]] * 2)
    logits, quality = model(image, box, (place, label) if with_points else None)
    count = 3 if three else 1
    assert logits.shape == (5, count, SIDE // 4, SIDE // 4) and quality.shape == (5, count)
    for row in range(5):
        record = {"image": image[row].permute(2, 0, 1).float(), "boxes": box[row : row + 1]}
        if with_points:
            record |= {"point_coords": place[row : row + 1], "point_labels": label[row : row + 1]}
        if drawn:
            drawing = draw_prompts(box, (place, label) if with_points else None, SIDE // 4)
            record |= {"mask_inputs": drawing[row : row + 1]}
        (one,) = package([record | {"original_size": (SIDE, SIDE)}], multimask_output=three)
        torch.testing.assert_close(logits[row], one["low_res_logits"][0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(quality[row], one["iou_predictions"][0], rtol=1e-4, atol=1e-4)


def test_prompts_are_drawn_where_they_are() -> None:
    box = torch.tensor([[8.0, 16, 24, 32], [0.0, 0, 64, 64]])
    plain = draw_prompts(box, None, 16)[:, 0]
    assert plain.shape == (2, 16, 16)
    assert (plain[0, 4:8, 2:6] == 1).all() and int((plain[0] > 0).sum()) == 16
    assert (plain[1] == 1).all()
    points = torch.tensor([[[49.5, 9.5]], [[13.5, 41.5]]]), torch.tensor([[1], [0]])
    blobs = draw_prompts(box, points, 16)[:, 0] - plain
    assert blobs[0, 2, 12] == pytest.approx(4) and blobs[0].max() == blobs[0, 2, 12]
    assert blobs[1, 10, 3] == pytest.approx(-4) and blobs[1].min() == blobs[1, 10, 3]
    assert blobs[0, 12:, :4].abs().max() < 0.01, "far from the point nothing is drawn"


def test_the_candidate_of_highest_predicted_iou_is_taken() -> None:
    logits = torch.arange(6.0).view(2, 3, 1, 1).expand(2, 3, 4, 4)
    mask, quality = best(logits, torch.tensor([[0.1, 0.9, 0.3], [0.5, 0.2, 0.6]]))
    assert mask.shape == (2, 4, 4) and mask[:, 0, 0].tolist() == [1.0, 5.0]
    assert quality.tolist() == pytest.approx([0.9, 0.6])


@torch.no_grad()
def test_decoding_takes_the_best_candidate() -> None:
    model = tiny(masks="best_of_three")
    image, box = windows(6)
    logits, quality = model(image, box)
    chosen, its_quality = model.decode(model.embed(image), box)
    assert torch.equal(its_quality, quality.max(dim=1).values)
    assert torch.equal(chosen, logits[torch.arange(6), quality.argmax(dim=1)])


@torch.no_grad()
def test_the_fine_path_sees_what_a_patch_averages_away() -> None:
    model = tiny()
    assert model.detail is not None
    image, box = windows(2)
    seen = model.embed(image)
    assert seen.detail_BUMM is not None and seen.detail_BUMM.shape == (2, 8, SIDE // 4, SIDE // 4)
    before, _ = model.decode(seen, box)
    model.detail.fuse[-1].weight.normal_()  # as training does
    after, _ = model.decode(seen, box)
    assert (before - after).abs().max() > 1e-2
    other, _ = model.decode(seen._replace(detail_BUMM=seen.detail_BUMM.flip(-1)), box)
    assert (other - after).abs().max() > 1e-2


@torch.no_grad()
def test_cached_embeddings_give_what_their_windows_give() -> None:
    model = tiny(detail=0)
    image, box = windows(3)
    embedding = model.embed(image).embedding_BCTT
    for given, cached in zip(model(image, box), model(None, box, None, embedding), strict=True):
        assert torch.equal(given, cached)


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


@pytest.mark.parametrize("with_points", [False, True])
@pytest.mark.parametrize("masks", ["single", "best_of_three"])
def test_every_trained_parameter_of_tiny_gets_a_gradient(masks: str, with_points: bool) -> None:
    model = tiny(masks=masks).train()
    points = torch.rand(2, 1, 2) * SIDE, torch.ones(2, 1)
    logits, quality = model(*windows(2), points if with_points else None)
    (logits.square().mean() + quality.square().mean()).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == [], "DDP waits for ever for a gradient that does not come"
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    unused = ("not_a_point_embed", "no_mask_embed")
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
        seen = model.embed(torch.empty(1, 1024, 1024, 3, dtype=torch.uint8))
        logits, quality = model.decode(seen.expand(3), torch.empty(3, 4))
    assert seen.embedding_BCTT.shape == (1, 256, 64, 64) and seen.detail_BUMM is None
    assert logits.shape == (3, 256, 256) and quality.shape == (3,)
