"""Training under cotray's harness against the same model in a bare torch loop.

    python -m benchmarks.training speed [--models hdlc smod] [--preset tiny] [--threads 1] [--rounds 7]
    python -m benchmarks.training cpu [--models hdlc smod] [--preset tiny] [--threads 1] [--rounds 7]
    python -m benchmarks.training hdlc [--threads 1] [--rounds 7]
    python -m benchmarks.training ray [--models hdlc smod] [--epochs 11]
    python -m benchmarks.training gpu [--models cotconet leugan] [--preset paper]

`speed`: both sides in one process on the same items, in turn, an epoch each: images per second, their ratio,
and the ratio of CPU time, which a busy machine disturbs less. Validation and checkpoints are in neither side.
`cpu`: bf16 and `train.channels_last` against plain fp32 under the harness, in turn in the same way; and for
backbones what channels last brings when features are made.
`hdlc`: HDLC's first layers as a product of windows, as they are, and as a convolution, by features.
`ray`: what Ray Train adds: its start, and what it takes for each epoch (a checkpoint, a report).
`gpu`: bf16 with and without `train.compile` and `train.channels_last`, and the share of the GPU's peak.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.real_sets import machine
from benchmarks.training_cpu import hdlc_ways, on_cpu
from benchmarks.training_rounds import CPU, HEAD, compared, sized, varied
from benchmarks.training_sides import MODELS, Bare, job, settings
from cotray.config import Config, load_config
from cotray.fitting.job import Job, length

PEAK = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
}
"""Dense bf16 operations per second that makers name, by a part of the device's name; the first that fits."""
VARIANTS = ((False, False), (False, True), (True, False), (True, True))
"""train.compile, train.channels_last."""


def main() -> None:
    """Measure and print."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("what", choices=("speed", "cpu", "hdlc", "ray", "gpu"))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--preset", help="tiny; for gpu, paper")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="of an epoch, about")
    parser.add_argument("--epochs", type=int, default=11, help="of a training under Ray")
    parser.add_argument("--device", default="cuda", help="of gpu; cpu only to try the command out")
    parser.add_argument("--plain", action="store_true", help="gpu: without the compiled variants")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    config = load_config(given.preset or ("paper" if given.what == "gpu" else "tiny"))
    told = machine().replace(", no GPU used", "" if given.what == "gpu" else ", no GPU used")
    print(f"Machine: {told}; {given.threads} thread(s), torch {torch.__version__}.\n")
    measures = {"speed": speed, "cpu": on_cpu, "hdlc": hdlc_ways, "ray": under_ray, "gpu": on_gpu}
    for line in measures[given.what](config, given):  # one by one: a compiled model takes minutes
        print(f"| {' | '.join(line)} |", flush=True)
        if line[0] == "model":
            print(f"|{'---|' * len(line)}", flush=True)


# ---- both sides in turn ----------------------------------------------------------------------------------


def speed(config: Config, given: Any) -> Iterator[list[str]]:
    """A line for each model."""
    yield ["model", "batch", *HEAD]
    for model in given.models:
        section = settings(model, config)
        made = sized(model, section, given, CPU)
        yield [model, str(section.train.batch_size), *compared(model, section, made, given.rounds, CPU)]


# ---- Ray Train -------------------------------------------------------------------------------------------


def under_ray(config: Config, given: Any) -> Iterator[list[str]]:
    """A line for each model, of one training."""
    from cotray.stages.cluster import connect

    connect()
    yield ["model", "images", "in the worker, images/s", "start, s", "added to an epoch, s", "checkpoint, MB"]
    for model in given.models:
        section = settings(model, config)
        made = sized(model, section, given, CPU)
        told, history, size = ray_run(made, given.epochs, given.threads)
        count, epochs = length(made.train), given.epochs
        added = (told[-1] - told[0] - sum(row["seconds"] for row in history[1:])) / (epochs - 1)
        rate = count * epochs / sum(row["seconds"] for row in history)
        start = told[0] - history[0]["seconds"]
        yield [model, str(count), f"{rate:.4g}", f"{start:.1f}", f"{added:.2f}", f"{size / 1e6:.1f}"]


def ray_run(made: Job, epochs: int, threads: int) -> tuple[list[float], list[dict[str, float]], int]:
    """(when each epoch was heard of, within half a second; the history; bytes of a checkpoint)."""
    from cotray.config import ComputeConfig
    from cotray.runs import Run
    from cotray.stages.base import StageRun, Voice
    from cotray.stages.training import fit

    told: list[float] = []

    class Clock(Voice):
        def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
            if what == made.name:
                told.append(time.perf_counter() - begun)

    train = made.config.model_copy(update={"epochs": epochs, "checkpoint_every": 1})
    cut = Job(made.name, made.build, made.train, made.valid, train, made.seed)
    with tempfile.TemporaryDirectory(prefix="cotray-bench-") as place:
        begun = time.perf_counter()
        at = StageRun("training", Run(place), "", voice=Clock())
        history = fit(cut, ComputeConfig(cpus_per_worker=threads), at).history
        sizes = [path.stat().st_size for path in Path(place).rglob("state.pt")]
    return told, history, sizes[0]


# ---- a GPU -----------------------------------------------------------------------------------------------


def on_gpu(config: Config, given: Any) -> Iterator[list[str]]:
    """A line for each model and variant."""
    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("There is no GPU here. `--device cpu --preset tiny` only tries the command out.")
    device = torch.device(given.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    print(f"Device: {name}.\n")
    yield ["model", "compiled", "channels last", "batch", "GFLOP/image", "of peak, %", *HEAD]
    for model in given.models:
        for compiled, last in VARIANTS[: 2 if given.plain else 4]:
            section = varied(settings(model, config), compiled, last)
            kind = [model, *("yes" if flag else "no" for flag in (compiled, last))]
            try:
                cells = measured(model, section, given, device, name)
            except RuntimeError as error:  # what the compiler cannot do is a finding too
                cells = ["-"] * (3 + len(HEAD))
                print(f"{' '.join(kind)}: {str(error).splitlines()[0][:300]}\n", flush=True)
            yield [*kind, *cells]


def measured(model: str, section: Any, given: Any, device: torch.device, name: str) -> list[str]:
    """Cells of one variant."""
    made = sized(model, section, given, device)
    cells = compared(model, section, made, given.rounds, device)
    plain = section.model_copy(update={"train": section.train.model_copy(update={"compile": False})})
    each = flops(model, plain, device)
    share = peak_share(name, each * float(cells[2]))
    return [str(section.train.batch_size), f"{each / 1e9:.4g}", share, *cells]


def flops(model: str, section: Any, device: torch.device) -> float:
    """Floating-point operations of training on one image, counted in a step of the bare side."""
    batch = section.train.batch_size
    made = job(model, section, batch, 1)
    bare = Bare(model, section, made, device)
    with FlopCounterMode(display=False) as counter:
        bare.epoch(torch.arange(batch))
    return counter.get_total_flops() / batch


def peak_share(name: str, rate: float) -> str:
    """Per cent of the device's peak; a dash where that is not known."""
    peak = next((value for part, value in PEAK.items() if part in name), None)
    return "-" if peak is None else f"{100 * rate / peak:.1f}"


if __name__ == "__main__":
    main()
