"""MLflow's model registry: the bundle as a pyfunc model, and the alias `champion`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cotray
from cotray.bundle import Bundle, is_bundle, load_bundle
from cotray.config import Config
from cotray.errors import BundleError
from cotray.storage import Folder, absolute
from cotray.tracking import MlflowTracker, connect, mlflow_errors

CHAMPION = "champion"
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow's stores answer where a model has no such name, or no such alias."""


def register(
    tracker: MlflowTracker, config: Config, bundle_folder: Folder, bundle: Bundle, example: bytes
) -> str:
    """Log and register the bundle; move `champion` if it earned it. Returns a sentence for people."""
    name = config.tracking.model_name or f"cotray-{config.dataset.name}"
    with mlflow_errors("model registry"):
        version = _log(tracker, name, bundle_folder, bundle, example)
        facts = _facts(bundle, config)
        for key, value in facts.items():
            tracker.client.set_model_version_tag(name, version, key, str(value))
        earned, why = judge(champion_facts(tracker.client, name), facts, config)
        if earned and config.tracking.promote == "auto":
            tracker.client.set_registered_model_alias(name, CHAMPION, version)
    return f"registered as {name} version {version}; {why}"


def _log(tracker: MlflowTracker, name: str, folder: Folder, bundle: Bundle, example: bytes) -> str:
    import mlflow
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    text = [ColSpec(DataType.string, n) for n in ("class", "box", "cells", "set", "model_version")]
    refer = ColSpec(DataType.boolean, "refer", required=False)
    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image")]),
        outputs=Schema(
            [*text[:1], ColSpec(DataType.double, "probability", required=False), refer, *text[1:]]
        ),
    )
    with mlflow.start_run(run_id=tracker.run_id):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).parents[1] / "pyfunc.py"),
            artifacts={"bundle": local_copy(folder)},
            signature=signature,
            input_example=pd.DataFrame({"image": [example]}),
            pip_requirements=[f"cotray=={cotray.__version__}"],
            registered_model_name=name,
            metadata={"bundle_version": bundle.version},
        )
    tracker.client.update_run(tracker.run_id, status="RUNNING")  # the parent goes on
    return str(info.registered_model_version)


def local_copy(folder: Folder) -> str:
    """A path on this machine that holds the folder's files."""
    if folder.is_local:
        return folder.path
    import tempfile

    target = tempfile.mkdtemp(prefix="cotray-bundle-")
    for name in folder.files():
        (Path(target) / name).write_bytes(folder.read_bytes(name))
    return target


def _facts(bundle: Bundle, config: Config) -> dict[str, Any]:
    metrics = bundle.facts.get("metrics", {})
    return {
        "bundle_version": bundle.version,
        "split": bundle.facts.get("split", ""),
        "split_mode": config.split.mode,
        "metric": config.tracking.metric,
        "value": metrics.get(config.tracking.metric, ""),
    }


def champion_facts(client: Any, name: str) -> dict[str, str] | None:
    """Tags of the present champion, or None. Raises MlflowException where the store cannot tell."""
    from mlflow.exceptions import MlflowException

    try:
        return dict(client.get_model_version_by_alias(name, CHAMPION).tags)
    except MlflowException as error:
        if error.error_code in NOT_THERE:
            return None
        raise  # a store that cannot be read must not crown whoever comes next


def judge(champion: dict[str, str] | None, new: dict[str, Any], config: Config) -> tuple[bool, str]:
    """Whether the new model takes the alias, and why: only figures on the same honest split compare."""
    metric = config.tracking.metric
    if new["split_mode"] != "disjoint":
        return False, "not a candidate for champion: its split is leaky"
    if new["value"] == "":
        return False, f"not a candidate for champion: {metric} could not be computed"
    if champion is None:
        return True, f"first champion ({metric} {float(new['value']):.3f})"
    if champion.get("split") != new["split"] or champion.get("metric") != metric:
        return False, "the champion was judged on another split or metric, so it stays; compare by hand"
    old, now = float(champion.get("value") or 0), float(new["value"])
    if now > old:
        return True, f"new champion: {metric} {now:.3f} beats {old:.3f}"
    return False, f"the champion stays: {metric} {now:.3f} does not beat {old:.3f}"


def resolve_bundle(uri: str, tracking_uri: str | None = None) -> Bundle:
    """A bundle from its folder, a run's folder, or an MLflow model URI. Raises BundleError."""
    if uri.startswith(("models:/", "runs:/")):
        return load_bundle(_download(uri, tracking_uri))
    for place in (uri, f"{uri}/evaluate/bundle", f"{uri}/classify/bundle"):
        if is_bundle(place):
            return load_bundle(place)
    raise BundleError(
        "There is no bundle here.",
        where=absolute(uri),
        cure="Give a bundle folder, a finished run's folder, or models:/NAME@champion.",
    )


def _download(uri: str, tracking_uri: str | None) -> str:
    import os

    import mlflow

    connect(
        tracking_uri
        or os.environ.get("MLFLOW_TRACKING_URI")
        or f"sqlite:///{Path('runs/mlflow.db').resolve()}"
    )
    try:
        folder = Path(mlflow.artifacts.download_artifacts(uri))
    except Exception as error:  # MLflow raises what its store raises
        raise BundleError(
            f"MLflow has no such model: {str(error).splitlines()[0][:200]}",
            where=uri,
            cure="Check the name, and set MLFLOW_TRACKING_URI to the store it is in.",
        ) from error
    found = next(iter(sorted(folder.rglob("bundle.json"))), None)
    if found is None:
        raise BundleError("This model holds no cotray bundle.", where=uri)
    return str(found.parent)
