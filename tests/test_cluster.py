from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture
def cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPO / "cluster.yaml").read_text())
    return loaded


def pins() -> dict[str, str]:
    lines = (REPO / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_ray_accepts_the_cluster(cluster: dict[str, Any]) -> None:
    prepared = prepare_config(cluster)
    validate_config(prepared)
    types = prepared["available_node_types"]
    assert types[prepared["head_node_type"]]["max_workers"] == 0
    assert {name: (t["min_workers"], t["max_workers"]) for name, t in types.items() if name != "head"} == {
        "cpu_worker": (0, 8),
        "gpu_worker": (0, 4),
    }


def test_ray_refuses_a_misspelt_key(cluster: dict[str, Any]) -> None:
    broken = copy.deepcopy(cluster)
    broken["available_node_types"]["cpu_worker"]["min_worker"] = 1
    with pytest.raises(jsonschema.ValidationError, match="min_worker"):
        validate_config(prepare_config(broken))


def test_nodes_install_cotray_with_the_constraints_that_are_mounted(cluster: dict[str, Any]) -> None:
    install = next(c for c in cluster["setup_commands"] if "pip install" in c)
    assert "-c constraints.txt" in install
    mounted = {Path(remote).name: REPO / local for remote, local in cluster["file_mounts"].items()}
    assert mounted.keys() >= {"constraints.txt", "pyproject.toml", "cotray", "LICENSE"}
    assert [path for path in mounted.values() if not path.exists()] == []


def test_the_images_hold_the_ray_of_the_constraints(cluster: dict[str, Any]) -> None:
    images = [cluster["docker"]["image"]]
    images += [t["docker"]["worker_image"] for t in cluster["available_node_types"].values() if "docker" in t]
    assert len(images) == 2
    for image in images:
        assert image.startswith(f"rayproject/ray:{pins()['ray']}-py311"), image


def test_constraints_are_exact_and_fit_every_build_of_torch() -> None:
    assert pins()["torch"] == "2.13.0"
    assert pins()["torchvision"] == "0.28.0"
    assert [name for name, version in pins().items() if "+" in version or not version[0].isdigit()] == []
    assert not {"cotray", "nvidia-cudnn-cu12"} & pins().keys()
