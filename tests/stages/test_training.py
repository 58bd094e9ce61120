from __future__ import annotations

import dataclasses
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from dying import dying_job
from pyarrow import fs
from ray.train import Checkpoint
from toy import FillingLearner, PlainLearner, ToyLearner, toy_arrays

from cotray.config import ComputeConfig, TrainConfig
from cotray.errors import InvalidValueError, NonFiniteLossError, StorageError, WeightsError
from cotray.fitting.job import Job
from cotray.runs import Run
from cotray.stages.base import StageRun, Voice
from cotray.stages.train_loop import read_state
from cotray.stages.training import fit
from cotray.stages.weights import Fitted, array_bytes, load_fitted, parse_weights, read_array

pytestmark = pytest.mark.usefixtures("ray_local")
COMPUTE = ComputeConfig(cpus_per_worker=1)


class Recorder(Voice):
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        self.seen.append((what, done, total))


def arrays() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    return toy_arrays(100, 0), toy_arrays(40, 1)


def job(**toy: object) -> Job:
    config = TrainConfig(epochs=6, batch_size=16)
    build = functools.partial(ToyLearner, 3, **toy)
    return Job("toy", build, toy_arrays(100, 0), toy_arrays(40, 1), config, seed=5)


def stage(tmp_path: Path, name: str) -> StageRun:
    return StageRun(name, Run(str(tmp_path)), "print", voice=Recorder())


def untimed(fitted: Fitted) -> list[dict[str, float]]:
    """The history without what differs from one time to the next."""
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in fitted.history]


def test_learns_reports_and_remembers(tmp_path: Path) -> None:
    at = stage(tmp_path, "a")
    fitted = fit(job(), COMPUTE, at)
    assert len(fitted.history) == 6
    assert fitted.history[-1]["val_loss"] < 0.8 * fitted.history[0]["val_loss"]
    assert isinstance(at.voice, Recorder)
    assert [seen for seen in at.voice.seen if seen[0] == "toy"] == [
        ("toy", epoch, 6) for epoch in range(1, 7)
    ]
    assert any(what == "toy steps" and total == 42 for what, _, total in at.voice.seen)
    again = fit(job(), COMPUTE, at)  # already trained: no new training, same weights
    assert all(torch.equal(v, again.weights["net"][k]) for k, v in fitted.weights["net"].items())
    assert sum(what == "toy" for what, _, _ in at.voice.seen) == 6


def test_a_killed_worker_is_replaced_and_the_result_is_exact(tmp_path: Path) -> None:
    unbroken = fit(job(), COMPUTE, stage(tmp_path, "b"))
    marker = tmp_path / "died"
    broken = fit(job(die_at_step=25, marker=str(marker)), COMPUTE, stage(tmp_path, "c"))
    assert marker.exists(), "the worker was meant to be killed"
    assert all(torch.equal(v, broken.weights["net"][k]) for k, v in unbroken.weights["net"].items())
    assert untimed(broken) == untimed(unbroken)


def test_two_workers_train_by_ddp_and_stop_together(tmp_path: Path) -> None:
    toy = job()
    patient = toy.config.model_copy(update={"epochs": 40, "patience": 2})
    compute = ComputeConfig(train_workers=2, cpus_per_worker=1)
    fitted = fit(dataclasses.replace(toy, config=patient), compute, stage(tmp_path, "d"))
    losses = [row["val_loss"] for row in fitted.history]
    assert min(losses) < losses[0]
    assert len(losses) == 40 or losses.index(min(losses)) == len(losses) - 3


def test_nan_stops_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    at = stage(tmp_path, "e")
    with pytest.raises(NonFiniteLossError, match="toy became nan in epoch 4, step 4 of 7"):
        fit(job(poison=25), COMPUTE, at)
    kept = [name for name in at.folder.files() if name.endswith("state.pt")]
    assert kept == ["train-toy/checkpoint_000003/state.pt"]
    state = torch.load(tmp_path / "e" / kept[0], weights_only=True)
    assert len(state["history"]) == 3 and state["best"]["weights"]["net"]


# ---- more workers, less memory, less disk ----------------------------------------------------------------


TWO = ComputeConfig(train_workers=2, cpus_per_worker=1)


@pytest.mark.slow
@pytest.mark.long
def test_two_workers_one_of_them_killed_come_to_the_same_figures(tmp_path: Path) -> None:
    """Within a millionth: gradients are summed over workers in the order in which they come."""
    unbroken = fit(job(), TWO, stage(tmp_path, "k"))
    marker = tmp_path / "died"
    broken = fit(job(die_at_step=15, marker=str(marker)), TWO, stage(tmp_path, "l"))
    assert marker.exists(), "a worker was meant to be killed"
    assert len(broken.history) == len(unbroken.history) == 6
    for row, other in zip(untimed(broken), untimed(unbroken), strict=True):
        assert row == pytest.approx(other, abs=1e-6)


@pytest.mark.slow
@pytest.mark.long
def test_two_workers_without_memory_begin_again_with_smaller_pieces(tmp_path: Path) -> None:
    at = stage(tmp_path, "m")
    toy = Job(
        "toy", functools.partial(PlainLearner, 3, most=4), *arrays(), TrainConfig(epochs=2, batch_size=16), 5
    )
    fitted = fit(toy, TWO, at)  # 8 items for each worker
    assert max(row["items"] for row in fitted.history) <= 4


def test_more_workers_than_cpus_are_refused_at_once(tmp_path: Path) -> None:
    for compute, what in (
        (ComputeConfig(train_workers=3, cpus_per_worker=1), "need 3 CPUs, and there are 2"),
        (ComputeConfig(train_workers=4), "need 4 CPUs, and there are 2"),
        (ComputeConfig(gpu="yes"), "A GPU is asked for, and the cluster has none"),
    ):
        with pytest.raises(InvalidValueError, match=what):
            fit(job(), compute, stage(tmp_path, "n"))


class Hearer(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount a small file system here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
def test_a_full_disk_costs_a_checkpoint_and_not_the_run(small_disk: Path) -> None:
    """The disk fills after the second epoch and is freed before the last."""
    voice = Hearer()
    at = StageRun("o", Run(str(small_disk)), "print", voice=voice)
    toy = job()
    fills = functools.partial(FillingLearner, 3, disk=str(small_disk), full=(15, 36))
    fitted = fit(dataclasses.replace(toy, build=fills), COMPUTE, at)
    assert len(fitted.history) == 6
    lost = [said for said in voice.said if "WARNING" in said]
    assert lost and all("No space left" in said for said in lost)
    plain = fit(job(), COMPUTE, stage(small_disk, "p"))
    torch.testing.assert_close(fitted.weights, plain.weights, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.long
def test_where_the_last_checkpoint_finds_no_room_the_one_before_is_gone_on_from(small_disk: Path) -> None:
    at = StageRun("q", Run(str(small_disk)), "print")
    fills = functools.partial(FillingLearner, 3, disk=str(small_disk), full=(36, 99))
    with pytest.raises(StorageError, match="last checkpoint could not be written"):
        fit(dataclasses.replace(job(), build=fills), COMPUTE, at)
    (small_disk / "filler").unlink()
    fitted = fit(job(), COMPUTE, at)
    assert len(fitted.history) == 6
    assert untimed(fitted) == untimed(fit(job(), COMPUTE, stage(small_disk, "r")))


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save({"history": []}, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(WeightsError, match=r"cannot be read.*state\.pt"):
        read_state(Checkpoint(str(tmp_path), fs.LocalFileSystem()))


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_worker_on_a_gpu_is_killed_and_replaced(tmp_path: Path) -> None:
    check_killed(tmp_path, ComputeConfig(gpu="yes", cpus_per_worker=1), on_gpu=1.0)


@pytest.mark.slow
@pytest.mark.long
def test_and_the_same_without_one(tmp_path: Path) -> None:
    check_killed(tmp_path, ComputeConfig(gpu="no", cpus_per_worker=1), on_gpu=0.0)


def check_killed(tmp_path: Path, compute: ComputeConfig, on_gpu: float) -> None:
    marker = tmp_path / "died"
    unbroken, broken = (
        fit(dying_job(step, str(marker)), compute, stage(tmp_path, f"dying-{step}")) for step in (0, 7)
    )
    assert marker.exists(), "the worker was meant to be killed"
    assert [row["on_gpu"] for row in broken.history] == [on_gpu] * 4
    torch.testing.assert_close(broken.weights["hdlc"], unbroken.weights["hdlc"], rtol=0, atol=1e-4)
