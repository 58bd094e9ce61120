"""Whoever evaluates, the masks are the same; and workers and nodes may die."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cotray.config import Config, load_config
from cotray.errors import TrainingError
from cotray.selection.engines import make_fitness
from cotray.selection.fitness import Fitness
from cotray.selection.problem import Table, make_problem
from cotray.selection.select import Hooks, select_features
from cotray.stages import evaluators

LONG = (pytest.mark.slow, pytest.mark.long)
SETTINGS = ("sca.agents=6", "sca.iterations=4", "abhc.steps=3", "abhc.width=2")


def table(seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    label = np.arange(90) % 3
    feat = rng.normal(size=(90, 20)).astype(np.float32)
    feat[:, :3] += label[:, None]
    return Table(feat, label, np.arange(90) // 2)


def engine(config: Config) -> Fitness:
    given = table()
    problem = make_problem(given.feat_ND, given.label_N, given.group_N, config.fitness, 0)
    return make_fitness(problem, config.fitness)


def masks(count: int = 12) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.random.default_rng(1).uniform(size=(count, 20)) < 0.4


class Deadly(Fitness):
    """Kills its process the first time that it is asked, as the marker file tells."""

    def __init__(self, inner: Fitness, marker: Path, always: bool = False) -> None:
        self.inner, self.marker, self.always = inner, marker, always

    def errors(self, mask_PD: Any) -> Any:
        return self.inner.errors(mask_PD)

    def __call__(self, mask_PD: Any) -> Any:
        if self.always or not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner(mask_PD)


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize(
    "setting",
    [
        (),
        pytest.param(("select.islands=2", "select.migrate=2"), marks=LONG),
        pytest.param(("fitness.engine=ridge",), marks=LONG),
    ],
)
def test_the_same_masks_whoever_evaluates(setting: tuple[str, ...]) -> None:
    config = load_config(overrides=[*SETTINGS, *setting])
    found = {}
    for name, evaluator in evaluators.EVALUATORS.items():
        selection = select_features(table(), config, seed=5, hooks=Hooks(evaluator=evaluator))
        found[name] = (selection.mask_D.tolist(), selection.fitness, selection.result.history)
    assert found["ray"] == found["serial"]
    assert found["tasks"] == found["serial"]


@pytest.mark.usefixtures("ray_local")
def test_members_are_the_same_in_tasks() -> None:
    config = load_config(overrides=[*SETTINGS, "select.members=3", "select.rule=consensus"])
    here = select_features(table(), config, seed=5)
    there = select_features(table(), config, seed=5, hooks=Hooks(run_all=evaluators.run_members))
    np.testing.assert_array_equal(here.member_MD, there.member_MD)
    np.testing.assert_array_equal(here.mask_D, there.mask_D)


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("make", [evaluators.actors, evaluators.tasks])
def test_a_killed_worker_is_replaced_and_its_agents_asked_again(
    make: Callable[[Fitness], AbstractContextManager[Any]], tmp_path: Path
) -> None:
    fitness = engine(load_config())
    with make(Deadly(fitness, tmp_path / "died")) as evaluate:
        values = evaluate(masks())
    assert (tmp_path / "died").exists()
    np.testing.assert_array_equal(values, fitness(masks()))


@pytest.mark.usefixtures("ray_local")
def test_workers_that_die_again_and_again_end_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluators, "MOST_DEATHS", 2)
    deadly = Deadly(engine(load_config()), tmp_path / "died", always=True)
    with (
        evaluators.actors(deadly, workers=1) as evaluate,
        pytest.raises(TrainingError, match=r"died one after the other.*cache_mb"),
    ):
        evaluate(masks())


@pytest.mark.usefixtures("ray_local")
def test_more_workers_than_masks() -> None:
    fitness = engine(load_config())
    with evaluators.actors(fitness, workers=2, cpu=0.5) as evaluate:
        np.testing.assert_array_equal(evaluate(masks(1)), fitness(masks(1)))


LOST_NODE = """
import sys, time
import numpy as np
import ray
from ray.cluster_utils import Cluster
sys.path.insert(0, {here!r})
import test_evaluators as t
from cotray.config import load_config
from cotray.stages.evaluators import ActorPool

cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1}})
node = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
fitness = t.engine(load_config())
pool = ActorPool(fitness, workers=2, cpu=0.5)
first = pool(t.masks())
where = {{ray.get(actor.__ray_call__.remote(t.node_id)) for actor in pool.actors}}
assert len(where) == 2, "both nodes work"
cluster.remove_node(node, allow_graceful=False)
np.testing.assert_array_equal(first, fitness(t.masks()))
deadline = time.monotonic() + 60  # a worker outlives its node for a moment
while pool.replaced == 0 and time.monotonic() < deadline:
    np.testing.assert_array_equal(pool(t.masks()), first)
assert pool.replaced >= 1, "an actor was lost with its node"
print("SURVIVED", pool.replaced)
ray.shutdown()
cluster.shutdown()
"""


def node_id(actor: Any) -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


@pytest.mark.slow
def test_a_lost_node_is_survived(tmp_path: Path) -> None:
    """A cluster of two nodes in a process of its own; one is killed between two batches."""
    import subprocess
    import sys

    script = tmp_path / "lost.py"
    script.write_text(LOST_NODE.format(here=str(Path(__file__).parent)))
    path = os.pathsep.join([str(Path(__file__).parent), str(Path.cwd())])
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    assert "SURVIVED" in done.stdout
