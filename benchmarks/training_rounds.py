"""What the training benchmarks measure with: jobs of a wanted length, sides in turn, clocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from benchmarks.training_sides import Bare, job, ours
from cotray.fitting.job import Job, length

CPU = torch.device("cpu")
HEAD = ("images", "bare, images/s", "cotray, images/s", "ratio", "single rounds", "CPU ratio")


def sized(model: str, section: Any, given: Any, device: torch.device) -> Job:
    """A job whose epoch takes about the wanted seconds: between 2 and 200 steps."""
    batch = section.train.batch_size
    probe = job(model, section, 2 * batch, 1)
    bare = Bare(model, section, probe, device)
    bare.epoch(torch.arange(2 * batch))  # what is only made once
    begun = time.perf_counter()
    bare.epoch(torch.arange(2 * batch))
    waited(device)
    steps = round(2 * given.seconds / (time.perf_counter() - begun))
    return job(model, section, batch * max(2, min(200, steps)), given.rounds + 1)


def compared(model: str, section: Any, made: Job, rounds: int, device: torch.device) -> list[str]:
    """Cells of a line: medians over rounds. Which side is first changes; the first round is not counted."""
    fit, bare, count = ours(made, device), Bare(model, section, made, device), length(made.train)
    sides: list[Callable[[], Any]] = [fit.epoch, lambda: bare.epoch(torch.randperm(count))]
    found = []
    for turn in range(rounds + 1):
        took = {side: timed(sides[side], device) for side in ((0, 1) if turn % 2 else (1, 0))}
        found.append((took[0], took[1]))
    kept = found[1:]
    ratios = sorted(b[0] / a[0] for a, b in kept)
    rates = [f"{count / median(pair[side][0] for pair in kept):.4g}" for side in (1, 0)]
    cpu = median(b[1] / a[1] for a, b in kept)
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    return [str(count), *rates, f"{median(ratios):.2f}", spread, f"{cpu:.2f}"]


def varied(section: Any, compiled: bool, last: bool, precision: str = "bf16") -> Any:
    """The section in a precision, compiled or not, channels last or not."""
    more = {"compile": compiled, "channels_last": last, "precision": precision}
    return section.model_copy(update={"train": section.train.model_copy(update=more)})


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    """(wall, CPU) seconds, until the device has done all of it."""
    waited(device)
    begun, spent = time.perf_counter(), time.process_time()
    work()
    waited(device)
    return time.perf_counter() - begun, time.process_time() - spent


def waited(device: torch.device) -> None:
    """Wait for what the device was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def with_spread(ratios: list[float]) -> str:
    """The median, and the least and largest of single rounds."""
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
