"""Toy problems for searches over feature masks, and every kind of search that settings can ask for."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cotray.config import Config, FitnessConfig
from cotray.selection.budget import Budget
from cotray.selection.drive import make_search
from cotray.selection.knn import KnnFitness
from cotray.selection.problem import Table, make_problem
from cotray.selection.scores import anova_f
from cotray.selection.search import Search
from cotray.selection.transfer import Masks

Values = NDArray[np.float64]
DIM, GOOD = 40, 5
PRINTED = {"moves": "all", "greedy": False, "init": "random"}
"""SCA as the paper prints it."""

KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "printed": {"sca": PRINTED, "abhc": {"moves": "all"}},
    "printed, v-shaped": {"sca": PRINTED | {"transfer": "vshaped"}, "abhc": {"moves": "one"}},
    "at the end": {"abhc": {"when": "end", "beta_rule": "revert", "width": 2}},
    "no refinement": {"sca": {"transfer": "s1"}, "abhc": {"when": "off"}},
    "v-shaped": {"sca": {"greedy": False, "transfer": "v3"}, "abhc": {"beta_min": 0.01}},
    "every agent": {"abhc": {"who": "agents", "width": 2, "beta_max": 0.3}},
    "every agent, printed": {"sca": PRINTED, "abhc": {"who": "agents", "moves": "all"}},
    "every agent, at the end": {
        "sca": {"init": "sparse", "few": 7},
        "abhc": {"who": "agents", "when": "end"},
    },
    "wide": {"sca": {"few": 1, "transfer": "s4"}, "abhc": {"width": 5, "moves": "one"}},
    "ga": {"select": {"optimizer": "ga"}},
    "pso": {"select": {"optimizer": "pso"}},
    "random": {"select": {"optimizer": "random"}},
    "islands": {"select": {"islands": 3, "migrate": 2}},
    "islands, at the end": {"select": {"islands": 2, "migrate": 1}, "abhc": {"when": "end"}},
    "islands of ga": {"select": {"optimizer": "ga", "islands": 2, "migrate": 1}},
}
"""Settings beside those of :func:`search_of`."""


def search_of(
    kind: str,
    seed: int = 0,
    dim: int = 12,
    scores: Values | None = None,
    budget: Budget | None = None,
    **sca: Any,
) -> Search:
    """A small search: 4 agents, 5 iterations, 3 steps of refinement."""
    given = KINDS[kind]
    config = Config.model_validate(
        {
            "sca": {"agents": 4, "iterations": 5} | given.get("sca", {}) | sca,
            "abhc": {"steps": 3} | given.get("abhc", {}),
            "select": given.get("select", {}),
        }
    )
    return make_search(dim, config, budget or Budget(), seed=seed, init_scores=scores)


def cheap(masks_PD: Masks) -> Values:
    """A value with ties and no data: wrong features taken, and right ones missing."""
    wrong_P, right_P = masks_PD[:, 3:].sum(axis=1), masks_PD[:, :3].sum(axis=1)
    return np.asarray(wrong_P / masks_PD.shape[1] + 3 - right_P)


def run_out(search: Search) -> list[Masks]:
    """Every batch asked from here to the end."""
    asked = []
    while not search.done:
        asked.append(search.ask().copy())
        search.tell(cheap(asked[-1]))
    return asked


def table(seed: int = 7, samples: int = 120, dim: int = DIM) -> Table:
    """Samples in groups of six, of two classes; the first five features tell them apart."""
    rng = np.random.default_rng(seed)
    label = np.arange(samples) % 2
    feat = rng.normal(size=(samples, dim)).astype(np.float32)
    feat[:, :GOOD] += 1.3 * label[:, None]
    group = np.array([f"{i // 12}-{i % 2}" for i in range(samples)])
    return Table(feat, label, group)


@cache
def planted() -> tuple[KnnFitness, Values]:
    """A real engine on :func:`table`, and the features' scores."""
    whole, cfg = table(), FitnessConfig()
    problem = make_problem(whole.feat_ND, whole.label_N, whole.group_N, cfg, 0)
    return KnnFitness(problem, cfg), anova_f(problem.feat_ND, problem.label_N)
