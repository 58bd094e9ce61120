"""Augmentation: the eight symmetries, and stain that leaves black alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cotray.features.augment import augment, restain, turn


def symmetries(image_3SS: Tensor) -> list[Tensor]:
    """The eight, written as index arithmetic rather than as rotations."""
    flips = [image_3SS, image_3SS.flip(1), image_3SS.flip(2), image_3SS.flip(1).flip(2)]
    return [*flips, *(f.transpose(1, 2) for f in flips)]


def some_images(count: int, side: int = 8) -> Tensor:
    """Dim images on black."""
    torch.manual_seed(0)
    x = torch.rand(count, 3, side, side) * 0.8 - 0.9
    x[:, :, :2] = -1
    return x


def test_turn_is_one_of_the_eight_symmetries_and_all_come() -> None:
    image = some_images(1)[0]
    turned = turn(image.expand(200, -1, -1, -1))
    which = [[i for i, s in enumerate(symmetries(image)) if torch.equal(s, t)] for t in turned]
    assert all(len(w) == 1 for w in which)
    counts = torch.bincount(torch.tensor(which).flatten(), minlength=8)
    assert (counts > 8).all()


def test_images_do_not_mix() -> None:
    x = some_images(30)
    for image, turned in zip(x, turn(x), strict=True):
        assert any(torch.equal(s, turned) for s in symmetries(image))


def test_black_stays_black_and_nothing_leaves_the_range() -> None:
    x = some_images(16)
    x[:, :, 7] = 1.0
    stained = restain(x, 0.4)
    assert (stained[:, :, :2] == -1).all()
    assert stained.min() >= -1 and stained.max() <= 1
    assert (augment(torch.full((4, 3, 8, 8), -1.0)) == -1).all()


def test_stain_is_a_gain_per_channel_of_a_gamma_per_image() -> None:
    """log(out) = gamma * log(in) + log(gain): one slope per image, one offset per channel."""
    x = some_images(5)[:, :, 2:] * 0.5 - 0.4
    light, seen = (x + 1) / 2, (restain(x, 0.2) + 1) / 2
    for before, after in zip(light.log(), seen.log(), strict=True):
        slope = (after[:, 0, 1] - after[:, 0, 0]) / (before[:, 0, 1] - before[:, 0, 0])
        torch.testing.assert_close(slope, slope[:1].expand(3), rtol=1e-3, atol=1e-3)
        assert 0.8 <= slope[0] <= 1.2
        gain = (after - slope[0] * before).exp()
        torch.testing.assert_close(gain, gain[:, :1, :1].expand_as(gain), rtol=1e-3, atol=1e-3)
        assert gain.min() >= 0.8 - 1e-3 and gain.max() <= 1.2 + 1e-3
        assert gain[:, 0, 0].unique().numel() == 3


def test_no_stain_changes_nothing() -> None:
    x = some_images(4)
    torch.testing.assert_close(restain(x, 0.0), x)


@pytest.mark.parametrize("count", [0, 1, 9])
def test_seeded(count: int) -> None:
    x = some_images(count)
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(augment(x))
    assert made[0].shape == x.shape
    assert torch.equal(made[0], made[1])
    assert count == 0 or not torch.equal(made[0], made[2])


def test_the_input_is_left_alone() -> None:
    x = some_images(4)
    before = x.clone()
    augment(x)
    assert torch.equal(x, before)
