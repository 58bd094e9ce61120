"""A run's folder: one sub-folder per stage, its manifest, its fingerprint; resume and status.

::

    RUN/
      run.json  config.yaml            what was asked, by which version
      <stage>/started.json             fingerprint of the work in progress, MLflow run id
      <stage>/stage.json               written last: the stage is complete
      <stage>/...                      manifest.parquet, part files, weights, figures
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import cotray
from cotray.config import Config, load_config, to_yaml
from cotray.errors import MissingStageError, RunError, RunMismatchError
from cotray.storage import Folder, absolute, require_writable


@dataclass(frozen=True)
class StageResult:
    """What a stage tells the world when it is done."""

    counts: dict[str, int] = field(default_factory=dict)
    """Things counted: in, used, quarantined, cells ..."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Figures worth comparing between runs."""
    artifacts: dict[str, str] = field(default_factory=dict)
    """Name -> path below the stage's folder."""
    notes: list[str] = field(default_factory=list)
    """Sentences for people: what was skipped, what was odd."""


@dataclass(frozen=True)
class StageRecord:
    """A completed stage as written in its ``stage.json``."""

    name: str
    fingerprint: str
    seconds: float
    finished: str
    result: StageResult
    mlflow_run_id: str | None = None
    cotray_version: str = cotray.__version__


class Run:
    """One run of the pipeline, in a local folder or at any fsspec URI."""

    def __init__(self, uri: str) -> None:
        self.folder = Folder(absolute(uri))

    @classmethod
    def exists(cls, uri: str) -> bool:
        """Whether there is a run at ``uri``."""
        return cls(uri).folder.exists("run.json")

    @classmethod
    def open(cls, uri: str) -> Run:
        """An existing run. Raises RunError where there is none."""
        run = cls(uri)
        if not run.folder.exists("run.json"):
            raise RunError("There is no run here.", where=uri, cure="Start one with `cotray run --run ...`.")
        return run

    def begin(self, config: Config) -> None:
        """Create or continue the folder. Raises RunNotWritableError, RunMismatchError (other dataset)."""
        require_writable(self.folder)
        if self.folder.exists("run.json"):
            self._check_same_data(config)
        else:
            self.folder.write_json("run.json", {"created": now(), "cotray": cotray.__version__, "layout": 1})
        self.folder.write_bytes("config.yaml", to_yaml(config).encode())

    def _check_same_data(self, config: Config) -> None:
        before = self.config().dataset
        if (before.name, before.root) != (config.dataset.name, config.dataset.root):
            raise RunMismatchError(
                f"This folder holds a run on '{before.name}' at {before.root}, not on "
                f"'{config.dataset.name}' at {config.dataset.root}.",
                where=self.folder.uri,
                cure="Give another --run folder, or remove this one.",
            )

    def config(self) -> Config:
        """The config the run was last started with."""
        return load_config(yaml_text=self.folder.read_bytes("config.yaml").decode())

    def note(self) -> dict[str, Any]:
        """The free-form facts in ``run.json`` (MLflow parent run, ...)."""
        return dict(self.folder.read_json("run.json"))

    def annotate(self, **facts: Any) -> None:
        """Add facts to ``run.json``."""
        self.folder.write_json("run.json", self.note() | facts)

    def stage(self, name: str) -> Folder:
        """The folder of a stage."""
        return self.folder / name

    def record(self, name: str) -> StageRecord | None:
        """The record of a completed stage, or None."""
        folder = self.stage(name)
        if not folder.exists("stage.json"):
            return None
        raw = folder.read_json("stage.json")
        return StageRecord(**{**raw, "result": StageResult(**raw["result"])})

    def need(self, name: str) -> StageRecord:
        """The record of a stage that must be complete. Raises MissingStageError."""
        record = self.record(name)
        if record is None:
            raise MissingStageError(
                f"The stage '{name}' has not been completed in this run.",
                where=self.folder.uri,
                cure=f"Run `cotray {name.replace('_', '-')} --run {self.folder.uri}` first, or `cotray run`.",
            )
        return record

    def start(self, name: str, fingerprint: str) -> dict[str, Any]:
        """Mark work on a stage as begun; partial work is kept only if it has the same fingerprint."""
        folder = self.stage(name)
        begun = folder.read_json("started.json") if folder.exists("started.json") else {}
        if begun.get("fingerprint") != fingerprint:
            folder.remove()
            begun = {"fingerprint": fingerprint, "started": now()}
            folder.write_json("started.json", begun)
        folder.remove("stage.json")
        return dict(begun)

    def complete(self, record: StageRecord) -> None:
        """Write the completion mark; the last thing a stage does."""
        self.stage(record.name).write_json("stage.json", asdict(record))

    def forget(self, names: Sequence[str]) -> None:
        """Remove stages, whole."""
        for name in names:
            self.stage(name).remove()


def fingerprint(name: str, version: int, settings: Mapping[str, Any], inputs: Sequence[str]) -> str:
    """sha256 over a stage's name, code version, settings and the fingerprints of its inputs."""
    body = json.dumps([name, version, settings, list(inputs)], sort_keys=True, default=str)
    return hashlib.sha256(body.encode()).hexdigest()


def now() -> str:
    """UTC time, ISO 8601, seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def environment() -> dict[str, str]:
    """Versions and machine shape that figures should be read with; nothing personal."""
    from importlib.metadata import version

    names = ("ray", "torch", "numpy", "opencv-python-headless", "scikit-learn", "mlflow", "segment-anything")
    return {
        "cotray": cotray.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        **{name: version(name) for name in names},
    }
