"""Augmentation: symmetries, turns, zoom, and stain that leaves black alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cotray.config import AugmentConfig
from cotray.features.augment import Augment

STILL = AugmentConfig(flips=False, stain=0.0)


def augment(x: Tensor, **settings: float) -> Tensor:
    out: Tensor = Augment(AugmentConfig.model_validate(settings))(x)
    return out


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


def test_flips_are_the_eight_symmetries_and_all_come() -> None:
    image = some_images(1)[0]
    turned = augment(image.expand(200, -1, -1, -1), stain=0.0)
    near = [[i for i, s in enumerate(symmetries(image)) if torch.allclose(s, t, atol=1e-4)] for t in turned]
    assert all(len(w) == 1 for w in near)
    counts = torch.bincount(torch.tensor(near).flatten(), minlength=8)
    assert (counts > 8).all()


def test_images_do_not_mix() -> None:
    x = some_images(30)
    for image, turned in zip(x, augment(x, stain=0.0), strict=True):
        assert any(torch.allclose(s, turned, atol=1e-4) for s in symmetries(image))


def test_black_stays_black_and_nothing_leaves_the_range() -> None:
    x = some_images(16)
    x[:, :, 7] = 1.0
    stained = augment(x, flips=False, stain=0.4, hue=0.1)
    assert (stained[:, :, :2] == -1).all()
    assert stained.min() >= -1 and stained.max() <= 1
    black = torch.full((4, 3, 8, 8), -1.0)
    assert torch.equal(augment(black, rotate=180, zoom=0.2, stain=0.3, hue=0.1), black)


def test_stain_is_drawn_for_each_image() -> None:
    grey = torch.full((12, 3, 8, 8), 0.2)
    levels = augment(grey, flips=False, stain=0.3)[:, 0, 0, 0]
    assert levels.unique().numel() == 12
    light, seen = 0.6, (levels + 1) / 2
    assert (seen >= light ** (1.3) * 0.7 - 1e-5).all() and (seen <= light ** (0.7) * 1.3 + 1e-5).all()


def test_hue_turns_without_stain() -> None:
    """Colours change, their largest and smallest channels (value and chroma) do not."""
    red = torch.tensor([0.4, -0.4, -0.8]).reshape(1, 3, 1, 1).expand(12, 3, 8, 8)
    turned = augment(red, flips=False, hue=0.1)
    assert turned[:, :, 0, 0].unique(dim=0).shape[0] == 12
    torch.testing.assert_close(turned.amax(1), red.amax(1), atol=1e-4, rtol=0)
    torch.testing.assert_close(turned.amin(1), red.amin(1), atol=1e-4, rtol=0)


def test_a_disc_turned_and_zoomed_is_a_disc_of_another_size() -> None:
    """What turning and zooming do, seen in a figure that turning leaves alone."""
    grid = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")) - 31.5
    disc = ((grid.square().sum(0) < 16**2).float() * 2 - 1).expand(30, 3, 64, 64)
    turned = augment(disc, flips=False, stain=0.0, rotate=180)
    area = float((disc[0, 0] > 0).sum())
    assert ((turned[:, 0] > 0).sum((1, 2)) - area).abs().max() < 0.05 * area
    zoomed = (augment(disc, flips=False, stain=0.0, zoom=0.3)[:, 0] > 0).sum((1, 2)) / area
    assert zoomed.min() > 0.45 and zoomed.max() < 1.75
    assert zoomed.min() < 0.8 and zoomed.max() > 1.2


def test_nothing_asked_nothing_changed() -> None:
    x = some_images(4)
    assert torch.equal(Augment(STILL)(x), x)


@pytest.mark.parametrize("count", [0, 1, 9])
def test_seeded(count: int) -> None:
    x = some_images(count)
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(augment(x, rotate=30, zoom=0.1, hue=0.02))
    assert made[0].shape == x.shape
    assert torch.equal(made[0], made[1])
    assert count == 0 or not torch.equal(made[0], made[2])


def test_the_input_is_left_alone() -> None:
    x = some_images(4)
    before = x.clone()
    augment(x)
    assert torch.equal(x, before)
