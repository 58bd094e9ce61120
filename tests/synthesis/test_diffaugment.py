from __future__ import annotations

import torch
from torch import Tensor

from cotray.synthesis.diffaugment import diff_augment, mirror, regain, translate


def cells(n: int = 32, side: int = 20) -> Tensor:
    """A bright, lopsided patch in the middle of black."""
    x = torch.full((n, 3, side, side), -1.0)
    x[:, :, 7:12, 6:11] = torch.linspace(-0.5, 0.4, 5)
    return x


def test_shapes_are_kept_and_black_stays_black() -> None:
    torch.manual_seed(0)
    black = torch.full((8, 3, 16, 16), -1.0)
    assert torch.allclose(diff_augment(black), black)
    assert diff_augment(cells()).shape == cells().shape


def test_the_gradient_flows_back_to_every_pixel_that_stays_in_view() -> None:
    torch.manual_seed(0)
    x = cells().requires_grad_()
    out = diff_augment(x)
    out[:, :, 2:-2, 2:-2].sum().backward()
    assert x.grad is not None
    reached = (x.grad != 0).float().mean(dim=(1, 2, 3))
    assert (reached == (16 / 20) ** 2).all(), "each pixel looked at comes from one pixel"


def test_the_gradient_is_the_gain() -> None:
    torch.manual_seed(0)
    x = cells(4).requires_grad_()
    torch.manual_seed(1)
    out = regain(x, 0.2)
    out.sum().backward()
    assert x.grad is not None
    gain = x.grad[:, 0, 0, 0]
    assert torch.allclose(out, (x + 1) * gain.view(-1, 1, 1, 1) - 1)
    assert ((gain - 1).abs() <= 0.2).all()


def test_mirroring_turns_about_half_and_nothing_else() -> None:
    torch.manual_seed(0)
    x = cells(200)
    out = mirror(x)
    turned = (out != x).flatten(1).any(dim=1)
    assert torch.equal(out[turned], x[turned].flip(3)) and torch.equal(out[~turned], x[~turned])
    assert 60 < turned.sum() < 140


def test_translation_shifts_up_to_its_share_with_black_moving_in() -> None:
    torch.manual_seed(0)
    x = cells(300)
    out = translate(x, 0.1)
    seen = set()
    for one in out:
        rows, columns = (one[0] > -1).nonzero().unbind(1)
        shift = (int(rows.min()) - 7, int(columns.min()) - 6)
        assert torch.equal(one, x[0].roll(shift, dims=(1, 2))), "the patch is whole, the rest black"
        seen.add(shift)
    assert seen == {(a, b) for a in range(-2, 3) for b in range(-2, 3)}


def test_the_same_seed_augments_alike() -> None:
    outs = []
    for seed in (4, 4, 5):
        torch.manual_seed(seed)
        outs.append(diff_augment(cells()))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
