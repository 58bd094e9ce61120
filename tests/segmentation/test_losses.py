from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cotray.segmentation.losses import dice_loss, focal_loss, mask_iou


def logits_and_target() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    return rng.normal(0, 3, (4, 6, 7)), rng.integers(0, 2, (4, 6, 7)).astype(float)


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def test_dice_loss_is_one_minus_smoothed_dice() -> None:
    logits, target = logits_and_target()
    p = sigmoid(logits)
    wanted = [1 - (2 * (a * b).sum() + 1) / (a.sum() + b.sum() + 1) for a, b in zip(p, target, strict=True)]
    assert dice_loss(torch.from_numpy(logits), torch.from_numpy(target)).numpy() == pytest.approx(wanted)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_focal_loss_is_cross_entropy_weighted_by_the_miss(gamma: float) -> None:
    logits, target = logits_and_target()
    right = np.where(target == 1, sigmoid(logits), 1 - sigmoid(logits))
    wanted = (-np.log(right) * (1 - right) ** gamma).mean(axis=(1, 2))
    found = focal_loss(torch.from_numpy(logits), torch.from_numpy(target), gamma)
    assert found.numpy() == pytest.approx(wanted)


def test_focal_loss_and_its_gradient_are_finite_for_huge_logits() -> None:
    logits = torch.tensor([[[1e4, -1e4], [1e4, -1e4]]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([[[1.0, 0], [0, 1]]]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    assert loss.item() == pytest.approx(5e3)


def test_iou_counts_pixels_of_thresholded_masks() -> None:
    logits, target = logits_and_target()
    found, true = logits > 0, target > 0.5
    wanted = (found & true).sum(axis=(1, 2)) / (found | true).sum(axis=(1, 2))
    assert mask_iou(torch.from_numpy(logits), torch.from_numpy(target)).numpy() == pytest.approx(wanted)


def test_empty_masks() -> None:
    none, some = torch.full((1, 4, 4), -9.0), torch.full((1, 4, 4), 9.0)
    empty, full = torch.zeros(1, 4, 4), torch.ones(1, 4, 4)
    assert mask_iou(none, empty).item() == 1.0
    assert mask_iou(some, empty).item() == mask_iou(none, full).item() == 0.0
    assert dice_loss(none, empty).item() < 0.01
    assert dice_loss(some, full).item() < 0.01
    assert dice_loss(some, empty).item() > 0.9
