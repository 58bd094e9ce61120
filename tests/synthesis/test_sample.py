from __future__ import annotations

import numpy as np
import pytest
import torch

from cotray.config import GanConfig
from cotray.synthesis.leugan import Generator
from cotray.synthesis.sample import BATCH, synthesize

TINY = GanConfig(image_size=32, channels=32, latent=16)


@pytest.fixture(scope="module")
def generator() -> Generator:
    """Fresh weights, with the contrast of trained ones."""
    torch.manual_seed(0)
    fresh = Generator(TINY).eval()
    with torch.no_grad():
        fresh.up[-2].weight.mul_(20)
    return fresh


def test_cells_are_uint8_pictures(generator: Generator) -> None:
    cells = synthesize(generator, 5, seed=1)
    assert cells.shape == (5, 32, 32, 3) and cells.dtype == np.uint8
    assert len(np.unique(cells)) > 100
    assert not np.array_equal(cells[0], cells[1])


def test_no_cells_are_an_empty_stack(generator: Generator) -> None:
    cells = synthesize(generator, 0, seed=1)
    assert cells.shape == (0, 32, 32, 3) and cells.dtype == np.uint8


def test_minus_one_is_black_and_one_is_white(generator: Generator) -> None:
    for value, grey in ((-9.0, 0), (0.0, 128), (9.0, 255)):
        flat = Generator(TINY).eval()
        with torch.no_grad():
            flat.up[-2].weight.zero_()
            flat.up[-2].bias.fill_(value)
        assert (synthesize(flat, 1, seed=0) == grey).all()


def test_the_seed_decides_and_the_global_generator_does_not(generator: Generator) -> None:
    torch.manual_seed(1)
    first = synthesize(generator, 6, seed=3)
    state = torch.get_rng_state()
    assert np.array_equal(first, synthesize(generator, 6, seed=3))
    assert torch.equal(torch.get_rng_state(), state)
    assert not np.array_equal(first, synthesize(generator, 6, seed=4))


def test_whole_batches_do_not_depend_on_how_many_are_drawn(generator: Generator) -> None:
    many = synthesize(generator, 2 * BATCH + 7, seed=5)
    assert len(many) == 2 * BATCH + 7
    for k in (BATCH, 2 * BATCH):
        assert np.array_equal(many[:k], synthesize(generator, k, seed=5))


@pytest.mark.parametrize("k", [1, 10, BATCH + 3])
def test_a_part_of_a_batch_is_the_same_up_to_one_grey_level(generator: Generator, k: int) -> None:
    many, few = synthesize(generator, 2 * BATCH, seed=5), synthesize(generator, k, seed=5)
    assert np.abs(many[:k].astype(int) - few).max() <= 1


def test_cells_of_one_draw_all_differ(generator: Generator) -> None:
    cells = synthesize(generator, 2 * BATCH, seed=5)
    assert len(np.unique(cells.reshape(len(cells), -1), axis=0)) == len(cells)
