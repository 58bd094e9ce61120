from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cotray.config import Config, SegmentConfig
from cotray.errors import WeightsError
from cotray.segmentation._torchvision import ensure_torchvision
from cotray.segmentation.checkpoint import (
    checkpoint_digest,
    load_sam_checkpoint,
    read_sam,
    require_variant,
    variant_of,
)
from cotray.segmentation.learner import LeuSamLearner
from cotray.segmentation.leusam import VIT, LeuSam, build_leusam, build_sam
from cotray.stages.sam_checkpoint import require_checkpoint

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


# ---- files ---------------------------------------------------------------------------------------------

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2, "global_attn_indexes": (1,)}


def small_leusam(cfg: SegmentConfig) -> LeuSam:
    """LeuSAM around :func:`genuine`'s sizes: `vit_*` in small."""
    return build_sam(cfg, SMALL | {"window_size": 14})


def genuine() -> nn.Module:
    """A SAM as the package builds it, small but of 1024 pixels; fresh, so that no two are alike."""
    ensure_torchvision()
    from segment_anything.build_sam import _build_sam

    sam: nn.Module = _build_sam(
        encoder_embed_dim=32, encoder_depth=2, encoder_num_heads=2, encoder_global_attn_indexes=[1]
    )
    return sam


def opened(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        return read_sam(file, str(path))


@torch.no_grad()
def test_a_genuine_sams_file_makes_a_leusam_that_answers_as_the_sam_does(tmp_path: Path) -> None:
    torch.manual_seed(3)
    sam = genuine()
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    model = small_leusam(SegmentConfig(image_size=1024)).eval()
    load_sam_checkpoint(model, opened(tmp_path / "sam.pth"))
    image = torch.randint(256, (1, 1024, 1024, 3), dtype=torch.uint8)
    box = torch.tensor([[200.0, 300, 600, 640]])
    record = {"image": image[0].permute(2, 0, 1).float(), "boxes": box, "original_size": (1024, 1024)}
    (wanted,) = sam([record], multimask_output=False)
    logits, quality = model(image, box)
    torch.testing.assert_close(logits, wanted["low_res_logits"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(quality, wanted["iou_predictions"], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_genuine_sam_is_fitted_to_smaller_windows(tmp_path: Path) -> None:
    torch.save(genuine().state_dict(), tmp_path / "sam.pth")
    cfg = SegmentConfig(image_size=128, masks="best_of_three")
    learner = LeuSamLearner(cfg, 0, opened(tmp_path / "sam.pth"), small_leusam)
    image = torch.randint(256, (2, 128, 128, 3), dtype=torch.uint8)
    logits, _ = learner.nets["leusam"](image, torch.tensor([[20.0, 30, 90, 99]]).expand(2, 4))
    assert logits.shape == (2, 3, 32, 32) and torch.isfinite(logits).all()


def on_meta(variant: str) -> dict[str, Tensor]:
    """A published SAM's names and shapes without its bytes."""
    ensure_torchvision()
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        return dict(sam_model_registry[variant]().state_dict())


@pytest.mark.parametrize("variant", sorted(VIT))
def test_every_published_variant_is_known_by_its_shapes(variant: str) -> None:
    state = on_meta(variant)
    assert variant_of(state) == variant
    require_variant(state, SegmentConfig.model_validate({"variant": variant, "image_size": 256}), "here")
    (other,) = {"vit_b": ["vit_l"], "vit_l": ["vit_h"], "vit_h": ["vit_b"]}[variant]
    cfg = SegmentConfig.model_validate({"variant": other})
    with pytest.raises(WeightsError, match=f"looks like {variant}, and segment.variant is {other}") as told:
        require_variant(state, cfg, "a/file.pth")
    assert told.value.where == "a/file.pth"
    assert f"segment.variant={variant}" in str(told.value.cure)


def test_tensors_of_another_architecture_are_refused() -> None:
    state = tiny().state_dict()
    assert variant_of(state) is None and variant_of({}) is None
    with pytest.raises(WeightsError, match=r"lacks \d+ tensors.*here"):
        require_variant(state, SegmentConfig(variant="vit_b", image_size=SIDE), "here")
    with pytest.raises(WeightsError, match="no Segment Anything"):
        require_variant({"conv1.weight": torch.zeros(1)}, SegmentConfig(variant="vit_b"), "here")


class Payload:
    """A pickle of it creates a file when it is opened: what must never happen."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


def bad_files(folder: Path) -> dict[str, Path]:
    """Files that are no checkpoint, by what is wrong with them."""
    whole = io.BytesIO()
    torch.save({"a": torch.arange(1000)}, whole)
    bytes_of = {
        "text": b"This page does not exist.\n" * 50,
        "empty": b"",
        "truncated": whole.getvalue()[:3000],
        "no magic": whole.getvalue()[4:],
        "pickle": pickle.dumps(Payload(folder / "ran")),
    }
    for name, data in bytes_of.items():
        (folder / name).write_bytes(data)
    with zipfile.ZipFile(folder / "zip", "w") as archive:
        archive.writestr("images/cell.txt", "a cell")
    torch.save({"image_encoder.pos_embed": torch.zeros(2), "more": Payload(folder / "ran")}, folder / "code")
    torch.save({"model": {"a": torch.zeros(2)}}, folder / "nested")
    torch.save([torch.zeros(2)], folder / "list")
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    "name", ["text", "empty", "truncated", "no magic", "pickle", "zip", "code", "nested", "list"]
)
def test_a_file_that_is_no_checkpoint_is_refused_by_name_and_runs_nothing(name: str, tmp_path: Path) -> None:
    path = bad_files(tmp_path)[name]
    with pytest.raises(WeightsError) as told:
        opened(path)
    assert told.value.where == str(path) and "sam_vit_b" in str(told.value.cure)
    assert not (tmp_path / "ran").exists()


def test_the_payload_would_have_run(tmp_path: Path) -> None:
    path = bad_files(tmp_path)["code"]
    torch.load(path, weights_only=False)  # what a careless reader does
    assert (tmp_path / "ran").exists()


def test_code_in_a_checkpoint_is_named() -> None:
    sink = io.BytesIO()
    torch.save({"x": Payload(Path("ran"))}, sink)
    with pytest.raises(WeightsError, match=r"run code .*pathlib.*Do not use it"):
        read_sam(sink, "evil.pth")


def test_a_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    def digest(name: str, value: float) -> str:
        torch.save({"a": torch.full((9,), value)}, tmp_path / name)
        with (tmp_path / name).open("rb") as file:
            return checkpoint_digest(file)

    assert digest("one.pth", 1) == digest("two.pth", 1) != digest("three.pth", 2)
    assert checkpoint_digest(io.BytesIO(b"text")) == ""


@pytest.mark.long
@pytest.mark.slow
def test_the_true_vit_b_is_read_fitted_and_refused_as_vit_l(tmp_path: Path) -> None:
    ensure_torchvision()
    from segment_anything import sam_model_registry

    path = tmp_path / "sam_vit_b.pth"
    torch.manual_seed(0)
    torch.save(sam_model_registry["vit_b"]().state_dict(), path)
    cfg = SegmentConfig(variant="vit_b", image_size=256, checkpoint=str(path))
    require_checkpoint(Config(segment=cfg))
    with pytest.raises(WeightsError, match="looks like vit_b"):
        require_checkpoint(Config(segment=cfg.model_copy(update={"variant": "vit_l"})))
    learner = LeuSamLearner(cfg, 0, opened(path))
    assert learner.nets["leusam"].image_encoder.pos_embed.shape == (1, 16, 16, 768)
    assert not any(name.startswith("image_encoder") for name in learner.weights()["leusam"])
    assert set(learner.whole()) == set(on_meta("vit_b"))
