"""Training HDLC: it learns, repeats, and goes on from a saved state."""

from __future__ import annotations

import io

import torch
from torch import Tensor

from cotray.classification.learner import HdlcLearner
from cotray.config import HdlcConfig

WIDTH = 12


def learner_of(seed: int = 0, class_weight: tuple[float, float] = (1.0, 1.0)) -> HdlcLearner:
    """A prepared learner, ready for 60 steps."""
    cfg = HdlcConfig.model_validate({"filters": 8, "hidden": (32, 16, 16, 8, 8), "train": {"lr": 5e-3}})
    learner = HdlcLearner(cfg, WIDTH, seed, class_weight)
    learner.prepare(torch.device("cpu"), lambda net: net, total_steps=60)
    return learner


def toy(count: int, seed: int, apart: float = 2.0) -> dict[str, Tensor]:
    """Three features of twelve tell the classes apart."""
    draw = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % 2
    feature = torch.randn(count, WIDTH, generator=draw)
    feature[:, :3] += apart * (2 * label[:, None] - 1)
    return {"feature": feature, "label": label}


def steps(learner: HdlcLearner, first: int, last: int, apart: float = 2.0) -> list[float]:
    losses = []
    learner.set_train(True)
    for step in range(first, last):
        torch.manual_seed(step)
        learner.schedule()
        losses.append(learner.train_step(toy(32, step, apart))["loss"])
    return losses


def test_learns_what_can_be_learned() -> None:
    learner = learner_of()
    steps(learner, 0, 60)
    learner.set_train(False)
    scores = learner.score(learner.predict_step(toy(400, 1000)))
    assert scores["val_balanced_accuracy"] > 0.97
    assert scores["val_loss"] < 0.2


def test_class_weight_moves_the_balance() -> None:
    """Where nothing can be learned, the heavier class is called."""
    called = []
    for weight in ((1.0, 6.0), (6.0, 1.0)):
        learner = learner_of(class_weight=weight)
        steps(learner, 0, 40, apart=0.0)
        learner.set_train(False)
        called.append(float((learner.predict_step(toy(200, 1000, 0.0))["logit"] > 0).float().mean()))
    assert called[0] > 0.9 and called[1] < 0.1


def test_deterministic_by_seed() -> None:
    first, again, other = (steps(learner_of(seed), 0, 4) for seed in (4, 4, 5))
    assert first == again
    assert first != other


def test_building_leaves_the_global_generator() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    learner_of()
    assert torch.equal(torch.get_rng_state(), before)


def test_goes_on_exactly_from_a_saved_state() -> None:
    whole = learner_of()
    losses = steps(whole, 0, 8)
    begun = learner_of()
    steps(begun, 0, 5)
    file = io.BytesIO()
    torch.save(begun.state_dict(), file)
    file.seek(0)
    resumed = learner_of(seed=9)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert steps(resumed, 5, 8) == losses[5:]
    for name, value in whole.weights()["hdlc"].items():
        assert torch.equal(resumed.weights()["hdlc"][name], value), name


def test_prediction_gives_a_logit_and_the_label_per_cell() -> None:
    learner = learner_of()
    learner.set_train(False)
    batch = toy(7, 0)
    out = learner.predict_step(batch)
    assert out["logit"].shape == (7,) and not out["logit"].requires_grad
    assert torch.equal(out["label"], batch["label"])
    alone = [learner.predict_step({k: v[i : i + 1] for k, v in batch.items()})["logit"] for i in range(7)]
    torch.testing.assert_close(torch.cat(alone), out["logit"])
