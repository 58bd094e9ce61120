"""Settings of feature selection: sine-cosine algorithm, adaptive beta-hill climbing, fitness."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cotray.config.base import Section


class ScaConfig(Section):
    """Sine-cosine algorithm, Eq. 14-15. Its rivals share the population, iterations and initialiser."""

    agents: int = Field(20, ge=2)
    """Population size."""
    iterations: int = Field(20, ge=1)
    """Iterations T."""
    a: float = Field(2.0, gt=0)
    """r1 falls linearly from a to 0."""
    transfer: Literal["sigmoid", "s1", "s2", "s3", "s4", "vshaped", "v1", "v2", "v3", "v4"] = "sigmoid"
    """How a position becomes a mask: S-shaped (`sigmoid` is the paper's) or V-shaped (flips bits)."""
    init: Literal["random", "sparse", "ranked"] = "ranked"
    """Where agents start: `random` as in the paper; `sparse`: few features, at random; `ranked`: the best
    features under a univariate score, as many as a filter would try."""
    moves: Literal["few", "all"] = "few"
    """Coordinates an agent moves in an iteration: `all`, as printed, or `few`."""
    few: int = Field(4, ge=1)
    """How many are few: half of them features taken by the agent or the best one, half others."""
    greedy: bool = True
    """An agent goes back if its move was worse; False = it moves on, as printed."""
    patience: int = Field(0, ge=0)
    """Stop after this many iterations without a better mask; 0 = never."""


class AbhcConfig(Section):
    """Adaptive beta-hill climbing, Eq. 16-17."""

    when: Literal["iteration", "end", "off"] = "iteration"
    """Refine after each SCA iteration, once at the end, or never."""
    who: Literal["best", "agents"] = "best"
    """Refine the best mask so far, or every agent's."""
    steps: int = Field(11, ge=1)
    """Steps Tmax of each refinement."""
    width: int = Field(1, ge=1)
    """Neighbours tried at each step, the best of which counts: what can be scored in parallel."""
    moves: Literal["few", "one", "all"] = "few"
    """What a neighbour changes: `few`: one or two bits; `one`: one coordinate by N(t), as in the
    original; `all`: every coordinate by N(t), as printed."""
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

    engine: Literal["knn", "knn-torch", "ridge", "logistic", "sklearn"] = "knn"
    """Classifier that gives the error: `knn` (exact, incremental), `knn-torch` (the same on a GPU),
    `ridge` (closed form), `logistic` (started from the closed form), `sklearn` (any scikit-learn
    classifier, slow)."""
    estimator: str = "sklearn.svm.LinearSVC"
    """Dotted name of the `sklearn` engine's classifier, below `sklearn.`; others as objects, in Python."""
    k: int = Field(5, ge=1)
    """Neighbours of k-NN."""
    ridge: float = Field(1.0, gt=0)
    """Penalty of the ridge and logistic classifiers."""
    weight: float = Field(0.99, gt=0, le=1)
    """w: error against size."""
    metric: Literal["balanced", "plain"] = "balanced"
    """`balanced`: 1 - mean recall of the classes; `plain`: share of samples called wrongly."""
    soft: float = Field(0.5, ge=0, le=1)
    """Part of the error that is the share given to wrong classes (votes, probabilities) instead of wrong
    calls. A call is right or wrong; shares change smoothly, and a search that follows them overfits less.
    0 = calls alone (paper)."""
    scheme: Literal["auto", "folds", "holdout", "leave_out"] = "auto"
    """How training samples judge masks. `folds`: every group-disjoint fold in turn; `holdout`: one held-
    out part; `leave_out`: every group in turn (every sample, where there are no groups); `auto`:
    `leave_out` for k-NN, else `folds`."""
    folds: int = Field(3, ge=2)
    """Group-disjoint inner folds of the training split."""
    repeats: int = Field(1, ge=1)
    """Ways of folding that a mask is judged by, each drawn anew; `leave_out` has only one."""
    holdout: float = Field(0.25, gt=0, le=0.5)
    """Held-out share of the scheme `holdout`."""
    max_cells: int | None = Field(2000, ge=10)
    """At most this many training cells take part, classes in proportion; None = all."""
    cache_mb: float = Field(512, ge=0)
    """Memory of each worker for the distances of masks seen before. Saves time, changes no result."""


class SelectConfig(Section):
    """How the search is run."""

    optimizer: Literal["sca", "ga", "pso", "random"] = "sca"
    """`sca`: sine-cosine algorithm with adaptive beta-hill climbing; for comparison a genetic algorithm
    (`ga`), a binary particle swarm (`pso`) and `random` search, under the same budget."""
    budget: str | None = None
    """Stop after this much: `620 evaluations` or `30 seconds`; None = when the iterations are done."""
    scores: Literal["auto", "anova", "relief"] = "auto"
    """Univariate score behind `ranked` and the proposals: `anova` F, `relief` (sees features that tell
    only together), `auto`: both, each feature by its better rank."""
    rule: Literal["best", "one_se", "consensus"] = "best"
    """Which mask is reported: the fittest; the smallest within one standard error of it; or features that
    searches on halves of the data agree on (`select.members`), if those are fitter."""
    members: int = Field(0, ge=0)
    """Searches on halves of the training groups, for stability figures and `rule=consensus`."""
    islands: int = Field(1, ge=1)
    """Populations that search side by side and pass on their best; each is as large as `sca.agents`."""
    migrate: int = Field(5, ge=1)
    """Iterations between migrations of islands."""
    ask: Literal["validation", "training"] = "validation"
    """A pipeline run: whose cells judge masks. `validation`: cells of the validation split, by what training
    cells teach; the backbone has learned the latter by heart, so that hardly any mask errs on them.
    `training` (paper): training cells in turn, by `fitness.scheme`; the validation split tells the gap."""
    outer: float = Field(0.2, ge=0, lt=0.9)
    """`cotray select` on a table: share of groups that the search never sees and that judge its mask; 0 =
    none."""
    evaluator: Literal["ray", "tasks", "serial"] = "ray"
    """Who scores: `ray`: long-lived actors, one per CPU; `tasks`: one Ray task per agent; `serial`: this
    process. The masks found are the same, bit for bit."""
    max_features: int | None = Field(None, ge=1)
    """Before the search, keep only this many features by score; None = all."""


class TuneConfig(Section):
    """Tuning: many selections with other settings, judged on groups that none of them saw."""

    search: dict[str, str] = {}
    """What to vary: dotted key -> `1..4`, `0.001..0.1:log`, `10..40:int` or `sigmoid,vshaped`. None = SCA's
    a, agents, transfer and init, AbetaHC's p and beta, and its steps if there is a `select.budget`."""
    trials: int = Field(20, ge=1)
    """Settings to try; the first are those given."""
    concurrent: int | None = Field(None, ge=1)
    """Trials at once; None = as many as there are CPUs for. With 1 the same seed gives the same trials."""
    evaluators_per_trial: int = Field(0, ge=0)
    """Workers with a CPU each that score masks for a trial; 0 = each trial scores by itself on one CPU."""
    budget_seconds: float | None = Field(None, gt=0)
    """Stop trying after this; what was under way is done anew by the next call. None = no limit."""
    outer_folds: int = Field(3, ge=2)
    """Group-disjoint folds: a trial selects on all but one and is judged on that one, in turn."""
    holdout: float = Field(0.2, ge=0, lt=0.9)
    """Share of the groups that no trial sees: they judge the settings given and the best ones at the end; 0 =
    none. In a pipeline run its validation split takes this part."""
    size_weight: float = Field(0.0, ge=0)
    """Objective = error + this * share of the features kept. 0 = error alone."""
    stop_early: bool = True
    """Stop trials that fall behind (ASHA over iterations of the search)."""
    grace: int = Field(3, ge=1)
    """Iterations that every trial may take before it can be stopped."""
    reduction: int = Field(3, ge=2)
    """Of the trials that reach one of ASHA's rungs, one of this many goes on to the next, this many times
    later."""
    startup: int = Field(8, ge=1)
    """Trials drawn at random before Optuna's sampler (TPE) learns from them."""
