"""Joining or starting Ray, quietly, and asking it what there is."""

from __future__ import annotations

import logging
import os
from typing import Any

from cotray.config import ComputeConfig
from cotray.errors import InvalidValueError

DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # a lab's tool phones nobody
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # the controller's 2 s poll would dominate short epochs
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TQDM_DISABLE": "1",
    # Threads of a busy machine must not spin while they wait for one that is not running: with two
    # trainings on two cores that made every step several times slower.
    "OMP_WAIT_POLICY": "PASSIVE",
}

OWN = "cotray"
"""A resource, of which there is one, in a Ray that cotray started for itself on this machine."""
OWN_STEPS = 10_000
"""Ray counts resources in steps of a ten-thousandth."""


def connect(verbose: bool = False) -> None:
    """Use the Ray that is there (a job's, RAY_ADDRESS, or this process'), else start one here."""
    for key, value in DEFAULTS.items():
        os.environ.setdefault(key, value)
    if not verbose:  # Ray Data's actors make Ray's core write a line of its own on the screen
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if not ray.is_initialized():
        level = logging.INFO if verbose else logging.ERROR
        options: dict[str, Any] = {"logging_level": level, "log_to_driver": verbose}
        try:
            ray.init(**options | _of_own())
        except ValueError:  # there is a Ray on this machine already: it is joined as it is
            ray.init(**options)
    _quiet_data(verbose)


def _of_own() -> dict[str, Any]:
    """Options of a Ray that is started here; joining one, by an address, takes none of them."""
    if os.environ.get("RAY_ADDRESS", "local") not in ("", "local"):
        return {}
    return {"include_dashboard": False, "resources": {OWN: 1}}


def _quiet_data(verbose: bool) -> None:
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if not verbose:
        for name in ("ray.data", "ray.train", "ray.tune"):
            logging.getLogger(name).setLevel(logging.ERROR)


def cpus() -> int:
    """CPUs of the whole cluster."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def own_share() -> float:
    """What a task of one CPU takes of :data:`OWN`, so that as many run as there are CPUs; 0 in a cluster."""
    import ray

    return OWN_STEPS // cpus() / OWN_STEPS if OWN in ray.cluster_resources() else 0.0


def use_gpu(compute: ComputeConfig) -> bool:
    """Whether stages should ask for GPUs. Raises InvalidValueError where one is asked for and there is none:
    Ray would wait for it for ever, in silence."""
    import ray

    there = float(ray.cluster_resources().get("GPU", 0))
    if compute.gpu == "auto":
        return there >= compute.train_workers
    if compute.gpu == "yes" and not there and not compute.wait_for_nodes:
        raise InvalidValueError(
            "A GPU is asked for, and the cluster has none.",
            where="compute.gpu",
            cure="Set compute.gpu=auto, or compute.wait_for_nodes=true where the cluster grows on demand.",
        )
    return compute.gpu == "yes"


def node_cpus() -> int:
    """CPUs of the largest node: what one training worker may use."""
    import ray

    return max((int(n["Resources"].get("CPU", 0)) for n in ray.nodes() if n["Alive"]), default=1) or 1


def require_room(compute: ComputeConfig, threads: int) -> None:
    """Raise InvalidValueError where all nodes together cannot hold the training workers: Ray would wait for
    ever, in silence. Where nodes come on demand (`compute.wait_for_nodes`), it may."""
    import ray

    if compute.wait_for_nodes:
        return
    there = ray.cluster_resources()
    each = {"CPU": float(threads)} | ({"GPU": 1.0} if use_gpu(compute) else {})
    for kind, share in each.items():
        wanted, has = share * compute.train_workers, float(there.get(kind, 0.0))
        if wanted > has:
            raise InvalidValueError(
                f"{compute.train_workers} training workers need {wanted:g} {kind}s, and there are {has:g}.",
                where="compute.train_workers",
                cure="Ask for fewer, or set compute.wait_for_nodes=true where the cluster grows on demand.",
            )
