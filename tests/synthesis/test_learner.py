from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from cotray.config import GanConfig, TrainConfig
from cotray.synthesis.learner import (
    FIXED_SEED,
    POOLED,
    SHOWN,
    LeuGanLearner,
    describe,
    energy_distance,
    to_gan_input,
    to_pixels,
)

TINY = GanConfig(
    image_size=32,
    channels=32,
    latent=16,
    spectral_norm=True,
    diffaugment=True,
    train=TrainConfig(lr=2e-3, batch_size=16, weight_decay=0.0),
)
PLAIN = TINY.model_copy(update={"spectral_norm": False, "diffaugment": False})


def cells(n: int, seed: int = 0) -> dict[str, Tensor]:
    """Violet discs of many sizes on black."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    r = rng.uniform(6, 13, (n, 1, 1))
    disc = ((x - 16) ** 2 + (y - 16) ** 2 < r * r)[..., None] * np.array([150, 70, 190])
    return {"image": torch.from_numpy(disc.astype(np.uint8))}


def prepared(cfg: GanConfig = TINY, seed: int = 0) -> LeuGanLearner:
    learner = LeuGanLearner(cfg, seed)
    learner.prepare(torch.device("cpu"), lambda net: net, 200)
    learner.set_train(True)
    return learner


def train(learner: LeuGanLearner, first: int, last: int) -> list[dict[str, float]]:
    """Steps ``first`` to ``last``, each seeded, so that a part can be repeated."""
    rows = []
    for step in range(first, last):
        torch.manual_seed(step)
        learner.schedule()
        rows.append(learner.train_step(cells(16, seed=step)))
    return rows


def same(a: dict[str, dict[str, Tensor]], b: dict[str, dict[str, Tensor]]) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(value, b[net][name]) for net in a for name, value in a[net].items())


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


# ---- training ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfg", [TINY, PLAIN])
def test_steps_move_both_networks_and_stay_finite(cfg: GanConfig) -> None:
    learner = prepared(cfg)
    before = learner.weights()
    rows = train(learner, 0, 4)
    after = learner.weights()
    for row in rows:
        assert all(np.isfinite(list(row.values())))
        assert row["loss"] == pytest.approx(row["loss_d"] + row["loss_g"])
        assert 0 < row["real_score"] < 1
    for net in ("generator", "discriminator"):
        weights = [name for name, _ in learner.nets[net].named_parameters()]
        moved = [not torch.equal(before[net][name], after[net][name]) for name in weights]
        assert all(moved), "every weight learns"


def test_the_discriminator_s_step_leaves_the_generator_alone() -> None:
    learner = prepared(PLAIN)
    for group in learner.optimizers["generator"].param_groups:
        group["lr"] = group["base_lr"] = 0.0
    before = dict(learner.nets["generator"].named_parameters())
    kept = {name: value.detach().clone() for name, value in before.items()}
    train(learner, 0, 2)
    assert all(torch.equal(value, kept[name]) for name, value in before.items())


def test_losses_are_the_non_saturating_form_of_equation_2() -> None:
    learner = prepared(PLAIN.model_copy(update={"train": TrainConfig(lr=1e-12, weight_decay=0.0)}))
    batch = cells(8)
    torch.manual_seed(0)
    z = torch.rand(8, 16) * 2 - 1
    with torch.no_grad():
        fake = learner.nets["generator"](z)
        d_real = learner.nets["discriminator"](to_gan_input(batch["image"])).sigmoid()
        d_fake = learner.nets["discriminator"](fake).sigmoid()
    torch.manual_seed(0)
    row = learner.train_step(batch)
    assert row["loss_d"] == pytest.approx(float(-d_real.log().mean() - (1 - d_fake).log().mean()), rel=1e-4)
    assert row["loss_g"] == pytest.approx(float(-d_fake.log().mean()), rel=1e-4)
    assert row["real_score"] == pytest.approx(float(d_real.mean()), rel=1e-4)


def test_equation_1_turns_a_logit_into_a_probability_and_equation_2_is_what_is_played_for() -> None:
    """V(D, G) of Eq. 2 from D = e^o / (1 + e^o) of Eq. 1: the discriminator's loss is -V."""
    learner = prepared(PLAIN.model_copy(update={"train": TrainConfig(lr=1e-12, weight_decay=0.0)}))
    batch = cells(8)
    torch.manual_seed(1)
    z = torch.rand(8, 16) * 2 - 1
    with torch.no_grad():
        judged = [
            learner.nets["discriminator"](x)
            for x in (to_gan_input(batch["image"]), learner.nets["generator"](z))
        ]
    real, fake = (np.exp(o.double().numpy()) / (1 + np.exp(o.double().numpy())) for o in judged)
    torch.manual_seed(1)
    row = learner.train_step(batch)
    assert row["real_score"] == pytest.approx(real.mean(), rel=1e-4)
    assert row["loss_d"] == pytest.approx(-(np.log(real).mean() + np.log(1 - fake).mean()), rel=1e-4)


def test_training_brings_drawn_cells_nearer_to_real_ones() -> None:
    learner, held = prepared(), cells(32, seed=99)

    def distance() -> float:
        learner.set_train(False)
        score = learner.score(learner.predict_step(held))["val_distance"]
        learner.set_train(True)
        return score

    before = distance()
    train(learner, 0, 80)
    assert distance() < 0.85 * before


def test_the_same_seed_trains_the_same_weights() -> None:
    nets = []
    for seed in (1, 1, 2):
        learner = prepared(seed=seed)
        train(learner, 0, 2)
        nets.append(learner.weights())
    assert same(nets[0], nets[1])
    assert not same(nets[0], nets[2])


@pytest.mark.parametrize("cfg", [TINY, PLAIN])
def test_a_continued_training_is_the_unbroken_one(cfg: GanConfig) -> None:
    whole, first, second = prepared(cfg), prepared(cfg), prepared(cfg, seed=8)
    train(whole, 0, 6)
    train(first, 0, 3)
    second.load_state_dict(through_a_file(first.state_dict()))
    assert second.step == 3
    train(second, 3, 6)
    assert same(whole.weights(), second.weights())


# ---- validation ----------------------------------------------------------------------------------------


def test_validation_repeats_itself_and_draws_anew_for_each_batch() -> None:
    learner = prepared()
    learner.set_train(False)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one, again, other = (learner.predict_step(cells(6, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert one["fake"].shape == one["real"].shape == (6, 6 * POOLED**2)
    assert torch.equal(one["fake"], again["fake"])
    assert torch.cdist(one["fake"], other["fake"]).min() > 0


def test_a_picture_shows_what_the_same_latents_give_and_follows_the_training() -> None:
    learner = prepared()
    learner.set_train(False)
    state = torch.get_rng_state()
    before = learner.preview()
    assert before.shape == (SHOWN[0] * 32, SHOWN[1] * 32, 3) and before.dtype == np.uint8
    assert np.array_equal(before, learner.preview())
    assert torch.equal(torch.get_rng_state(), state)
    latent = torch.Generator().manual_seed(FIXED_SEED)
    with torch.no_grad():
        cells = learner.nets["generator"](torch.rand((16, 16), generator=latent) * 2 - 1)
    ninth = before[32:64, :32]  # rows are filled one after the other
    assert np.array_equal(ninth, to_pixels(cells)[SHOWN[1]])
    learner.set_train(True)
    train(learner, 0, 3)
    learner.set_train(False)
    assert not np.array_equal(before, learner.preview())


def test_descriptors_are_means_and_deviations_of_squares() -> None:
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    blocks = x.numpy().reshape(2, 3, POOLED, 4, POOLED, 4)
    mean, deviation = blocks.mean(axis=(3, 5)), blocks.std(axis=(3, 5))
    wanted = np.concatenate([mean, deviation], axis=1).reshape(2, -1)
    assert describe(x).numpy() == pytest.approx(wanted, abs=1e-5)
    assert torch.isfinite(describe(torch.full((1, 3, 32, 32), -1.0))).all()


def test_energy_distance_against_numpy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 384)), rng.normal(0.3, 1.2, (30, 384))
    wanted = 2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean()
    found = energy_distance(torch.from_numpy(a).float(), torch.from_numpy(b).float())
    assert found == pytest.approx(wanted, rel=1e-3)
    assert energy_distance(torch.from_numpy(a), torch.from_numpy(a)) == 0.0


def test_pixels_become_minus_one_to_one_with_channels_first() -> None:
    image = torch.tensor([[[[0, 51, 255], [0, 51, 255]]]], dtype=torch.uint8)
    x = to_gan_input(image)
    assert np.array_equal(to_pixels(x), image.numpy())
    assert x.shape == (1, 3, 1, 2)
    torch.testing.assert_close(x[0, :, 0, 0], torch.tensor([-1.0, -0.6, 1.0]))
