"""What became of every trial, on disk: a file of its own for each, so that a killed tuning goes on.

::

    OUT/tune.json              what is tuned, on which data: another tuning may not go on here
    OUT/trials/0007.json       settings, state, objective after each iteration, figures, MLflow run
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cotray.errors import RunMismatchError
from cotray.storage import Folder

State = Literal["running", "complete", "stopped", "failed"]
FIGURES = ("objective", "error", "spread", "features", "evaluations")


@dataclass
class TrialRecord:
    """One trial."""

    number: int
    params: dict[str, Any]
    state: State = "running"
    """`stopped`: it fell behind and was not run to its end."""
    curve: list[tuple[int, float]] = field(default_factory=list)
    """(iteration, objective), as it was reported."""
    figures: dict[str, float] = field(default_factory=dict)
    """The last ones reported."""
    seconds: float = 0.0
    message: str = ""
    """Why it failed."""
    mlflow_run_id: str | None = None

    @property
    def objective(self) -> float:
        """The last one reported; infinite before."""
        return self.figures.get("objective", float("inf"))

    def take(self, row: Mapping[str, Any]) -> None:
        """Take a row that the trial reported."""
        if self.curve and row["iteration"] < self.curve[-1][0]:  # its worker died: it began anew
            self.curve = []
        if not self.curve or row["iteration"] > self.curve[-1][0]:
            self.curve.append((int(row["iteration"]), float(row["objective"])))
        self.figures = {name: float(row[name]) for name in FIGURES}


class Records:
    """The trials of a tuning, by number."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.trials = [TrialRecord(**folder.read_json(name)) for name in self._files()]
        for record in self.trials:
            record.curve = [(int(t), float(value)) for t, value in record.curve]
        self._open = {record.number for record in self.trials if record.state == "running"}

    def _files(self) -> list[str]:
        if not self.folder.exists("trials"):
            return []
        return [f"trials/{name}" for name in (self.folder / "trials").files() if name.endswith(".json")]

    @property
    def finished(self) -> list[TrialRecord]:
        """Trials that need not be run again, by number."""
        return [record for record in self.trials if record.state != "running"]

    @property
    def complete(self) -> list[TrialRecord]:
        """Trials that were run to their end, the best first."""
        whole = [record for record in self.trials if record.state == "complete"]
        return sorted(whole, key=lambda record: (record.objective, record.number))

    def begin(self, params: Mapping[str, Any]) -> TrialRecord:
        """A trial begins: one that an earlier life of the process left unfinished, or a new one."""
        for record in self.trials:
            if record.number in self._open and record.params == params:
                self._open.remove(record.number)
                record.curve, record.figures = [], {}
                return record
        record = TrialRecord(1 + max((r.number for r in self.trials), default=-1), dict(params))
        self.trials.append(record)
        self.keep(record)
        return record

    def keep(self, record: TrialRecord) -> None:
        """Write a trial down."""
        self.folder.write_json(f"trials/{record.number:04d}.json", asdict(record))


def claim(folder: Folder, about: Mapping[str, Any]) -> None:
    """Begin or continue a tuning in a folder. Raises RunMismatchError where it holds another one."""
    if not folder.exists("tune.json"):
        folder.write_json("tune.json", dict(about))
        return
    before = folder.read_json("tune.json")
    differs = [name for name, value in about.items() if before.get(name) != value]
    if differs:
        raise RunMismatchError(
            f"This folder holds a tuning with other {listed(differs)}.",
            where=folder.uri,
            cure="Give another --out folder, or remove this one.",
        )


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))
