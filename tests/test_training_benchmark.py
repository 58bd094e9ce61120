"""The training benchmark: both sides do the same work, and its tables tell what was measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.training import PEAK, peak_share
from benchmarks.training_cpu import Convolved
from benchmarks.training_sides import Bare, job, ours, settings
from cotray.classification.hdlc import HDLC
from cotray.config import load_config
from cotray.fitting.job import CachedFeed, Job
from cotray.learning import derive_seed

REPO = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
TOY = (
    *("segment.image_size=64", "segment.embed_dim=32", "segment.depth=1", "segment.prompt_dim=32"),
    *("gan.image_size=32", "gan.channels=16", "backbone.image_size=32", "backbone.layers=1"),
    *("backbone.smod.filters=[4,4,8,8,8]", "hdlc.filters=8", "hdlc.hidden=[16,8,8,4,4]"),
)


def order(made: Job, count: int) -> torch.Tensor:
    """Of the first epoch's items, as cotray's feed gives them."""
    feed = CachedFeed(made, {"number": np.arange(count)}, {})
    return torch.cat([piece["number"] for pieces in feed.train(0) for piece in pieces])


@pytest.mark.parametrize("model", ["leusam", "leugan", "cotconet", "hdlc"])
def test_both_sides_come_to_the_same_weights(model: str) -> None:
    section = settings(model, load_config("tiny", overrides=TOY))
    count = 3 * section.train.batch_size
    made = job(model, section, count, 2)
    fit, bare = ours(made, CPU), Bare(model, section, made, CPU)
    before = bare.learner.weights()
    fit.epoch()
    torch.manual_seed(derive_seed(made.seed, 0, 0))
    bare.epoch(order(made, count))
    found = bare.learner.weights()
    for net in bare.owned:
        changed = [key for key, value in found[net].items() if not torch.equal(value, before[net][key])]
        assert len(changed) > len(found[net]) / 2, "the bare side learns nothing"
        torch.testing.assert_close(fit.learner.weights()[net], found[net], rtol=0, atol=1e-5)


def run(*args: str) -> list[dict[str, str]]:
    command = [sys.executable, "-m", "benchmarks.training", *args, "--seconds", "0.05"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    head, _, *rows = [row.strip("| ").split(" | ") for row in done.stdout.splitlines() if row.startswith("|")]
    return [dict(zip(head, row, strict=True)) for row in rows]


@pytest.mark.slow
def test_the_ratio_is_that_of_the_rates() -> None:
    (row,) = run("speed", "--models", "hdlc", "--rounds", "1")
    ratio = float(row["cotray, images/s"]) / float(row["bare, images/s"])
    assert float(row["ratio"]) == pytest.approx(ratio, abs=0.02)
    assert row["batch"] == "64" and int(row["images"]) % 64 == 0


@pytest.mark.slow
def test_the_cpu_command_measures_every_way_against_plain_fp32() -> None:
    hdlc, gmod = run("cpu", "--models", "hdlc", "gmod", "--rounds", "1")
    ways = ("fp32, channels last", "bf16", "bf16, channels last")
    assert all(float(row[way].split()[0]) > 0 for row in (hdlc, gmod) for way in ways)
    assert hdlc["features, channels last"] == "-", "HDLC makes no features"
    assert float(gmod["features, channels last"].split()[0]) > 0


@pytest.mark.parametrize("features", [3, 64])
def test_hdlcs_windows_are_its_convolution(features: int) -> None:
    torch.manual_seed(0)
    cfg = load_config("tiny", overrides=TOY).hdlc.model_copy(update={"dropout": 0.0})
    sides = [kind(cfg, features) for kind in (HDLC, Convolved)]
    sides[1].load_state_dict(sides[0].state_dict())
    feat = torch.randn(20, features)
    answers = [net(feat) for net in sides]
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=1e-6)
    for answer in answers:
        answer.square().sum().backward()
    grads = [[weight.grad for weight in net.parameters()] for net in sides]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_the_gpu_command_can_be_tried_without_one() -> None:
    rows = run("gpu", "--device", "cpu", "--preset", "tiny", "--plain", "--models", "hdlc", "--rounds", "1")
    assert [row["channels last"] for row in rows] == ["no", "yes"]
    assert {row["of peak, %"] for row in rows} == {"-"}
    assert float(rows[0]["GFLOP/image"]) > 0
    if not torch.cuda.is_available():
        refused = subprocess.run(
            [sys.executable, "-m", "benchmarks.training", "gpu"],
            cwd=REPO,
            capture_output=True,
            text=True,
            check=False,
        )
        assert refused.returncode == 1 and "There is no GPU here" in refused.stderr


@pytest.mark.long
@pytest.mark.slow
def test_ray_trains_start_is_told() -> None:
    (row,) = run("ray", "--models", "hdlc", "--epochs", "4")
    assert float(row["start, s"]) > 0 and float(row["in the worker, images/s"]) > 0
    assert float(row["checkpoint, MB"]) > 0.1


def test_peak_is_found_by_the_devices_name() -> None:
    assert peak_share("NVIDIA H100 80GB HBM3", PEAK["H100"] / 4) == "25.0"
    assert peak_share("NVIDIA H100 PCIe", PEAK["H100 PCIe"] / 2) == "50.0"
    assert peak_share("NVIDIA L40S", PEAK["L40S"]) == "100.0"
    assert peak_share("some other", 1e12) == "-"
