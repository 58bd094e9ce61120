from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from cotray.config import SegmentConfig, TrainConfig
from cotray.imaging.masks import mask_box
from cotray.segmentation.learner import LeuSamLearner, jitter, restain, training_windows, turn

SIDE = 64
TINY = SegmentConfig(
    image_size=SIDE, embed_dim=16, depth=1, heads=2, prompt_dim=16, train=TrainConfig(lr=1e-2, batch_size=8)
)


def discs(n: int, seed: int) -> dict[str, Tensor]:
    """Windows with a violet disc on pink, its mask and its box."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:110, :110]
    items = []
    for _ in range(n):
        (cx, cy), r = rng.integers(40, 70, 2), rng.integers(12, 30)
        mask = (x - cx) ** 2 + (y - cy) ** 2 < r * r
        rgb = np.where(mask[..., None], [110, 60, 150], [230, 190, 200]) + rng.normal(0, 12, (110, 110, 3))
        box = mask_box(mask)
        assert box is not None
        items.append(training_windows(rgb.clip(0, 255).astype(np.uint8), mask, box, TINY))
    return {key: torch.from_numpy(np.stack([item[key] for item in items])) for key in items[0]}


def prepared(seed: int = 0, steps: int = 30, cfg: SegmentConfig = TINY) -> LeuSamLearner:
    learner = LeuSamLearner(cfg, seed)
    learner.prepare(torch.device("cpu"), lambda net: net, steps)
    learner.set_train(True)
    return learner


def train(learner: LeuSamLearner, batch: dict[str, Tensor], steps: int) -> list[dict[str, float]]:
    rows = []
    for step in range(steps):
        torch.manual_seed(step)
        learner.schedule()
        rows.append(learner.train_step(batch))
    return rows


# ---- augmentation --------------------------------------------------------------------------------------


def rectangles(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Windows whose mask fills its box and whose image shows the mask, no two alike."""
    mask, box = torch.zeros(n, SIDE, SIDE, dtype=torch.uint8), torch.zeros(n, 4)
    for row in range(n):
        x0, y0 = 3 + row % 20, 9 + row % 7
        mask[row, y0 : y0 + 11, x0 : x0 + 30] = 1
        box[row] = torch.tensor([x0, y0, x0 + 30, y0 + 11])
    return mask[..., None].repeat(1, 1, 1, 3) * 200, mask, box


def test_turning_keeps_image_mask_and_box_together() -> None:
    given = rectangles(64)
    torch.manual_seed(0)
    image, mask, box = turn(*given)
    assert image.dtype == torch.uint8 and mask.dtype == torch.uint8
    for row in range(64):
        assert torch.equal(image[row], mask[row][..., None].repeat(1, 1, 3) * 200)
        assert mask_box(mask[row].bool().numpy()) == tuple(box[row].tolist())


def test_turning_gives_all_eight_symmetries_of_the_square() -> None:
    corner = torch.zeros(200, 8, 8, dtype=torch.uint8)
    corner[:, 1, 2] = 1  # off both diagonals: eight different places
    torch.manual_seed(0)
    _, mask, _ = turn(
        corner[..., None].repeat(1, 1, 1, 3), corner, torch.tensor([[2.0, 1, 3, 2]]).expand(200, 4)
    )
    places = {tuple(np.argwhere(one.numpy())[0].tolist()) for one in mask}
    assert places == {p for a, b in itertools.product((1, 6), (2, 5)) for p in ((a, b), (b, a))}


def test_jitter_moves_each_side_by_no_more_than_its_share() -> None:
    torch.manual_seed(0)
    box = torch.tensor([[10.0, 20, 30, 60]]).expand(500, 4)
    moved = (jitter(box, 0.1) - box) / torch.tensor([20.0, 40, 20, 40])
    assert moved.abs().max() <= 0.1
    assert (moved.amax(dim=0) > 0.09).all() and (moved.amin(dim=0) < -0.09).all(), "both ways, every side"
    assert torch.equal(jitter(box, 0.0), box)


def test_restaining_stays_in_range_and_is_one_change_per_window() -> None:
    torch.manual_seed(0)
    image = torch.full((20, 4, 4, 3), 100, dtype=torch.uint8)
    out = restain(image)
    assert out.dtype == torch.float32
    assert restain(image // 50).min() == 0 and restain(image * 2 + 50).max() == 255, "kept in 0..255"
    assert torch.equal(out, out[:, :1, :1].expand_as(out)), "the same for every pixel of a window"
    assert (out - 100).abs().max() <= 20 + 25.6 + 1e-3
    assert out[:, 0, 0].std(dim=0).min() > 5, "not the same for every window"
    assert torch.equal(restain(image, 0.0), image.float())


# ---- training ------------------------------------------------------------------------------------------


def test_a_few_steps_on_discs_raise_the_agreement() -> None:
    learner, held = prepared(steps=60), discs(8, seed=1)
    learner.set_train(False)
    before = learner.score(learner.predict_step(held))
    learner.set_train(True)
    rows = train(learner, discs(8, seed=0), 60)
    learner.set_train(False)
    after = learner.score(learner.predict_step(held))
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert after["val_iou"] > max(0.7, before["val_iou"] + 0.1)
    assert after["val_loss"] < before["val_loss"]


def test_predictions_are_per_window_and_leave_no_gradient() -> None:
    learner = prepared()
    outputs = learner.predict_step(discs(3, seed=0))
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {"iou": (3,), "loss": (3,)}
    assert not any(value.requires_grad for value in outputs.values())
    assert learner.score(outputs)["val_iou"] == pytest.approx(float(outputs["iou"].mean()))


def test_the_same_seed_trains_the_same_weights() -> None:
    batch, nets = discs(4, seed=0), []
    for seed in (5, 5, 6):
        learner = prepared(seed)
        train(learner, batch, 2)
        nets.append(learner.weights()["leusam"])
    assert all(torch.equal(value, nets[1][name]) for name, value in nets[0].items())
    assert any(not torch.equal(value, nets[2][name]) for name, value in nets[0].items())


def test_building_does_not_touch_the_global_generator() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    LeuSamLearner(TINY, 0)
    assert torch.equal(torch.rand(1), wanted)


def test_a_continued_training_is_the_unbroken_one() -> None:
    batch, whole, first = discs(4, seed=0), prepared(), prepared()
    train(whole, batch, 4)
    train(first, batch, 2)
    second = prepared(seed=9)
    second.load_state_dict(first.state_dict())
    for step in (2, 3):
        torch.manual_seed(step)
        second.schedule()
        second.train_step(batch)
    wanted = whole.weights()["leusam"]
    assert all(torch.equal(value, wanted[name]) for name, value in second.weights()["leusam"].items())
    assert second.step == 4
