"""The whole method against colour alone, on the very same held-out images of real data sets.

    python -m benchmarks.real_sets all-idb2=/data/ALL_IDB2 taleqani=/data/taleqani [--runs DIR]

Runs `cotray run` on each (or takes a finished run up where it is) and prints the tables of
docs/benchmarks.md: figures with intervals over groups, the difference, and wall time per stage. Both sides
come from one evaluation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

STAGES = (
    *("ingest", "segment", "synthesize", "train_backbone"),
    *("extract", "select", "classify", "evaluate"),
)
METRICS = ("accuracy", "balanced_accuracy", "f1", "auroc")
SETTINGS = {
    "all-idb2": ("--dataset", "all-idb2"),
    "taleqani": (
        "--dataset",
        "folder",
        "--config",
        str(Path(__file__).parent / "taleqani.yaml"),
    ),
}


def main() -> None:
    """Run and print."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    names = ", ".join(SETTINGS)
    parser.add_argument("sets", nargs="+", metavar="NAME=FOLDER", help=f"NAME is one of {names}")
    parser.add_argument("--runs", type=Path, default=Path("runs/real"))
    parser.add_argument("--preset", default="tiny")
    given = parser.parse_args()
    runs = {}
    for item in given.sets:
        name, _, root = item.partition("=")
        runs[name] = given.runs / f"{name}-{given.preset}"
        command = [sys.executable, "-m", "cotray", "run", *SETTINGS[name]]
        command += ["--root", root, "--preset", given.preset, "--run", str(runs[name])]
        subprocess.run(command, check=True)
    print(f"\nMachine: {machine()}.\n")
    print(figures(runs))
    print(seconds(runs))


def figures(runs: dict[str, Path]) -> str:
    """A row for each data set and metric."""
    rows = ["| data set | metric | cotray | colour alone | difference |", "|---|---|---|---|---|"]
    for name, run in runs.items():
        sides = json.loads((run / "evaluate" / "metrics.json").read_text())
        for metric in METRICS:
            ours, floor = (sides[side] for side in ("cotray", "colour_alone"))
            gap = ours["metrics"][metric] - floor["metrics"][metric]
            values = [name, metric, shown(ours, metric), shown(floor, metric), f"{gap:+.3f}"]
            rows.append(f"| {' | '.join(values)} |")
    return "\n".join(rows) + "\n"


def shown(side: dict[str, dict[str, object]], metric: str) -> str:
    """``0.941 (0.902 to 0.971)``."""
    pair = side["intervals"].get(metric)
    interval = f" ({pair[0]:.3f} to {pair[1]:.3f})" if isinstance(pair, list) else ""
    return f"{side['metrics'][metric]:.3f}{interval}"


def seconds(runs: dict[str, Path]) -> str:
    """Wall time of every stage, from the stages' own records."""
    rows = [f"| wall time, s | {' | '.join(runs)} |", "|---|" + "---|" * len(runs)]
    taken = {
        name: {s: float(json.loads((run / s / "stage.json").read_text())["seconds"]) for s in STAGES}
        for name, run in runs.items()
    }
    rows += [f"| {stage} | " + " | ".join(f"{taken[n][stage]:.0f}" for n in runs) + " |" for stage in STAGES]
    rows.append("| all | " + " | ".join(f"{sum(taken[n].values()):.0f}" for n in runs) + " |")
    return "\n".join(rows) + "\n"


def machine() -> str:
    """Cores, memory, processor, versions: what figures should be read with."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = f"{os.cpu_count()} cores ({model or platform.processor()})"
    return f"{cores}, {memory:.0f} GiB, no GPU used, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
