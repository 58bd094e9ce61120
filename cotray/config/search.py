"""Settings of feature selection: sine-cosine algorithm, adaptive beta-hill climbing, fitness."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cotray.config.base import Section


class ScaConfig(Section):
    """Sine-cosine algorithm, Eq. 14-15."""

    agents: int = Field(20, ge=2)
    """Population size."""
    iterations: int = Field(20, ge=1)
    """Iterations T."""
    a: float = Field(2.0, gt=0)
    """r1 falls linearly from a to 0."""
    transfer: Literal["sigmoid", "vshaped"] = "sigmoid"
    """How a position becomes a mask: S-shaped (paper) or V-shaped."""
    init: Literal["random", "ranked"] = "ranked"
    """`random` as in the paper; `ranked` seeds positions from univariate scores and a sparse density."""
    patience: int = Field(0, ge=0)
    """Stop after this many iterations without a better mask; 0 = never."""


class AbhcConfig(Section):
    """Adaptive beta-hill climbing, Eq. 16-17."""

    when: Literal["iteration", "end", "off"] = "iteration"
    """Refine the best agent after each SCA iteration, once at the end, or never."""
    steps: int = Field(8, ge=1)
    """Steps Tmax of each refinement."""
    p: float = Field(2.0, gt=0)
    """P of Eq. 16: how the neighbourhood shrinks."""
    beta_min: float = Field(0.001, ge=0, le=1)
    """Smallest beta."""
    beta_max: float = Field(0.01, ge=0, le=1)
    """Largest beta."""
    beta_rule: Literal["redraw", "revert"] = "redraw"
    """What beta does to a coordinate: draw it anew (original) or take the parent's (binary codes)."""


class FitnessConfig(Section):
    """What a mask is worth: w*error + (1-w)*|S|/D, smaller is better."""

    engine: Literal["knn", "ridge"] = "knn"
    """Classifier that gives the error."""
    k: int = Field(5, ge=1)
    """Neighbours of k-NN."""
    ridge: float = Field(1.0, gt=0)
    """Penalty of the ridge classifier."""
    weight: float = Field(0.99, gt=0, le=1)
    """w: error against size."""
    folds: int = Field(3, ge=2)
    """Group-disjoint inner folds of the training split."""
    max_cells: int | None = Field(2000, ge=10)
    """At most this many training cells take part, classes in proportion; None = all."""


class SelectConfig(Section):
    """How the search is run."""

    evaluator: Literal["ray", "serial"] = "ray"
    """`ray`: chunks of agents as parallel Ray tasks; `serial`: in this process. Same result."""
    chunks_per_cpu: int = Field(2, ge=1)
    """Tasks per CPU and iteration."""
    max_features: int | None = Field(None, ge=1)
    """Before the search, keep only this many features by univariate score; None = all."""
