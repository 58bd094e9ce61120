"""Training the backbone: it learns, repeats, and goes on from a saved state."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor

from cotray.config import BackboneConfig
from cotray.features.learner import BackboneLearner, to_input

SMALL: dict[str, Any] = {
    "image_size": 32,
    "patch": 4,
    "layers": 1,
    "heads": 2,
    "smod": {"filters": (8, 8, 16, 16, 16)},
}


def learner_of(seed: int = 0, total: int = 20, **settings: Any) -> BackboneLearner:
    """A prepared learner on 32 px, ready for so many steps."""
    cfg = BackboneConfig.model_validate({**SMALL, "train": {"lr": 3e-3}, **settings})
    learner = BackboneLearner(cfg, seed, (1.0, 1.0))
    learner.prepare(torch.device("cpu"), lambda net: net, total_steps=total)
    return learner


def toy(count: int, seed: int) -> dict[str, Tensor]:
    """Discs on black: bright (1) or dark (0) in the centre, noise around it."""
    draw = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % 2
    image = torch.randint(40, 120, (count, 32, 32, 3), generator=draw)
    image[:, 10:22, 10:22] = torch.where(label > 0, 200, 60)[:, None, None, None]
    return {"image": image.to(torch.uint8), "label": label}


def steps(learner: BackboneLearner, first: int, last: int) -> list[float]:
    """Training steps [first, last), each seeded as the harness does an epoch; their losses."""
    losses = []
    learner.set_train(True)
    for step in range(first, last):
        torch.manual_seed(step)
        learner.schedule()
        losses.append(learner.train_step(toy(16, step))["loss"])
    return losses


def evaluate(learner: BackboneLearner) -> dict[str, float]:
    learner.set_train(False)
    return learner.score(learner.predict_step(toy(40, 1000)))


def test_to_input() -> None:
    image = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    image[0, 0, 1] = torch.tensor([255, 0, 51])
    x = to_input(image)
    assert x.shape == (1, 3, 2, 2)
    torch.testing.assert_close(x[0, :, 0, 1], torch.tensor([1.0, -1.0, -0.6]))
    assert (x[0, :, 1] == -1).all()


@pytest.mark.parametrize("name", ["cotconet", "gmod"])
def test_learns_bright_from_dark_centres(name: str) -> None:
    learner = learner_of(name=name, total=40)  # after 20 an eighth of batch norm's first statistics is left
    before = evaluate(learner)
    losses = steps(learner, 0, 40)
    after = evaluate(learner)
    assert after["val_balanced_accuracy"] >= 0.95
    assert after["val_loss"] < 0.7 * before["val_loss"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("augment", [True, False])
def test_augmentation_follows_the_global_generator_and_its_switch(augment: bool) -> None:
    settings = {} if augment else {"flips": False, "stain": 0.0}
    still = {"augment": settings, "gmod_dropout": 0.0, "smod": {**SMALL["smod"], "dropout": 0.0}}
    losses = []
    for seed in (1, 1, 2):
        learner = learner_of(**still)
        torch.manual_seed(seed)
        losses.append(learner.train_step(toy(8, 0))["loss"])
    assert losses[0] == losses[1]
    assert (losses[0] != losses[2]) == augment


def test_deterministic_by_seed() -> None:
    first, again, other = (steps(learner_of(seed), 0, 3) for seed in (4, 4, 5))
    assert first == again
    assert first != other


def test_building_leaves_the_global_generator() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    learner_of()
    assert torch.equal(torch.get_rng_state(), before)


def test_goes_on_exactly_from_a_saved_state() -> None:
    whole = learner_of()
    losses = steps(whole, 0, 6)
    begun = learner_of()
    steps(begun, 0, 3)
    file = io.BytesIO()
    torch.save(begun.state_dict(), file)
    file.seek(0)
    resumed = learner_of(seed=9)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert steps(resumed, 3, 6) == losses[3:]
    for name, value in whole.weights()["backbone"].items():
        assert torch.equal(resumed.weights()["backbone"][name], value), name


def test_prediction_does_not_train_or_augment() -> None:
    learner = learner_of()
    learner.set_train(False)
    before = learner.weights()["backbone"]
    out = learner.predict_step(toy(6, 0))
    assert out["logit"].shape == (6,) and not out["logit"].requires_grad
    assert torch.equal(out["label"], toy(6, 0)["label"])
    assert torch.equal(learner.predict_step(toy(6, 0))["logit"], out["logit"])
    assert all(torch.equal(value, before[name]) for name, value in learner.weights()["backbone"].items())


def test_a_cells_logit_does_not_depend_on_its_batch() -> None:
    learner = learner_of()
    steps(learner, 0, 2)
    learner.set_train(False)
    batch = toy(6, 0)
    alone = [learner.predict_step({k: v[i : i + 1] for k, v in batch.items()})["logit"] for i in range(6)]
    torch.testing.assert_close(torch.cat(alone), learner.predict_step(batch)["logit"], atol=1e-5, rtol=1e-4)
