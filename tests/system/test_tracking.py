"""What MLflow knows after a run: read back with MLflow's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run as MlflowRun
from quick import Finished

from cotray.bundle import load_bundle
from cotray.data.decode import encode_png
from cotray.data.phantom import draw_phantom, phantom_index
from cotray.predictor import Predictor
from cotray.stages.pipeline import STAGES


@pytest.fixture
def client(finished: Finished) -> Iterator[mlflow.MlflowClient]:
    uri = f"sqlite:///{finished.home / 'runs' / 'mlflow.db'}"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    yield mlflow.MlflowClient(uri)
    mlflow.set_tracking_uri(before)


def children(client: mlflow.MlflowClient) -> tuple[MlflowRun, dict[str, MlflowRun]]:
    experiment = client.get_experiment_by_name("cotray")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    stages = {run.info.run_name: run for run in runs if run is not parent}
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in stages.values())
    return parent, stages


def test_one_parent_and_a_child_for_each_stage(client: mlflow.MlflowClient) -> None:
    parent, stages = children(client)
    assert set(stages) == set(STAGES)
    assert {run.info.status for run in [parent, *stages.values()]} == {"FINISHED"}
    assert parent.data.params["preset"] == "tiny"
    assert parent.data.params["dataset.name"] == "phantom"
    assert parent.data.tags["env.torch"]
    (used,) = stages["ingest"].inputs.dataset_inputs
    assert used.dataset.name == "phantom"
    assert json.loads(used.dataset.profile)["in"] == 96


def test_metrics_over_time_and_final_ones(client: mlflow.MlflowClient) -> None:
    _, stages = children(client)
    losses = client.get_metric_history(stages["train_backbone"].info.run_id, "backbone_loss")
    assert [row.step for row in losses] == [1, 2, 3]
    search = client.get_metric_history(stages["select"].info.run_id, "select_best_fitness")
    assert [row.step for row in search] == [1, 2, 3, 4]
    values = [row.value for row in search]
    assert values == sorted(values, reverse=True)
    assert 0 <= stages["evaluate"].data.metrics["balanced_accuracy"] <= 1
    assert stages["ingest"].data.metrics["used"] == 96


def test_figures_and_report_are_artifacts(client: mlflow.MlflowClient) -> None:
    _, stages = children(client)
    run_id = stages["evaluate"].info.run_id
    names = {item.path for item in client.list_artifacts(run_id, "figures")}
    assert {"figures/roc.png", "figures/confusion.png", "figures/reliability.png"} <= names
    assert [item.path for item in client.list_artifacts(run_id, "report")] == ["report/index.html"]


def test_grids_over_time_are_artifacts_of_synthesize(client: mlflow.MlflowClient) -> None:
    _, stages = children(client)
    run = stages["synthesize"]
    grids = [item.path for item in client.list_artifacts(run.info.run_id, "leugan-epochs")]
    assert grids == [f"leugan-epochs/epoch-{epoch:05d}.png" for epoch in (1, 2)]
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"over_time.png", "pairs.png", "distances.png", "samples.png"} <= names
    assert {"pixels_pca_kernel", "pixels_pca_copy_alarm"} <= set(run.data.metrics)
    assert {"backbone_kernel", "backbone_copy_alarm"} <= set(stages["extract"].data.metrics)


def test_the_champion_is_a_model_from_code_that_answers_like_the_bundle(
    client: mlflow.MlflowClient, finished: Finished
) -> None:
    version = client.get_model_version_by_alias("cotray-phantom", "champion")
    metrics = json.loads((finished.run / "evaluate" / "metrics.json").read_text())["cotray"]["metrics"]
    assert float(version.tags["value"]) == pytest.approx(metrics["balanced_accuracy"])
    model = mlflow.pyfunc.load_model("models:/cotray-phantom@champion")
    assert model.metadata.signature is not None
    assert model.metadata.saved_input_example_info is not None
    image = encode_png(draw_phantom(phantom_index("all-idb2", 4, 1, 99)[0]).rgb)
    (row,) = model.predict(pd.DataFrame({"image": [image]})).to_dict("records")
    answer = Predictor(load_bundle(str(finished.run / "evaluate" / "bundle"))).predict(image)
    assert row["class"] == answer.label
    assert row["model_version"] == answer.model_version == version.tags["bundle_version"]
    assert row["probability"] == pytest.approx(answer.probability)
