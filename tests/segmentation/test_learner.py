from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from discs import discs, ready, tensors, train
from torch import Tensor

from cotray.config import SegmentConfig, TrainConfig
from cotray.imaging.masks import mask_box
from cotray.segmentation.learner import (
    LeuSamLearner,
    draw_points,
    jitter,
    mask_losses,
    restain,
    turn,
    turned_copies,
)
from cotray.segmentation.leusam import build_sam
from cotray.segmentation.losses import mask_iou

SIDE = 64
TINY = SegmentConfig(
    image_size=SIDE, embed_dim=16, depth=1, heads=2, prompt_dim=16, train=TrainConfig(lr=1e-2, batch_size=8)
)


def windows(n: int, seed: int) -> dict[str, Tensor]:
    return tensors(discs(n, seed, TINY))


def prepared(seed: int = 0, steps: int = 30, cfg: SegmentConfig = TINY) -> LeuSamLearner:
    return ready(LeuSamLearner(cfg, seed), steps)


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


def test_turned_copies_are_the_windows_and_different_turns_of_them() -> None:
    image, mask, box = rectangles(3)
    windows = {"image": image.numpy(), "mask": mask.numpy(), "box": box.numpy()}
    copies = turned_copies(windows, 8)
    assert len(copies["mask"]) == 24 and all(np.array_equal(copies[k][:3], windows[k]) for k in windows)
    assert len({one.tobytes() for one in copies["mask"]}) == 24
    for one, pixels, place in zip(copies["mask"], copies["image"], copies["box"], strict=True):
        assert mask_box(one.astype(bool)) == tuple(place.tolist())
        assert np.array_equal(pixels, one[..., None].repeat(3, axis=2) * 200)
    assert all(np.array_equal(value, windows[k]) for k, value in turned_copies(windows, 1).items())


# ---- points --------------------------------------------------------------------------------------------


def low_masks() -> tuple[Tensor, Tensor]:
    """Masks at a quarter of the side, and boxes around them in window pixels."""
    mask, box = torch.zeros(40, 16, 16), torch.zeros(40, 4)
    for row in range(40):
        mask[row, 3 : 6 + row % 5, 4 : 10 + row % 4] = 1
        box[row] = 4 * torch.tensor([3.0, 2, 11 + row % 4, 7 + row % 5])
    return mask, box


def test_points_lie_on_the_cell_or_beside_it_as_they_say() -> None:
    torch.manual_seed(0)
    (mask, box), labels, counts, in_box = low_masks(), [], set(), []
    for _ in range(50):
        drawn = draw_points(mask, box, 1.0, SIDE)
        assert drawn is not None
        place, label = drawn
        counts.add(label.shape[1])
        assert place.min() >= 0 and place.max() <= SIDE - 1
        cell = ((place + 0.5) * 16 / SIDE).long()  # of the low-resolution mask
        rows = torch.arange(40)[:, None].expand_as(label)
        assert torch.equal(mask[rows, cell[..., 1], cell[..., 0]].long(), label)
        labels.append(label.float().mean())
        within = (place > box[:, None, :2]).all(dim=2) & (place < box[:, None, 2:]).all(dim=2)
        in_box += within[label == 0].tolist()
    assert counts == {1, 2} and 0.4 < float(torch.stack(labels).mean()) < 0.6
    assert 0.4 < np.mean(in_box) < 0.9, "most of those beside the cell are in its small box"


def test_points_come_in_their_share_of_the_steps() -> None:
    torch.manual_seed(0)
    drawn = [draw_points(*low_masks(), 0.25, SIDE) is not None for _ in range(400)]
    assert 0.18 < np.mean(drawn) < 0.32
    assert draw_points(*low_masks(), 0.0, SIDE) is None


def test_windows_without_a_cell_or_full_of_it_get_the_points_there_are() -> None:
    torch.manual_seed(0)
    mask, box = torch.stack([torch.zeros(16, 16), torch.ones(16, 16)]), torch.tensor([[0.0, 0, 9, 9]] * 2)
    for _ in range(10):
        drawn = draw_points(mask, box, 1.0, SIDE)
        assert drawn is not None
        assert (drawn[1][0] == 0).all() and (drawn[1][1] == 1).all()


def pairs(n: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Windows of two discs in one box with the mask of one: a point alone tells which. And its middle."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.empty((n, SIDE, SIDE, 3), np.uint8)
    mask, middle = np.empty((n, SIDE, SIDE), np.uint8), np.empty((n, 2), np.float32)
    for row in range(n):
        places = np.array([[17, 32], [47, 32]]) + rng.integers(-3, 4, (2, 2))
        discs = [(x - px) ** 2 + (y - py) ** 2 < 12**2 for px, py in places]
        image[row] = np.where((discs[0] | discs[1])[..., None], [110, 60, 150], [230, 190, 200])
        which = rng.integers(2)
        mask[row], middle[row] = discs[which], places[which]
    box = torch.tensor([[3.0, 16, 61, 48]]).expand(n, 4)
    return {"image": torch.from_numpy(image), "mask": torch.from_numpy(mask), "box": box}, torch.from_numpy(
        middle
    )


def test_a_point_tells_which_of_two_cells_in_a_box_is_meant() -> None:
    learner = prepared(steps=200, cfg=TINY.model_copy(update={"points": 1.0}))
    batches = [pairs(8, seed)[0] for seed in range(20)]
    for step in range(80):
        torch.manual_seed(step)
        learner.schedule()
        learner.train_step(batches[step % 20])
    learner.set_train(False)
    held, middle = pairs(16, 99)
    net: Any = learner.nets["leusam"]
    truth = F.adaptive_avg_pool2d(held["mask"].float()[:, None], 16)[:, 0]

    @torch.no_grad()
    def agreement(label: int) -> float:
        points = middle[:, None], torch.full((16, 1), label)
        logits, _ = net.decode(net.embed(held["image"]), held["box"], points)
        return float(mask_iou(logits, truth).mean())

    assert agreement(1) > 0.7, "the cell that the point lies on"
    assert agreement(0) < 0.3, "the same point, said to lie beside the cell"


# ---- best of three -------------------------------------------------------------------------------------


def test_only_the_best_candidates_loss_is_followed_and_all_predictions_are_corrected() -> None:
    target = torch.zeros(2, 8, 8)
    target[:, 2:6, 2:6] = 1
    good, poor = (target * 2 - 1) * 4, torch.full((2, 8, 8), 1.0)
    logits = torch.stack([poor, good, -good], dim=1).requires_grad_()
    quality = torch.tensor([[0.9, 0.1, 0.2], [0.1, 0.8, 0.3]], requires_grad=True)
    loss, iou = mask_losses(logits, quality, target)
    loss.backward()
    assert logits.grad is not None and quality.grad is not None
    followed = logits.grad.abs().sum(dim=(2, 3)) > 0
    assert followed.tolist() == [[False, True, False]] * 2
    assert (quality.grad.abs() > 0).all()
    assert iou.tolist() == pytest.approx([16 / 64, 1.0]), "of the candidate that would be taken"
    true = torch.tensor([[0.25, 1.0, 0.0]] * 2)
    single = mask_losses(logits[:, 1:2], true[:, 1:2], target)[0]
    assert float(mask_losses(logits, true, target)[0].detach()) == pytest.approx(float(single.detach()))


def test_best_of_three_learns_discs_and_knows_its_best() -> None:
    learner, held = prepared(steps=60, cfg=TINY.model_copy(update={"masks": "best_of_three"})), windows(8, 1)
    train(learner, windows(8, seed=0), 60)
    learner.set_train(False)
    assert learner.score(learner.predict_step(held))["val_iou"] > 0.7


# ---- cached embeddings, precision ----------------------------------------------------------------------


def test_a_frozen_encoder_is_not_asked_where_embeddings_are_given() -> None:
    cfg = SegmentConfig(variant="vit_b", image_size=SIDE, jitter=0.0, points=0.0)
    size = {"embed_dim": 32, "depth": 1, "num_heads": 2, "global_attn_indexes": (0,), "window_size": 14}
    learner = LeuSamLearner(cfg, 0, None, lambda cfg: build_sam(cfg, size, width=32, mlp=32))
    learner.prepare(torch.device("cpu"), lambda net: net, 10)
    net: Any = learner.nets["leusam"]
    batch = windows(4, 0)
    embedding = net.embed(batch["image"]).embedding_BCTT
    cached = {"mask": batch["mask"], "box": batch["box"], "embedding": embedding.half()}
    asked: list[int] = []
    net.image_encoder.register_forward_hook(lambda *_: asked.append(1))
    assert learner.predict_step(cached)["loss"].tolist() == pytest.approx(
        learner.predict_step(batch)["loss"].tolist(), rel=2e-2
    )
    assert asked == [1]
    first = learner.train_step(cached)["loss"]
    for _ in range(5):
        last = learner.train_step(cached)["loss"]
    assert asked == [1] and last < first
    assert set(learner.weights()["leusam"]) == {f"mask_decoder.{k}" for k in net.mask_decoder.state_dict()}


@pytest.mark.parametrize("masks", ["single", "best_of_three"])
def test_mixed_precision_trains_as_well_and_leaves_places_exact(masks: str) -> None:
    cfg = TINY.model_copy(update={"masks": masks, "points": 1.0})
    learner, batch = prepared(steps=30, cfg=cfg), windows(8, 0)
    net: Any = learner.nets["leusam"]
    types: list[torch.dtype] = []
    net.image_encoder.blocks[0].attn.qkv.register_forward_hook(lambda _, __, out: types.append(out.dtype))
    net.prompt_encoder.register_forward_hook(lambda _, __, out: types.append(out[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        rows = train(learner, batch, 30)
    assert types[:2] == [torch.bfloat16, torch.float32]
    assert np.mean([row["iou"] for row in rows[-5:]]) > 0.7, "weights are not used as they once were"
    assert all(p.dtype is torch.float32 for p in net.parameters())


# ---- training ------------------------------------------------------------------------------------------


def test_a_few_steps_on_discs_raise_the_agreement() -> None:
    learner, held = prepared(steps=60), windows(8, seed=1)
    learner.set_train(False)
    before = learner.score(learner.predict_step(held))
    learner.set_train(True)
    rows = train(learner, windows(8, seed=0), 60)
    learner.set_train(False)
    after = learner.score(learner.predict_step(held))
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert after["val_iou"] > max(0.7, before["val_iou"] + 0.1)
    assert after["val_loss"] < before["val_loss"]


def test_predictions_are_per_window_and_leave_no_gradient() -> None:
    learner = prepared()
    outputs = learner.predict_step(windows(3, seed=0))
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {"iou": (3,), "loss": (3,)}
    assert not any(value.requires_grad for value in outputs.values())
    assert learner.score(outputs)["val_iou"] == pytest.approx(float(outputs["iou"].mean()))


def test_the_same_seed_trains_the_same_weights() -> None:
    batch, nets = windows(4, seed=0), []
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
    batch, whole, first = windows(4, seed=0), prepared(), prepared()
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
