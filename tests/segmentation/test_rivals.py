"""UNet and UNet++ as learners and behind the numpy API. What is said of LeuSAM must hold for its rivals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from discs import ready, train
from numpy.typing import NDArray
from torch import Tensor

from cotray.config import SegmentConfig, TrainConfig
from cotray.imaging.masks import clean_mask, iou, mask_box
from cotray.segmentation.rivals import (
    BoxUNet,
    RivalLearner,
    UNetSegmenter,
    box_plane,
    build_unet,
    build_unetpp,
    expected_iou,
)
from cotray.segmentation.windows import training_windows

Build = Callable[[SegmentConfig], BoxUNet]
SIDE = 64
TINY = SegmentConfig(
    model="unet",
    image_size=SIDE,
    window="image",
    unet_width=4,
    train=TrainConfig(lr=1e-2, batch_size=8),
)
PLUS = TINY.model_copy(update={"model": "unetpp"})
RIVALS = pytest.mark.parametrize("cfg", [TINY, PLUS], ids=["unet", "unetpp"])


def smear(
    centres: list[tuple[int, int]], r: int, seed: int
) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
    """Violet discs on pink, and the mask of each."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:100, :110]
    masks = [np.asarray((x - cx) ** 2 + (y - cy) ** 2 < r * r) for cx, cy in centres]
    any_cell = np.logical_or.reduce(masks)
    rgb = np.where(any_cell[..., None], [110, 60, 150], [230, 190, 200]) + rng.normal(0, 12, (100, 110, 3))
    return rgb.clip(0, 255).astype(np.uint8), masks


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    box = mask_box(mask)
    assert box is not None
    return box


def discs(n: int, seed: int) -> dict[str, Tensor]:
    """Windows around one of two discs: only the box tells which."""
    rng, items = np.random.default_rng(seed), []
    for number in range(n):
        rgb, masks = smear([(30, 50), (78, 50)], int(rng.integers(16, 22)), seed=number)
        mask = masks[number % 2]
        items.append(training_windows(rgb, mask, box_of(mask), TINY))
    return {key: torch.from_numpy(np.stack([item[key] for item in items])) for key in items[0]}


def prepared(cfg: SegmentConfig, seed: int = 0, steps: int = 40) -> RivalLearner:
    return ready(RivalLearner(cfg, seed), steps)


@pytest.fixture(scope="module", params=[TINY, PLUS], ids=["unet", "unetpp"])
def trained(request: pytest.FixtureRequest) -> RivalLearner:
    learner = prepared(request.param)
    train(learner, discs(8, seed=0), 40)
    learner.set_train(False)
    return learner


# ---- networks ------------------------------------------------------------------------------------------


def test_the_box_is_a_plane_of_one_inside_and_minus_one_outside() -> None:
    plane = box_plane(torch.tensor([[1.0, 2.0, 3.0, 5.0], [-4.0, 0.6, 2.4, 9.0]]), 6)
    wanted = -np.ones((2, 6, 6))
    wanted[0, 2:5, 1:3] = 1
    wanted[1, 1:, :2] = 1  # middles 0.5 and 1.5 are left of 2.4; 0.5 is above 0.6
    assert np.array_equal(plane[:, 0].numpy(), wanted)


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("build", [build_unet, build_unetpp])
def test_masks_have_the_windows_side_over_the_stride(
    build: Callable[[SegmentConfig], BoxUNet], stride: int
) -> None:
    net = build(TINY.model_copy(update={"unet_stride": stride}))
    image = torch.randint(256, (2, SIDE, SIDE, 3), dtype=torch.uint8)
    assert net(image, torch.tensor([[4.0, 4, 40, 40]] * 2)).shape == (2, SIDE // stride, SIDE // stride)


@torch.no_grad()
@RIVALS
def test_windows_do_not_mix(cfg: SegmentConfig) -> None:
    net = (build_unet if cfg.model == "unet" else build_unetpp)(cfg).eval()
    torch.manual_seed(0)
    image = torch.randint(256, (3, SIDE, SIDE, 3), dtype=torch.uint8)
    box = torch.tensor([[4.0, 4, 40, 40], [10, 10, 60, 50], [0, 20, 30, 64]])
    torch.testing.assert_close(net(image, box)[1], net(image[1:2], box[1:2])[0], rtol=1e-3, atol=1e-4)


# ---- training ------------------------------------------------------------------------------------------


def test_training_finds_the_disc_in_the_box_and_not_the_other(trained: RivalLearner) -> None:
    held = discs(8, seed=1)
    assert trained.score(trained.predict_step(held))["val_iou"] > 0.7
    swapped = held | {"box": held["box"].flip(0)}
    assert trained.score(trained.predict_step(swapped))["val_iou"] < 0.3, "the other disc, then"


def test_predictions_are_per_window_and_leave_no_gradient(trained: RivalLearner) -> None:
    outputs = trained.predict_step(discs(3, seed=0))
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {"iou": (3,), "loss": (3,)}
    assert not any(value.requires_grad for value in outputs.values())


@RIVALS
def test_every_parameter_gets_a_gradient(cfg: SegmentConfig) -> None:
    learner = prepared(cfg)
    learner.train_step(discs(2, seed=0))
    net = learner.nets[cfg.model]
    without = [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert without == [], "DDP waits for ever for a gradient that does not come"


@RIVALS
def test_the_same_seed_trains_the_same_weights_and_building_draws_nothing(cfg: SegmentConfig) -> None:
    batch, nets = discs(4, seed=0), []
    for seed in (5, 5, 6):
        torch.manual_seed(1)
        learner = prepared(cfg, seed)
        assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(1)))
        train(learner, batch, 2)
        nets.append(learner.weights()[cfg.model])
    assert all(torch.equal(value, nets[1][name]) for name, value in nets[0].items())
    assert any(not torch.equal(value, nets[2][name]) for name, value in nets[0].items())


@RIVALS
def test_a_continued_training_is_the_unbroken_one(cfg: SegmentConfig) -> None:
    batch, whole, first = discs(4, seed=0), prepared(cfg), prepared(cfg)
    train(whole, batch, 3)
    train(first, batch, 2)
    second = prepared(cfg, seed=9)
    second.load_state_dict(first.state_dict())
    torch.manual_seed(2)
    second.schedule()
    second.train_step(batch)
    wanted = whole.weights()[cfg.model]
    assert all(torch.equal(value, wanted[name]) for name, value in second.weights()[cfg.model].items())


# ---- asking --------------------------------------------------------------------------------------------


def test_each_box_gets_its_own_cell_in_pixels_of_the_image(trained: RivalLearner) -> None:
    net = trained.nets[trained.name]
    assert isinstance(net, BoxUNet)
    rgb, cells = smear([(30, 50), (78, 50)], 19, seed=70)
    masks, scores = UNetSegmenter(net, trained.cfg).segment(rgb, [box_of(cell) for cell in cells])
    assert masks.shape == (2, 100, 110) and masks.dtype == bool and scores.dtype == np.float32
    assert all(iou(mask, cell) > 0.7 for mask, cell in zip(masks, cells, strict=True))
    assert all(np.array_equal(mask, clean_mask(mask)) for mask in masks)
    assert ((scores > 0) & (scores <= 1)).all()
    one, _ = UNetSegmenter(net, trained.cfg, batch=1).segment(rgb, [box_of(cell) for cell in cells])
    assert np.count_nonzero(one ^ masks) <= 4, "rounding may move a pixel that is on the edge"


@RIVALS
def test_no_boxes_and_boxes_outside(cfg: SegmentConfig) -> None:
    cfg = cfg.model_copy(update={"window": "cell"})
    segmenter = UNetSegmenter((build_unet if cfg.model == "unet" else build_unetpp)(cfg), cfg)
    rgb, _ = smear([(50, 55)], 18, seed=0)
    masks, scores = segmenter.segment(rgb, [])
    assert masks.shape == (0, 100, 110) and masks.dtype == bool and scores.shape == (0,)
    masks, scores = segmenter.segment(rgb, [(300, 300, 340, 340), (-90, -90, -60, -60)])
    assert not masks.any() and np.isfinite(scores).all()


def test_expected_iou_is_that_of_masks_drawn_from_the_probabilities() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (1, 30, 30))
    prob, mask = 1 / (1 + np.exp(-logits)), logits > 0
    drawn = rng.random((400, 30, 30)) < prob
    mean = np.mean([(mask[0] & one).sum() / (mask[0] | one).sum() for one in drawn])
    assert expected_iou(torch.from_numpy(logits)).item() == pytest.approx(mean, abs=0.01)
    assert expected_iou(torch.full((1, 4, 4), -9.0)).item() == 0.0
    assert expected_iou(torch.full((1, 4, 4), 30.0)).item() == pytest.approx(1.0)
