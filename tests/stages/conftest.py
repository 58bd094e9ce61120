"""One small, private Ray for all tests of stages."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # Ray workers unpickle helpers by module name


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A Ray with two CPUs, whatever the machine has."""
    import ray

    from cotray.stages.cluster import DEFAULTS, connect

    for key, value in DEFAULTS.items():
        os.environ.setdefault(key, value)
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    connect()
    yield
    ray.shutdown()
