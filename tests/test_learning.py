from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cotray.errors import WeightsError
from cotray.learning import (
    Batch,
    Learner,
    cosine_lr,
    derive_seed,
    mixed_precision,
    unwrap,
    weighted_bce,
    weighted_scores,
)

TOTAL = 12
KNOWN = [6375474603054492659, 7771707182580296983, 4364296219085981014]


class Probe(Learner):
    """A line with dropout and momentum: whatever is not restored shows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.nets = {
            "net": nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 1))
        }

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"net": torch.optim.AdamW(self.nets["net"].parameters(), lr=0.05)}

    def train_step(self, batch: Batch) -> dict[str, float]:
        self.schedule(0.25)
        loss = weighted_bce(self.nets["net"](batch["x"])[:, 0], batch["y"], (1.0, 2.0)).mean()
        self.minimise("net", loss, grad_clip=1.0)
        return {"loss": float(loss.detach())}

    @torch.no_grad()
    def predict_step(self, batch: Batch) -> dict[str, Tensor]:
        return {"logit": self.nets["net"](batch["x"])[:, 0], "y": batch["y"]}

    def score(self, outputs: Mapping[str, Tensor]) -> dict[str, float]:
        return weighted_scores(outputs["logit"], outputs["y"], (1.0, 2.0))


def prepared() -> Probe:
    learner = Probe()
    learner.prepare(torch.device("cpu"), lambda net: net, TOTAL)
    return learner


def train(learner: Probe, first: int, last: int) -> list[float]:
    """Steps as the harness takes them: the global generator is seeded from the place in the run."""
    losses = []
    learner.set_train(True)
    for step in range(first, last):
        torch.manual_seed(derive_seed(3, step))
        x = torch.randn(16, 4)
        losses.append(learner.train_step({"x": x, "y": (x[:, 0] > 0).long()})["loss"])
    return losses


# ---- seeds -----------------------------------------------------------------------------------------


def test_seeds_are_stable_across_versions() -> None:
    assert derive_seed(0) == derive_seed(0)
    assert [derive_seed(0), derive_seed(7, 1), derive_seed(7, 1, 2)] == KNOWN


def test_seeds_differ_by_run_place_and_depth() -> None:
    keys = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)]
    seeds = {derive_seed(run, *key) for run in range(20) for key in keys}
    assert len(seeds) == 20 * len(keys)


@given(st.integers(0, 2**64), st.lists(st.integers(0, 2**31), max_size=3))
def test_seeds_fit_63_bits(seed: int, key: list[int]) -> None:
    assert 0 <= derive_seed(seed, *key) < 2**63


# ---- schedule --------------------------------------------------------------------------------------


@given(st.integers(1, 500), st.integers(0, 100), st.integers(0, 700))
def test_the_rate_is_a_line_up_and_half_a_cosine_down(total: int, warmup: int, step: int) -> None:
    rate = cosine_lr(step, total, warmup)
    if step < warmup:
        assert rate == pytest.approx((step + 1) / warmup)
    else:
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        assert rate == pytest.approx((1 + math.cos(math.pi * progress)) / 2)
    assert 0 <= rate <= 1


def test_the_rate_peaks_after_the_warm_up_and_ends_at_nothing() -> None:
    rates = [cosine_lr(step, 100, 10) for step in range(101)]
    assert rates[:11] == pytest.approx([(i + 1) / 10 for i in range(10)] + [1.0])
    assert rates[55] == pytest.approx(0.5) and rates[100] == pytest.approx(0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert cosine_lr(5000, 100, 10) == pytest.approx(0)


def test_a_learners_schedule_follows_the_steps() -> None:
    learner = prepared()
    seen = []
    for _ in range(TOTAL):
        learner.schedule(0.25)
        seen.append(learner.optimizers["net"].param_groups[0]["lr"])
    assert seen == pytest.approx([0.05 * cosine_lr(step, TOTAL, 3) for step in range(TOTAL)])


# ---- losses and scores -----------------------------------------------------------------------------


def test_the_loss_is_weighted_by_class_and_smoothed() -> None:
    logit, label = torch.tensor([0.0, 2.0, -1.0]), torch.tensor([0, 1, 1])
    expected = [
        0.5 * math.log(2),
        3 * (0.9 * math.log1p(math.exp(-2)) + 0.1 * math.log1p(math.exp(2))),
        3 * (0.9 * math.log1p(math.exp(1)) + 0.1 * math.log1p(math.exp(-1))),
    ]
    plain = weighted_bce(logit, label, (0.5, 3.0), smoothing=0.2)
    assert plain.tolist() == pytest.approx(expected, rel=1e-5)


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_there_are() -> None:
    logit = torch.tensor([-1.0, -2.0, 1.0, 1.0])
    scores = weighted_scores(logit, torch.tensor([0, 0, 0, 1]), (1.0, 1.0))
    assert scores["val_balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    alone = weighted_scores(logit, torch.tensor([0, 0, 0, 0]), (1.0, 1.0))
    assert alone["val_balanced_accuracy"] == pytest.approx(0.5)


# ---- resume ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 5, 11])
def test_a_resumed_learner_goes_on_as_if_nothing_had_happened(cut: int) -> None:
    whole = prepared()
    losses = train(whole, 0, TOTAL)
    first = prepared()
    begun = train(first, 0, cut)
    state = first.state_dict()
    train(first, cut, TOTAL)  # what is kept must not follow the learner that goes on
    second = prepared()
    train(second, 0, 2)  # nor depend on what the new one did before
    second.load_state_dict(state)
    assert begun + train(second, cut, TOTAL) == losses
    for name, value in whole.weights()["net"].items():
        torch.testing.assert_close(second.weights()["net"][name], value, rtol=0, atol=0)
    assert second.step == whole.step == TOTAL


# ---- batches in pieces, mixed precision ------------------------------------------------------------


class Pair(Learner):
    """Two networks, one of which is seen through the other, as a GAN's are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.nets = {"a": nn.Linear(4, 3), "b": nn.Linear(3, 1)}

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {name: torch.optim.SGD(net.parameters(), lr=0.5) for name, net in self.nets.items()}

    def train_step(self, batch: Batch) -> dict[str, float]:
        made = self.nets["a"](batch["x"])
        loss = self.nets["b"](made)[:, 0].tanh().mean()
        wish = (self.nets["b"](made.detach())[:, 0] - 1).square().mean()
        self.minimise("a", loss, grad_clip=0.3)  # leaves gradients in b that are not b's to follow
        self.minimise("b", wish, grad_clip=0.3)
        return {"loss": float(loss.detach())}

    def predict_step(self, batch: Batch) -> dict[str, Tensor]:
        return {}

    def score(self, outputs: Mapping[str, Tensor]) -> dict[str, float]:
        return {}


def after_three_steps(sizes: list[int]) -> list[Tensor]:
    learner = Pair()
    learner.prepare(torch.device("cpu"), lambda net: net, 1)
    batches = torch.randn(3, 10, 4, generator=torch.Generator().manual_seed(2))
    for batch in batches:
        for number, piece in enumerate(batch.split(sizes)):
            learner.begin_piece(len(piece) / len(batch), last=number == len(sizes) - 1)
            learner.train_step({"x": piece})
    return [p.detach() for net in learner.nets.values() for p in net.parameters()]


@pytest.mark.parametrize("sizes", [[5, 5], [3, 3, 3, 1], [9, 1]])
def test_a_batch_in_pieces_makes_the_step_of_the_whole(sizes: list[int]) -> None:
    whole, pieces = after_three_steps([10]), after_three_steps(sizes)
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-6)
    assert not torch.allclose(whole[0], Pair().nets["a"].weight, atol=1e-3), "three steps move the weights"


def test_mixed_precision_is_automatic_where_the_cpu_has_it_in_hardware() -> None:
    flags = Path("/proc/cpuinfo")
    text = flags.read_text() if flags.is_file() else ""
    fast = "amx_bf16" in text or "avx512_bf16" in text
    cpu = torch.device("cpu")
    asked = [mixed_precision(precision, cpu) for precision in ("auto", "fp32", "bf16")]
    assert asked == [fast, False, True]
    assert not mixed_precision("auto", cpu, cpu_bf16=False), "a model that does not gain from it"


def test_training_learns_and_scores() -> None:
    torch.manual_seed(1)
    x = torch.randn(200, 4)
    batch = {"x": x, "y": (x[:, 0] > 0).long()}
    learner = prepared()
    learner.set_train(False)
    before = learner.score(learner.predict_step(batch))
    train(learner, 0, TOTAL)
    learner.set_train(False)
    after = learner.score(learner.predict_step(batch))
    assert after["val_loss"] < before["val_loss"] and after["val_balanced_accuracy"] > 0.6


def test_weights_are_a_copy_and_fit_a_wrapped_network() -> None:
    learner = prepared()
    kept = learner.weights()
    train(learner, 0, 2)
    assert not torch.equal(kept["net"]["0.weight"], learner.weights()["net"]["0.weight"])
    wrapped = Probe()
    wrapped.prepare(torch.device("cpu"), Wrapped, TOTAL)
    wrapped.load_weights(kept)
    assert isinstance(unwrap(wrapped.nets["net"]), nn.Sequential)
    torch.testing.assert_close(wrapped.weights(), kept)


class Wrapped(nn.Module):
    """What DDP is to a network: the same, inside ``module``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def test_weights_that_do_not_fit_are_refused() -> None:
    learner = prepared()
    with pytest.raises(WeightsError, match="'net'"):
        learner.load_weights({})
    wrong = {"net": {**learner.weights()["net"], "0.weight": torch.zeros(2, 2)}}
    with pytest.raises(WeightsError, match=r"'net'[\s\S]*same preset"):
        learner.load_weights(wrong)


def test_gradients_are_clipped() -> None:
    learner = prepared()
    net = learner.nets["net"]
    learner.minimise("net", 1e6 * net(torch.randn(8, 4)).sum(), grad_clip=0.5)
    norm = torch.stack([p.grad.norm() for p in net.parameters() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(0.5, rel=1e-3)
