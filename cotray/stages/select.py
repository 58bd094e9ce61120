"""Select: SCA + AbetaHC over feature masks; agents are scored in parallel Ray tasks; resumable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from cotray.config import Config
from cotray.learning import derive_seed
from cotray.runs import StageResult
from cotray.selection.fitness import FITNESS
from cotray.selection.scores import anova_f
from cotray.selection.search import SelectionSearch
from cotray.stages.base import Stage, StageRun
from cotray.stages.cells import column, labels
from cotray.stages.cluster import cpus
from cotray.stages.extract import load_features, select_rows
from cotray.stages.state import pack, unpack
from cotray.stages.weights import array_bytes

Evaluate = Callable[[NDArray[np.bool_]], NDArray[np.float64]]
STATE = "search.npz"


def run(config: Config, at: StageRun) -> StageResult:
    """Search on real training cells alone, scored on group-disjoint inner folds."""
    rows, feat = load_features(at)
    keep = select_rows(rows, ("train",), "real")
    feat, label, group = feat[keep], labels(rows)[keep], column(rows, "group")[keep]
    scores = anova_f(feat, label)
    pool = candidate_pool(scores, config.select.max_features)
    seed = derive_seed(config.seed, 20)
    fitness = FITNESS[config.fitness.engine](feat[:, pool], label, group, config.fitness, seed)
    search = SelectionSearch(len(pool), config.sca, config.abhc, seed=seed, init_scores=scores[pool])
    if at.folder.exists(STATE):
        search.load_state_dict(unpack(at.folder.read_bytes(STATE)))
        at.say("continuing the search where it was")
    evaluate = ray_evaluator(fitness, config) if config.select.evaluator == "ray" else fitness
    _drive(search, evaluate, at, config)
    return _finish(search, pool, feat.shape[1], at)


def candidate_pool(scores_D: NDArray[np.float64], limit: int | None) -> NDArray[np.int64]:
    """Indices of the features that take part, ascending."""
    if limit is None or limit >= len(scores_D):
        return np.arange(len(scores_D))
    return np.sort(np.argsort(-scores_D, kind="stable")[:limit])


def ray_evaluator(fitness: Any, config: Config) -> Evaluate:
    """Chunks of agents as Ray tasks; the data is put once and read by every worker of a node in place."""
    shared = ray.put(fitness)
    chunks = cpus() * config.select.chunks_per_cpu

    def evaluate(masks_PD: NDArray[np.bool_]) -> NDArray[np.float64]:
        pieces = [piece for piece in np.array_split(masks_PD, min(chunks, len(masks_PD))) if len(piece)]
        return np.concatenate(ray.get([_score.remote(shared, piece) for piece in pieces]))

    return evaluate


@ray.remote(max_retries=-1)  # type: ignore[untyped-decorator]
def _score(fitness: Any, masks_PD: NDArray[np.bool_]) -> NDArray[np.float64]:
    """One chunk; retried for ever when its worker dies: scoring has no side effects."""
    return np.asarray(fitness(masks_PD), np.float64)


def _drive(search: SelectionSearch, evaluate: Evaluate, at: StageRun, config: Config) -> None:
    """Ask, evaluate, tell; save after every iteration."""
    seen = len(search.history)
    while not search.done:
        search.tell(evaluate(search.ask()))
        if len(search.history) == seen:
            continue
        seen = len(search.history)
        at.folder.write_bytes(STATE, pack(search.state_dict()))
        row = search.history[-1]
        at.tracker.metrics({f"select_{k}": float(v) for k, v in row.items()}, step=seen)
        shown = f"fitness {row['best_fitness']:.4f}  features {int(row['best_size'])}"
        at.voice.progress("select", min(seen, config.sca.iterations), config.sca.iterations, shown)


def _finish(search: SelectionSearch, pool: NDArray[np.int64], width: int, at: StageRun) -> StageResult:
    result = search.result
    mask = np.zeros(width, bool)
    mask[pool[result.mask]] = True
    at.folder.write_bytes("mask.npy", array_bytes(mask))
    at.folder.write_json("history.json", [{k: float(v) for k, v in row.items()} for row in result.history])
    counts = {"features": width, "candidates": len(pool), "selected": int(mask.sum())}
    counts["evaluations"] = int(result.history[-1]["evaluations"])
    return StageResult(
        counts, {"fitness": float(result.fitness)}, {"mask": "mask.npy", "history": "history.json"}
    )


STAGE = Stage(
    name="select",
    summary="sine-cosine search with adaptive beta-hill climbing over features",
    version=1,
    sections=("sca", "abhc", "fitness", "select"),
    needs=("extract",),
    run=run,
)
