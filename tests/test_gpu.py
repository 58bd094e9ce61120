"""What runs on a GPU, on a GPU; left out where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from benchmarks.training_sides import job, settings
from cotray.config import Config, load_config
from cotray.features.zoo import build_backbone
from cotray.fitting.job import CachedFeed, Job
from cotray.fitting.loop import Fit, Place, fit_here
from cotray.learning import Weights
from cotray.predictor import Embedder, build_segmenter
from cotray.segmentation.shipped import load_shipped

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
TOY = (
    *("segment.image_size=64", "segment.embed_dim=32", "segment.depth=1", "segment.prompt_dim=32"),
    *("gan.image_size=32", "gan.channels=16", "backbone.image_size=32", "backbone.layers=1"),
    *("backbone.smod.filters=[4,4,8,8,8]", "hdlc.filters=8", "hdlc.hidden=[16,8,8,4,4]"),
)
MODELS = ("leusam", "leugan", "cotconet", "resnet18", "hdlc")


def toy(*more: str) -> Config:
    return load_config("tiny", overrides=[*TOY, *more])


def made(model: str, *more: str, epochs: int = 3) -> Job:
    section = settings(model, toy(*more))
    return job(model, section, 3 * section.train.batch_size, epochs)


def here(of: Job) -> Fit:
    return Fit(of, CachedFeed(of, of.train, of.valid), Place(device=torch.device("cuda")))


def close(found: Weights, wanted: Weights, atol: float) -> None:
    for net, state in wanted.items():
        torch.testing.assert_close(found[net], state, rtol=0, atol=atol)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_learns(model: str) -> None:
    weights, history = fit_here(made(model), device="cuda")
    assert len(history) == 3 and all(np.isfinite(row["loss"]) for row in history)
    for state in weights.values():
        assert all(value.device.type == "cpu" and bool(value.isfinite().all()) for value in state.values())


@pytest.fixture
def exact() -> Iterator[None]:
    """The same sums in the same order, in full precision."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = before, False


@pytest.mark.usefixtures("exact")
def test_the_classifier_comes_to_the_same_weights_as_on_the_cpu() -> None:
    of = made("hdlc", "hdlc.train.precision=fp32", "hdlc.dropout=0")
    close(fit_here(of, device="cuda")[0], fit_here(of)[0], 1e-4)


@pytest.mark.usefixtures("exact")
def test_a_continued_training_comes_to_the_same_weights() -> None:
    """Augmentation and dropout are drawn on the GPU: their state must not matter."""
    of = made("cotconet", "backbone.train.precision=fp32", "backbone.gmod_dropout=0.1", epochs=4)
    unbroken, first, second = here(of), here(of), here(of)
    while not unbroken.finished:
        unbroken.epoch()
    first.epoch(), first.epoch()
    torch.rand(7, device="cuda")
    second.load_state_dict(first.state_dict())
    while not second.finished:
        second.epoch()
    close(second.learner.weights(), unbroken.learner.weights(), 1e-5)


@pytest.mark.parametrize("more", [("compile=true",), ("channels_last=true",), ("compile=true", "ema=0.9")])
def test_compiled_and_channels_last(more: tuple[str, ...]) -> None:
    _, history = fit_here(made("cotconet", *(f"backbone.train.{one}" for one in more)), device="cuda")
    assert all(np.isfinite(row["loss"]) for row in history)


def test_out_of_memory_halves_the_batch_and_draws_the_same_again() -> None:
    of = made("resnet18", "backbone.image_size=256", "backbone.train.batch_size=64", epochs=1)
    roomy = here(of)
    roomy.epoch()
    peak = torch.cuda.max_memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.6 * peak / total)
    try:
        tight = here(of)
        row = tight.epoch()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert roomy.cuts == 1 and tight.cuts > 1
    assert row["loss"] == pytest.approx(roomy.history[0]["loss"], rel=0.2)


def test_features_are_those_of_the_cpu() -> None:
    config = toy()
    state = build_backbone(config.backbone).state_dict()
    cells = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), np.uint8)
    near, far = (Embedder(config, state, device)(cells) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(far, near, atol=2e-2 * np.abs(near).max())


def test_masks_are_those_of_the_cpu() -> None:
    shipped = load_shipped()
    config = load_config("tiny").model_copy(update={"segment": shipped.segment})
    rows, columns = np.mgrid[:200, :200] - 100
    rgb = np.full((200, 200, 3), 220, np.uint8)
    rgb[rows**2 + columns**2 < 45**2] = (120, 60, 150)
    masks = [
        build_segmenter(config, shipped.weights, device).segment(rgb, [(50, 50, 150, 150)])[0][0]
        for device in ("cpu", "cuda")
    ]
    assert (masks[0] & masks[1]).sum() > 0.98 * (masks[0] | masks[1]).sum() > 0
