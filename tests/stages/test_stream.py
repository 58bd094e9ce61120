"""Training cells streamed by Ray Data: which are seen, in which order, and what comes of it."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from cell_runs import SIDE, backbone_stage, cell_run, small
from seeing import SeeingLearner, numbers
from test_training import untimed

from cotray.config import Config, TrainConfig, load_config
from cotray.errors import ConfigError, InvalidValueError, RunError
from cotray.fitting.job import Job
from cotray.runs import Run
from cotray.stages import train_backbone
from cotray.stages.cells import concat, real_cells, split_of, synthetic_cells
from cotray.stages.parts import part_name
from cotray.stages.stream import Stream, StreamFeed
from cotray.stages.train_backbone import training_stream
from cotray.stages.training import fit
from cotray.stages.weights import Fitted, load_fitted

STREAM = ("backbone.train.data=stream", "backbone.train.buffer=48")
PARTS = (90, 7, 60, 40)


def streamed(run: Run) -> Stream:
    return training_stream(small(*STREAM), backbone_stage(run))


def trained_on(run: Run) -> dict[int, int]:
    """Number -> label of the cells that the cached way trains on."""
    at = backbone_stage(run)
    train = concat(split_of(real_cells(at, ("train",)), "train"), synthetic_cells(at))
    found = numbers(torch.from_numpy(train.image_NSS3))
    return dict(zip(found, train.label_N.tolist(), strict=True))


# ---- without Ray -----------------------------------------------------------------------------------------


def test_pieces_hold_the_cells_that_the_cached_way_trains_on(tmp_path: Path) -> None:
    run = cell_run(tmp_path, PARTS)
    stream = streamed(run)
    assert max(len(piece.keep) for piece in stream.pieces) == 64
    seen: dict[int, int] = {}
    for piece in stream.pieces:
        images = piece.read(SIDE)
        assert images.shape == (len(piece.label_N), SIDE, SIDE, 3)
        shown = numbers(torch.from_numpy(images))
        seen |= dict(zip(shown, piece.label_N.tolist(), strict=True))
    assert seen == trained_on(run) and len(seen) == stream.items


def test_a_piece_reads_its_own_rows_of_a_file_only(tmp_path: Path) -> None:
    run = cell_run(tmp_path, PARTS)
    cells = run.stage("segment") / "cells"
    whole = cells.read_parquet(part_name(0), ["id"])
    for start, stop in ((0, 64), (64, 90), (10, 70), (90, 120)):
        rows, count = cells.read_rows(part_name(0), start, stop, ["id"])
        assert rows["id"].to_pylist() == whole["id"].to_pylist()[start:stop] and count == 90
    (cells / "x").write_bytes("torn", (tmp_path / "segment/cells" / part_name(0)).read_bytes()[:-9])
    with pytest.raises(RunError, match="torn"):
        (cells / "x").read_rows("torn", 0, 3, ["id"])


def test_a_file_of_another_length_is_refused(tmp_path: Path) -> None:
    stream = streamed(cell_run(tmp_path, PARTS))
    cell_run(tmp_path, (88, 7, 60, 40))
    with pytest.raises(RunError, match="has 88 cells, its manifest 90"):
        stream.pieces[0].read(SIDE)


def test_steps_are_known_beforehand(tmp_path: Path) -> None:
    stream = streamed(cell_run(tmp_path, PARTS))
    for world, batch, accumulate in (
        (1, 16, 1),
        (2, 16, 1),
        (2, 8, 2),
        (1, stream.items - 1, 1),
        (1, 999, 1),
    ):
        config = TrainConfig(batch_size=batch, accumulate=accumulate)
        job = Job("toy", functools.partial(SeeingLearner, 3, ""), {}, {}, config, 5)
        feed = StreamFeed(job, stream, {}, None, 0, world)
        share, size = stream.items // world, batch * accumulate // world
        assert feed.steps == max(1, share // size + (share % size > 1))


def test_order_is_that_of_seed_and_epoch(tmp_path: Path) -> None:
    stream = streamed(cell_run(tmp_path, PARTS))
    again = streamed(Run(str(tmp_path)))
    assert stream.order(3).tolist() == again.order(3).tolist() != stream.order(4).tolist()
    assert sorted(stream.order(3)) == list(range(len(stream.pieces)))


def test_what_cannot_be_streamed_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs train\.data=cached"):
        small(*STREAM, "backbone.train.classes=sample")
    with pytest.raises(ConfigError, match="data"):
        load_config("tiny", overrides=["hdlc.train.data=stream"])


# ---- under Ray Train -------------------------------------------------------------------------------------


def see(run: Run, log: Path, workers: int = 1, **toy: object) -> tuple[Fitted, list[dict[int, list[int]]]]:
    """A training that writes down what it sees: step -> numbers, for every process."""
    log.mkdir()
    stream, config = streamed(run), small(f"compute.train_workers={workers}")
    train = TrainConfig(epochs=3, batch_size=16)
    job = Job("seeing", functools.partial(SeeingLearner, 3, str(log), **toy), {}, {}, train, 5)
    fitted = fit(
        Job(job.name, job.build, {}, {}, train, 5, streamed=stream.items),
        config.compute,
        backbone_stage(run),
        stream,
    )
    wanted, seen = trained_on(run), []
    for file in sorted(log.iterdir()):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            assert row["labels"] == [wanted[number] for number in row["numbers"]]
        seen.append({row["step"]: row["numbers"] for row in rows})
    return fitted, seen


def epochs_of(seen: dict[int, list[int]], count: int = 3) -> list[list[int]]:
    steps = len(seen) // count
    return [
        [n for step in range(e * steps + 1, (e + 1) * steps + 1) for n in seen[step]] for e in range(count)
    ]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.usefixtures("ray_local")
def test_every_cell_once_an_epoch_and_a_killed_worker_goes_on_exactly(tmp_path: Path) -> None:
    run = cell_run(tmp_path / "a", PARTS)
    fitted, (seen,) = see(run, tmp_path / "log-a")
    epochs, wanted = epochs_of(seen), trained_on(run)
    for epoch in epochs:
        left_out = set(wanted) - set(epoch)
        assert len(set(epoch)) == len(epoch) and len(left_out) < 2  # a last batch too small to norm
    assert epochs[0] != epochs[1] != epochs[2]
    for numbers_seen in seen.values():  # both classes in every batch
        assert len({wanted[n] for n in numbers_seen}) == 2

    marker = tmp_path / "died"
    other = cell_run(tmp_path / "b", PARTS)
    again, logs = see(other, tmp_path / "log-b", die_at_step=len(seen) // 3 + 4, marker=str(marker))
    assert marker.exists() and len(logs) == 2, "the worker was meant to be killed"
    assert all(log[step] == seen[step] for log in logs for step in log)
    assert {step for log in logs for step in log} == set(seen)
    assert untimed(again) == untimed(fitted)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_two_workers_see_no_cell_twice_and_make_as_many_steps(tmp_path: Path) -> None:
    """They hold all CPUs there are; reading must not wait for one."""
    run = cell_run(tmp_path / "a", PARTS)
    _, ranks = see(run, tmp_path / "log", workers=2)
    assert len(ranks) == 2 and set(ranks[0]) == set(ranks[1])
    assert all(len(ranks[0][step]) == len(ranks[1][step]) for step in ranks[0])
    for mine, others in zip(epochs_of(ranks[0]), epochs_of(ranks[1]), strict=True):
        assert not set(mine) & set(others) and max(Counter(mine + others).values()) == 1
        assert len(trained_on(run)) - len(mine + others) < 2 * 2


def backbone(home: Path, config: Config, rare: int = 2) -> tuple[dict[str, int], Fitted]:
    """The whole stage: its counts, and what it trained."""
    at = backbone_stage(cell_run(home, PARTS, synthetic=0 if rare > 2 else 70, rare=rare))
    result = train_backbone.run(config, at)
    fitted = load_fitted(at, "backbone")
    assert fitted is not None
    return result.counts, fitted


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.usefixtures("ray_local")
def test_streamed_and_cached_learn_alike_from_a_class_smaller_than_a_batch(tmp_path: Path) -> None:
    """Four normal cells in nearly two hundred, batches of 16: the loss is weighted, both classes are told."""
    more = ("backbone.train.epochs=6",)
    told = {}
    for name, sets in (("cached", more), ("stream", (*more, *STREAM))):
        told[name], fitted = backbone(tmp_path / name, small(*sets), rare=40)
        best = max(row["val_balanced_accuracy"] for row in fitted.history)
        assert best == 1.0, f"{name}: {[row['val_balanced_accuracy'] for row in fitted.history]}"
        assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]
    assert told["cached"] == told["stream"]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("data", ["cached", "stream"])
def test_a_driver_killed_after_a_checkpoint_goes_on_to_the_same_weights(data: str, tmp_path: Path) -> None:
    sets = [*STREAM[1:], f"backbone.train.data={data}", "backbone.train.epochs=30"]
    cell_run(tmp_path / "killed", PARTS)
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    driver = subprocess.Popen(
        [sys.executable, str(here / "train_driver.py"), str(tmp_path / "killed"), *sets],
        env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    states = tmp_path / "killed" / "train_backbone" / "train-backbone"
    try:
        deadline = time.monotonic() + 300
        while not list(states.glob("checkpoint_00000[2-9]/state.pt")):
            assert driver.poll() is None and time.monotonic() < deadline, "no checkpoint was written"
            time.sleep(0.01)
        driver.send_signal(signal.SIGKILL)
    finally:
        driver.kill()
        driver.wait()
    at = backbone_stage(Run(str(tmp_path / "killed")))
    assert load_fitted(at, "backbone") is None, "the training was over before the kill"
    train_backbone.run(small(*sets), at)
    continued = load_fitted(at, "backbone")
    _, unbroken = backbone(tmp_path / "unbroken", small(*sets))
    assert continued is not None and len(continued.history) == 30
    assert untimed(continued) == untimed(unbroken)


@pytest.mark.usefixtures("ray_local")
def test_a_gpu_where_none_is_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    at = backbone_stage(cell_run(tmp_path, PARTS))
    with pytest.raises(InvalidValueError, match=r"A GPU is asked for.*compute\.gpu"):
        train_backbone.run(small(*STREAM, "compute.gpu=yes"), at)
