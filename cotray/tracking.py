"""Hooks of a run and its stages -> MLflow; a no-op when off.

Only the driver talks to MLflow (workers report to the driver), so that a sqlite store works on any
cluster and nothing is logged twice. A continued run goes on in the MLflow runs it began.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cotray.config import Config
from cotray.errors import TrackingError
from cotray.storage import Folder

os_environ_defaults = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}


class Tracker:
    """Does nothing; what a stage gets when tracking is off."""

    run_id: str | None = None

    def params(self, values: Mapping[str, Any]) -> None:
        """Log settings."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log figures at a step."""

    def series(self, rows: Sequence[tuple[int, float, Mapping[str, float]]]) -> None:
        """Log figures at many steps at once: step, time (seconds since the epoch), figures."""

    def artifact(self, name: str, data: bytes) -> None:
        """Log a file."""

    def dataset(self, name: str, digest: str, source: str, profile: Mapping[str, Any]) -> None:
        """Log what the run read: a name, a digest of it (its frozen split), where it is, its counts."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags."""

    def finish(self, status: str = "FINISHED") -> None:
        """End the run: FINISHED, FAILED or KILLED."""

    def child(self, name: str, run_id: str | None = None) -> Tracker:
        """The tracker of a stage."""
        return self


class MlflowTracker(Tracker):
    """One MLflow run, by client: no global state, any thread."""

    def __init__(self, client: Any, experiment_id: str, run_id: str) -> None:
        self.client, self.experiment_id, self.run_id = client, experiment_id, run_id

    def params(self, values: Mapping[str, Any]) -> None:
        """Log settings, dotted; a continued run keeps the ones it has."""
        from mlflow.entities import Param

        known = self.client.get_run(self.run_id).data.params
        new = [Param(k, str(v)[:6000]) for k, v in flatten(values) if k not in known]
        for start in range(0, len(new), 100):
            self.client.log_batch(self.run_id, params=new[start : start + 100])

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log figures at a step; non-finite ones are left out (SQL stores refuse them)."""
        self.series([(step, time.time(), values)])

    def series(self, rows: Sequence[tuple[int, float, Mapping[str, float]]]) -> None:
        """Log figures at many steps: one transaction for a thousand of them, not one for each step."""
        from mlflow.entities import Metric

        known = [
            Metric(key, float(value), int(stamp * 1000), step)
            for step, stamp, values in rows
            for key, value in values.items()
            if abs(float(value)) < float("inf")
        ]
        for start in range(0, len(known), 1000):
            self.client.log_batch(self.run_id, metrics=known[start : start + 1000])

    def artifact(self, name: str, data: bytes) -> None:
        """Log bytes as a file; ``name`` may hold folders."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(data)
            self.client.log_artifact(self.run_id, str(path), str(Path(name).parent).strip(".") or None)

    def dataset(self, name: str, digest: str, source: str, profile: Mapping[str, Any]) -> None:
        """Log the run's dataset input."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        logged = Dataset(name, digest[:36], "folder", json.dumps({"uri": source}), None, json.dumps(profile))
        tag = InputTag("mlflow.data.context", "training and evaluation")
        self.client.log_inputs(self.run_id, [DatasetInput(logged, [tag])])

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags."""
        for key, value in values.items():
            self.client.set_tag(self.run_id, key, str(value))

    def finish(self, status: str = "FINISHED") -> None:
        """End the MLflow run."""
        self.client.set_terminated(self.run_id, status)

    def child(self, name: str, run_id: str | None = None) -> Tracker:
        """A nested run; ``run_id`` continues one."""
        tags = {"mlflow.parentRunId": str(self.run_id)}
        return _open_run(self.client, self.experiment_id, name, run_id, tags)


def default_uri(run_folder: Folder) -> str:
    """sqlite beside the run (its parent folder), or in the working folder for remote runs."""
    parent = Path(run_folder.path).parent if run_folder.is_local else Path.cwd()
    return f"sqlite:///{parent / 'mlflow.db'}"


def open_tracker(config: Config, run_folder: Folder, run_id: str | None = None) -> Tracker:
    """The tracker of a whole pipeline run. Raises TrackingError where MLflow cannot be reached."""
    if not config.tracking.enabled:
        return Tracker()
    uri = config.tracking.uri or default_uri(run_folder)
    with mlflow_errors(uri):
        client = connect(uri)
        experiment = _experiment(client, config.tracking.experiment, uri)
        name = f"{config.dataset.name}-{config.preset}"
        return _open_run(client, experiment, name, run_id, {})


def connect(uri: str) -> Any:
    """An MlflowClient; creates a sqlite database once, here, in the driver."""
    for key, value in os_environ_defaults.items():
        os.environ.setdefault(key, value)
    import mlflow
    from mlflow.utils.logging_utils import disable_logging

    disable_logging()  # cotray says itself what was registered; errors come as exceptions
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient(uri, uri)


def _experiment(client: Any, name: str, uri: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = None
    if uri.startswith("sqlite:///"):
        location = (Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts").as_uri()
    return str(client.create_experiment(name, artifact_location=location))


def _open_run(
    client: Any, experiment_id: str, name: str, run_id: str | None, tags: dict[str, str]
) -> MlflowTracker:
    from mlflow.exceptions import MlflowException

    if run_id:
        try:
            client.update_run(run_id, status="RUNNING")
            return MlflowTracker(client, experiment_id, run_id)
        except MlflowException:
            pass  # the store was removed or changed since: begin a new run there
    run = client.create_run(experiment_id, tags=tags | {"mlflow.runName": name}, run_name=name)
    return MlflowTracker(client, experiment_id, run.info.run_id)


@contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """Turn MLflow's many errors into one that names the place and the cure."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:  # MLflow lets SQLAlchemy, requests and OS errors through
        raise TrackingError(
            f"MLflow failed: {str(error).splitlines()[0][:300]}",
            where=uri,
            cure="Check --tracking-uri, or run with --set tracking.enabled=false.",
        ) from error


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mapping -> dotted leaves."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
