from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import PlainLearner, ToyLearner, toy_arrays

from cotray.config import ComputeConfig, TrainConfig
from cotray.errors import NonFiniteLossError, WeightsError
from cotray.runs import Run
from cotray.stages.base import StageRun, Voice
from cotray.stages.training import Job, fit, within_limit
from cotray.stages.weights import Fitted, array_bytes, load_fitted, parse_weights, read_array

pytestmark = pytest.mark.usefixtures("ray_local")
COMPUTE = ComputeConfig(cpus_per_worker=1)


class Recorder(Voice):
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        self.seen.append((what, done, total))


def job(**toy: object) -> Job:
    config = TrainConfig(epochs=6, batch_size=16)
    build = functools.partial(ToyLearner, 3, **toy)
    return Job("toy", build, toy_arrays(100, 0), toy_arrays(40, 1), config, seed=5)


def stage(tmp_path: Path, name: str) -> StageRun:
    return StageRun(name, Run(str(tmp_path)), "print", voice=Recorder())


def test_learns_reports_and_remembers(tmp_path: Path) -> None:
    at = stage(tmp_path, "a")
    fitted = fit(job(), COMPUTE, at)
    assert len(fitted.history) == 6
    assert fitted.history[-1]["val_loss"] < 0.8 * fitted.history[0]["val_loss"]
    assert isinstance(at.voice, Recorder)
    assert at.voice.seen == [("toy", epoch, 6) for epoch in range(1, 7)]
    again = fit(job(), COMPUTE, at)  # already trained: no new training, same weights
    assert all(torch.equal(v, again.weights["net"][k]) for k, v in fitted.weights["net"].items())
    assert len(at.voice.seen) == 6


def test_a_killed_worker_is_replaced_and_the_result_is_exact(tmp_path: Path) -> None:
    unbroken = fit(job(), COMPUTE, stage(tmp_path, "b"))
    marker = tmp_path / "died"
    broken = fit(job(die_at_step=25, marker=str(marker)), COMPUTE, stage(tmp_path, "c"))
    assert marker.exists(), "the worker was meant to be killed"
    assert all(torch.equal(v, broken.weights["net"][k]) for k, v in unbroken.weights["net"].items())
    plain = [{k: v for k, v in row.items() if k != "seconds"} for row in unbroken.history]
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in broken.history] == plain


def test_two_workers_train_by_ddp_and_stop_together(tmp_path: Path) -> None:
    toy = job()
    patient = toy.config.model_copy(update={"epochs": 40, "patience": 2})
    compute = ComputeConfig(train_workers=2, cpus_per_worker=1)
    fitted = fit(dataclasses.replace(toy, config=patient), compute, stage(tmp_path, "d"))
    losses = [row["val_loss"] for row in fitted.history]
    assert min(losses) < losses[0]
    assert len(losses) == 40 or losses.index(min(losses)) == len(losses) - 3


def plain(name: str, tmp_path: Path, **settings: object) -> Fitted:
    config = TrainConfig(epochs=3, batch_size=24).model_copy(update=settings)
    toy = Job(
        "toy", functools.partial(PlainLearner, 3), toy_arrays(100, 0), toy_arrays(40, 1), config, seed=5
    )
    return fit(toy, COMPUTE, stage(tmp_path, name))


def test_accumulated_batches_step_as_one_large_batch(tmp_path: Path) -> None:
    whole = plain("h", tmp_path)  # 100 items: four batches of 24 and one of 4
    pieces = plain("i", tmp_path, batch_size=8, accumulate=3)
    for row, other in zip(whole.history, pieces.history, strict=True):
        assert other["loss"] == pytest.approx(row["loss"], abs=1e-5)
        assert other["items"] < row["items"] / 2
    torch.testing.assert_close(pieces.weights, whole.weights, rtol=0, atol=1e-5)


def test_mixed_precision_computes_in_bf16_and_validates_in_fp32(tmp_path: Path) -> None:
    mixed = plain("j", tmp_path, precision="bf16")
    assert [row["half"] for row in mixed.history] == [1.0] * 3
    assert mixed.weights["net"]["0.weight"].dtype is torch.float32
    assert mixed.history[-1]["val_loss"] < mixed.history[0]["val_loss"]
    net = PlainLearner(0)
    net.load_weights(mixed.weights)
    best = min(row["val_loss"] for row in mixed.history)
    valid = {key: torch.from_numpy(value) for key, value in toy_arrays(40, 1).items()}
    assert net.score(net.predict_step(valid))["val_loss"] == pytest.approx(best, abs=1e-6)


def test_steps_bound_epochs() -> None:
    toy = job()  # 100 items in batches of 16: seven steps an epoch

    def epochs(most: int | None) -> int:
        config = toy.config.model_copy(update={"max_steps": most})
        return within_limit(dataclasses.replace(toy, config=config)).config.epochs

    assert [epochs(most) for most in (None, 1, 14, 21, 1000)] == [6, 1, 2, 3, 6]
    toy = dataclasses.replace(toy, config=toy.config.model_copy(update={"accumulate": 3}))  # three steps now
    assert [epochs(most) for most in (None, 1, 6, 9, 1000)] == [6, 1, 2, 3, 6]


def test_nan_stops_and_names_the_model(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match="toy"):
        fit(job(poison=True), COMPUTE, stage(tmp_path, "e"))


def test_no_validation_split_is_tolerated(tmp_path: Path) -> None:
    bare = job()
    bare = Job("toy", bare.build, bare.train, {}, bare.config, 5)
    assert len(fit(bare, COMPUTE, stage(tmp_path, "f")).history) == 6


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    at = stage(tmp_path, "g")
    assert load_fitted(at, "toy") is None
    with pytest.raises(WeightsError, match="somewhere"):
        parse_weights(b"not safetensors", "somewhere")
    assert Fitted({}).history == []


def test_arrays_round_trip_without_pickle() -> None:
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    assert np.array_equal(read_array(array_bytes(x)), x)
    with pytest.raises(ValueError, match="allow_pickle"):
        array_bytes(np.array([object()]))
