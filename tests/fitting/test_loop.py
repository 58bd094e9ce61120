"""The training loop in this process; tests/stages/test_training.py drives it under Ray Train."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import PlainLearner, ToyLearner, toy_arrays

from cotray.config import TrainConfig
from cotray.errors import MemoryShortageError, NonFiniteLossError, TrainingError
from cotray.fitting.job import CachedFeed, Job
from cotray.fitting.loop import Fit, Place, Row, fit_here
from cotray.learning import Weights, cosine_lr


def job(toy: type[ToyLearner] = ToyLearner, settings: dict[str, object] | None = None, **more: int) -> Job:
    config = TrainConfig(epochs=6, batch_size=16).model_copy(update=settings or {})
    build = functools.partial(toy, 3, **more)
    return Job("toy", build, toy_arrays(100, 0), toy_arrays(40, 1), config, seed=5)


def begun(made: Job, **place: object) -> Fit:
    return Fit(made, CachedFeed(made, made.train, made.valid), Place(**place))


def untimed(history: list[Row]) -> list[Row]:
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in history]


def test_learns_and_keeps_the_best_epoch() -> None:
    weights, history = fit_here(job())
    losses = [row["val_loss"] for row in history]
    assert len(losses) == 6 and losses[-1] < 0.8 * losses[0]
    net = ToyLearner(0)
    net.load_weights(weights)
    net.set_train(False)
    valid = {key: torch.from_numpy(value) for key, value in toy_arrays(40, 1).items()}
    assert net.score(net.predict_step(valid))["val_loss"] == pytest.approx(min(losses), abs=1e-6)


class LuckyLearner(ToyLearner):
    """Validates by luck in its second epoch."""

    told = (0.9, 0.1, 0.9, 0.5, 0.4, 0.3)

    def score(self, outputs: Mapping[str, Tensor]) -> dict[str, float]:
        epoch = round(self.step / 7)  # 100 items in batches of 16
        return {**super().score(outputs), "val_loss": self.told[epoch - 1]}


@pytest.mark.parametrize(("smooth", "kept"), [(1, 2), (2, 6), (6, 6)])
def test_epochs_before_it_have_a_say_in_which_is_the_best(smooth: int, kept: int) -> None:
    fit, weights = begun(job(LuckyLearner, {"smooth": smooth})), []
    while not fit.finished:
        fit.epoch()
        weights.append(fit.learner.snapshot())
    assert fit.best is not None and fit.best["epoch"] == kept
    torch.testing.assert_close(fit.best["weights"], weights[kept - 1], rtol=0, atol=0)


@pytest.mark.parametrize(
    "settings", [{}, {"ema": 0.9}, {"classes": "sample"}, {"accumulate": 2}, {"smooth": 4}]
)
def test_goes_on_exactly_from_a_checkpoint(settings: dict[str, object]) -> None:
    unbroken = begun(job(settings=settings))
    while not unbroken.finished:
        unbroken.epoch()
    first = begun(job(settings=settings))
    for _ in range(3):
        first.epoch()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    again = begun(job(settings=settings))
    again.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    while not again.finished:
        again.epoch()
    assert untimed(again.history) == untimed(unbroken.history)
    assert again.best is not None and unbroken.best is not None
    torch.testing.assert_close(again.best, unbroken.best, rtol=0, atol=0)


class PictureLearner(ToyLearner):
    """Shows its first weights, bit by bit."""

    def preview(self) -> np.ndarray:
        weight = self.nets["net"][0].weight.detach().numpy()
        return np.frombuffer(weight.tobytes(), np.uint8)[:24].reshape(2, 4, 3)


def test_pictures_come_every_so_many_epochs_and_of_the_first_and_last() -> None:
    made = dataclasses.replace(job(PictureLearner), preview_every=2)
    shown = []
    for rank in (0, 1):
        fit = begun(made, rank=rank)
        while not fit.finished:
            epoch = int(fit.epoch()["epoch"])
            shown += [(rank, epoch)] if fit.picture is not None else []
    assert shown == [(0, 1), (0, 2), (0, 4), (0, 6)], "of rank 0 alone"
    plain = begun(job(PictureLearner))
    plain.epoch()
    assert plain.picture is None, "nobody asked"


def test_a_picture_is_of_the_averaged_weights() -> None:
    made = dataclasses.replace(job(PictureLearner, {"ema": 0.99, "epochs": 1}), preview_every=1)
    fit = begun(made)
    fit.epoch()
    assert fit.average is not None and fit.picture is not None
    live = fit.learner.preview()
    with fit.average.applied():
        assert np.array_equal(fit.picture, fit.learner.preview())
    assert not np.array_equal(fit.picture, live)


def test_a_learner_without_pictures_shows_none() -> None:
    fit = begun(dataclasses.replace(job(), preview_every=1))
    fit.epoch()
    assert fit.picture is None


def test_stops_early_when_validation_does_not_improve() -> None:
    _, history = fit_here(job(settings={"epochs": 60, "patience": 2}))
    losses = [row["val_loss"] for row in history]
    assert len(losses) < 60
    assert losses.index(min(losses)) == len(losses) - 3


def test_the_rate_warms_up_and_falls_as_configured() -> None:
    told: list[Row] = []
    fit = begun(job(settings={"epochs": 2, "warmup": 0.5}), tell=told.append)  # seven steps an epoch
    fit.epoch(), fit.epoch()
    assert [row["step"] for row in told] == list(range(1, 15))
    assert [row["lr"] for row in told] == pytest.approx([0.05 * cosine_lr(step, 14, 7) for step in range(14)])
    assert all(row["loss"] > 0 for row in told)


def plainly(**settings: object) -> tuple[Weights, list[Row]]:
    return fit_here(job(PlainLearner, {"epochs": 3, "batch_size": 24, "precision": "fp32", **settings}))


def test_accumulated_batches_step_as_one_large_batch() -> None:
    whole, history = plainly()  # 100 items: four batches of 24 and one of 4
    pieces, others = plainly(batch_size=8, accumulate=3)
    for row, other in zip(history, others, strict=True):
        assert other["loss"] == pytest.approx(row["loss"], abs=1e-5)
        assert other["items"] < row["items"] / 2
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-5)


def test_mixed_precision_computes_in_bf16_and_validates_in_fp32() -> None:
    weights, history = plainly(precision="bf16")
    assert [row["half"] for row in history] == [1.0] * 3
    assert weights["net"]["0.weight"].dtype is torch.float32
    assert history[-1]["val_loss"] < history[0]["val_loss"]
    net = PlainLearner(0)
    net.load_weights(weights)
    valid = {key: torch.from_numpy(value) for key, value in toy_arrays(40, 1).items()}
    best = min(row["val_loss"] for row in history)
    assert net.score(net.predict_step(valid))["val_loss"] == pytest.approx(best, abs=1e-6)


def test_no_validation_split_is_tolerated() -> None:
    made = job()
    _, history = fit_here(Job("toy", made.build, made.train, {}, made.config, 5))
    assert len(history) == 6 and "val_loss" not in history[0]


# ---- the moving average --------------------------------------------------------------------------------


def test_the_average_is_what_is_validated_and_kept() -> None:
    fit = begun(job(PlainLearner, {"ema": 0.9, "epochs": 1}))
    means = {key: tensor.clone() for key, tensor in fit.learner.weights()["net"].items()}

    def follow(row: Row) -> None:  # the average by its definition, as an independent reference
        step = int(row["step"])
        decay = min(0.9, (1 + step) / (10 + step))
        for key, tensor in fit.learner.weights()["net"].items():
            means[key] = decay * means[key] + (1 - decay) * tensor

    object.__setattr__(fit.place, "tell", follow)
    row = fit.epoch()
    assert fit.best is not None
    torch.testing.assert_close(fit.best["weights"]["net"], means)
    live = fit.learner.weights()["net"]
    assert not torch.allclose(live["0.weight"], means["0.weight"])  # training goes on from its own weights
    net = PlainLearner(0)
    net.load_weights({"net": means})
    valid = {key: torch.from_numpy(value) for key, value in toy_arrays(40, 1).items()}
    assert row["val_loss"] == pytest.approx(net.score(net.predict_step(valid))["val_loss"], abs=1e-6)


# ---- what goes wrong -----------------------------------------------------------------------------------


def test_nan_names_model_epoch_and_step_and_leaves_the_last_good_state() -> None:
    fit = begun(job(poison=10))  # seven steps an epoch: the third of the second
    fit.epoch()
    good = fit.state_dict()
    with pytest.raises(NonFiniteLossError, match=r"loss of toy became nan in epoch 2, step 3 of 7"):
        fit.epoch()
    assert len(fit.history) == 1
    assert fit.best is not None
    torch.testing.assert_close(fit.best["weights"], good["best"]["weights"])


def test_memory_running_out_halves_batches_and_changes_no_step() -> None:
    exact = {"precision": "fp32"}
    roomy, history = fit_here(job(PlainLearner, exact))
    made = job(PlainLearner, exact, most=5)  # batches of 16 fit as four pieces of 4
    fit = begun(made)
    while not fit.finished:
        fit.epoch()
    assert fit.cuts == 4
    assert fit.best is not None
    torch.testing.assert_close(fit.best["weights"], roomy, rtol=0, atol=1e-5)
    assert [row["val_loss"] for row in fit.history] == pytest.approx([row["val_loss"] for row in history])
    assert fit.state_dict()["cuts"] == 4  # a continued run does not try it all again


def test_halving_repeats_dropout_as_if_it_had_been_known() -> None:
    found = begun(job(most=8))
    known = begun(job(most=8), cuts=2)
    assert untimed([found.epoch()]) == untimed([known.epoch()])
    assert found.cuts == known.cuts == 2


def test_memory_for_two_items_must_be_there() -> None:
    with pytest.raises(MemoryShortageError, match="toy on 2 items"):
        begun(job(most=1)).epoch()


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    class Broken(ToyLearner):
        def train_step(self, batch: object) -> dict[str, float]:
            raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        begun(job(Broken)).epoch()


def test_fewer_items_of_a_class_than_a_batch_and_than_two() -> None:
    made = job(settings={"batch_size": 64, "classes": "sample"})
    arrays = toy_arrays(30, 0)
    arrays = {**arrays, "label": (torch.arange(30) == 4).long().numpy()}  # one cell of its class
    made = Job("toy", made.build, arrays, made.valid, made.config, 5)
    _, history = fit_here(made)
    assert len(history) == 6 and history[-1]["val_loss"] < history[0]["val_loss"]


# ---- memory layout, compilation ------------------------------------------------------------------------


class Pixels(PlainLearner):
    """A convolution over points laid out as images; says how its weights lie in memory."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        torch.manual_seed(seed)
        self.nets = {"net": nn.Sequential(nn.Unflatten(1, (4, 1, 1)), nn.Conv2d(4, 1, 1), nn.Flatten())}


def test_channels_last_changes_the_layout_alone() -> None:
    plain, _ = fit_here(job(Pixels))
    fit = begun(job(Pixels, {"channels_last": True}))
    convolution = next(m for m in fit.learner.nets["net"].modules() if isinstance(m, nn.Conv2d))
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    while not fit.finished:
        fit.epoch()
    assert fit.best is not None
    torch.testing.assert_close(fit.best["weights"], plain)


class Own(nn.Sequential):
    """torch's compiler leaves torch's own modules alone: it begins at somebody else's ``forward``."""

    def forward(self, x_BD: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = super().forward(x_BD)
        return out


class OwnLearner(PlainLearner):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.nets = {"net": Own(*self.nets["net"])}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")
def test_compiled_networks_keep_their_names_and_learn_the_same() -> None:
    from torch._dynamo.utils import counters

    exact = {"precision": "fp32"}
    plain, _ = fit_here(job(OwnLearner, exact))
    counters.clear()
    compiled, _ = fit_here(job(OwnLearner, {"compile": True, **exact}))
    assert counters["stats"]["unique_graphs"] > 0, "nothing was compiled"
    assert list(compiled["net"]) == list(plain["net"])
    torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-4)


class Stubborn(Own):
    """A network that torch's compiler gives up on."""

    def compile(self, *args: object, **kwargs: object) -> None:
        def backend(*_: object) -> Callable[..., object]:
            raise RuntimeError("there is no C++ compiler here")

        super().compile(backend=backend)


class StubbornLearner(PlainLearner):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.nets = {"net": Stubborn(*self.nets["net"])}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")
def test_what_cannot_be_compiled_is_told_with_its_cure() -> None:
    with pytest.raises(TrainingError, match=r"cannot compile toy: .*no C\+\+ compiler") as caught:
        fit_here(job(StubbornLearner, {"compile": True}))
    assert "train.compile=false" in str(caught.value.cure)
    fit_here(job(StubbornLearner))
