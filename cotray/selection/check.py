"""From what people bring (frames, arrays, lists) to a table that can be selected from, or what is wrong.

N samples, D features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils import column_or_1d

from cotray.config import Config, FitnessConfig
from cotray.errors import ClassError, DataError, FeatureError, NotNumbersError, TooFewGroupsError
from cotray.selection.problem import Table, asked_folds, moments

Names = NDArray[np.str_]
LEAST, FEW = 4, 30
"""Samples below which nothing can be judged; and below which what is found may be chance."""
SHOWN = 5
"""Columns that a message names; the rest is counted."""
LARGE = 1e150
"""Numbers from here on are as good as infinite: their squares are."""


@dataclass(frozen=True)
class Checked:
    """A table that can be selected from, and what its owner should know."""

    table: Table
    names: Names
    """Of the features: (D,)."""
    notes: list[str] = field(default_factory=list)
    """Sentences for people: what is odd, but no error."""
    overruled: list[str] = field(default_factory=list)
    """Those of the notes that name a setting that cannot be followed."""


def check_table(
    features: Any,
    target: Any,
    groups: Any = None,
    names: Sequence[str] | None = None,
    config: Config | None = None,
) -> Checked:
    """Check everything that a selection needs.

    ``features``: (N, D), a frame (pandas, Polars, Arrow) or array-like of finite numbers. ``target``: N
    classes: numbers, text or booleans. ``groups``: N groups (subjects); None = every sample is its own.
    ``names``: of the features; None = the frame's, or x0, x1, ...

    Raises FeatureError, NotNumbersError, ClassError, TooFewGroupsError or DataError, each with a cure.
    """
    config = config or Config()
    feat_ND, known = check_features(features, names)
    label_N = check_target(target, len(feat_ND))
    group_N = check_groups(groups, len(feat_ND))
    overruled = check_folds(label_N, group_N, groups is not None, config.fitness)
    notes = [*odd_features(feat_ND, known), *odd_samples(label_N, config.fitness), *overruled]
    return Checked(Table(feat_ND, label_N, group_N), known, notes, overruled)


# -- features -----------------------------------------------------------------------------------------------


def check_features(features: Any, names: Sequence[str] | None = None) -> tuple[NDArray[np.floating], Names]:
    """Finite numbers (N, D), float32 or float64, and their columns' names. Raises FeatureError."""
    if issparse(features):
        raise FeatureError("Sparse features are not supported.", cure="Give a dense array: X.toarray().")
    array = features.to_numpy() if hasattr(features, "to_numpy") else _array(features, "features")
    if array.ndim != 2:
        raise FeatureError(
            f"The features have {array.ndim} dimension(s); there must be 2, samples and features.",
            cure="Reshape your data: X.reshape(-1, 1) if it has a single feature.",
        )
    if not array.shape[1]:
        raise FeatureError(f"Found 0 feature(s) (shape={array.shape}) while a minimum of 1 is required.")
    if len(array) < LEAST:
        one = "1 sample" if len(array) == 1 else f"{len(array)} samples"
        raise FeatureError(f"Found {one}; a selection needs at least {LEAST}, two of each class.")
    known = feature_names(features, names, array.shape[1])
    feat_ND = as_numbers(array, known)
    _refuse_infinite(feat_ND, known)
    return feat_ND, known


def feature_names(features: Any, names: Sequence[str] | None, width: int) -> Names:
    """The names given, or the frame's, or x0, x1, ...; none twice. Raises FeatureError."""
    if names is None:
        names = getattr(features, "column_names", getattr(features, "columns", None))
    known = [f"x{i}" for i in range(width)] if names is None else [str(name) for name in names]
    if len(known) != width:
        raise FeatureError(f"There are {len(known)} names for {width} features.", cure="Name each feature.")
    values, counts = np.unique(known, return_counts=True)
    if (counts > 1).any():
        raise FeatureError(f"Duplicated names: {listed(values[counts > 1])}.", cure="Rename them.")
    return np.array(known, np.str_)


def as_numbers(array_ND: NDArray[Any], names: Names) -> NDArray[np.floating]:
    """The same as float32 (what was at most that precise) or float64. Raises NotNumbersError."""
    kind = array_ND.dtype.kind
    if kind == "c":
        raise NotNumbersError("Complex data not supported.", cure="Give real and imaginary parts as columns.")
    if kind in "fbiu":
        small = kind == "f" and array_ND.dtype.itemsize <= 4
        return np.asarray(array_ND, np.float32 if small else np.float64)
    feat_ND, why = np.empty(array_ND.shape), {}
    for d, name in enumerate(names):
        try:
            feat_ND[:, d] = _floats(array_ND[:, d])
        except (TypeError, ValueError) as error:
            why[str(name)] = str(error)
    if why:
        raise NotNumbersError(
            f"No numbers in {listed(why)}: {next(iter(why.values()))}.",
            cure="Drop such columns, or encode them (one-hot, ordinal).",
        )
    return feat_ND


def _floats(column_N: NDArray[Any]) -> NDArray[np.float64]:
    if column_N.dtype.kind in "mM":
        raise TypeError("dates and times are no numbers")
    return np.where(pd.isna(column_N), np.nan, column_N.astype(object)).astype(np.float64)


def _refuse_infinite(feat_ND: NDArray[np.floating], names: Names) -> None:
    limit = min(LARGE, float(np.finfo(feat_ND.dtype).max))
    bad_D = np.count_nonzero(~(np.abs(feat_ND) <= limit), axis=0)  # NaN is not below anything
    if bad_D.any():
        raise FeatureError(
            f"NaN, infinity or numbers beyond {LARGE:g} in {listed(names[bad_D > 0], bad_D[bad_D > 0])}.",
            cure="Impute them (sklearn.impute.SimpleImputer), or drop these columns or rows.",
        )


def odd_features(feat_ND: NDArray[np.floating], names: Names) -> list[str]:
    """A note on constant features. Raises FeatureError if there is no other."""
    constant_D = moments(feat_ND)[1] == 0
    if constant_D.all():
        raise FeatureError(
            "Every feature is constant: nothing tells the classes apart.", cure="Give features that vary."
        )
    if not constant_D.any():
        return []
    return [f"constant, and therefore never selected: {listed(names[constant_D])}"]


def listed(names: Iterable[str], counts: Iterable[int] | None = None) -> str:
    """``column 'a'``, ``columns 'a' (3 values), 'b' (1 value)``, ``columns 'a', ... and 7 more``."""
    shown = [f"'{name}'" for name in names]
    if counts is not None:
        many = [f"{n} value{'s' if n > 1 else ''}" for n in counts]
        shown = [f"{name} ({n})" for name, n in zip(shown, many, strict=True)]
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return f"column{'s' if len(shown) > 1 else ''} {', '.join(shown[:SHOWN])}{more}"


# -- samples ------------------------------------------------------------------------------------------------


def check_target(target: Any, samples: int) -> NDArray[np.generic]:
    """Class of each sample, as numbers, booleans or text: (N,). Raises DataError, ClassError."""
    if target is None:
        raise DataError("Feature selection requires y to be passed, but the target y is None.")
    label_N = _plain(_column(target, "target", samples), "target")
    if label_N.dtype.kind == "f" and (label_N != np.rint(label_N)).any():
        raise ClassError(
            "The target is continuous; features are selected for telling classes apart.",
            where="target",
            cure="Cut it into classes, for example with pandas.qcut.",
        )
    classes = np.unique(label_N)
    if len(classes) < 2:
        raise ClassError(
            f"Feature selection needs two classes; there is 1 class: {classes[0]}.",
            where="target",
            cure="Give samples of another class too.",
        )
    return label_N


def check_groups(groups: Any, samples: int) -> NDArray[np.generic]:
    """Group of each sample: (N,); without groups every sample is its own. Raises DataError."""
    if groups is None:
        return np.arange(samples)
    return _plain(_column(groups, "groups", samples), "groups")


def check_folds(
    label_N: NDArray[np.generic], group_N: NDArray[np.generic], grouped: bool, cfg: FitnessConfig
) -> list[str]:
    """A note if there are fewer folds than asked for. Raises TooFewGroupsError if there can be none.

    A class of one group can be learned or asked, but not both. Without groups, and if every sample is left
    out in turn, that is no more than a class that is always called wrongly.
    """
    asked = asked_folds(cfg)
    classes = np.unique(label_N)
    groups = [np.unique(group_N[label_N == c]) for c in classes]
    least = int(np.argmin([len(of) for of in groups]))
    name, count, what = classes[least], len(groups[least]), "group" if grouped else "sample"
    if count == 1 and (grouped or asked is not None):
        single = f": '{groups[least][0]}'" if grouped else ""
        raise TooFewGroupsError(
            f"Class '{name}' has a single {what}{single}. It cannot be both learned and asked.",
            where="groups" if grouped else "target",
            cure=f"Give another {what} of this class, or leave the class out.",
        )
    if asked is None or count >= asked:
        return []
    return [f"{count} folds instead of {asked}: class '{name}' has only {count} {what}s"]


def odd_samples(label_N: NDArray[np.generic], cfg: FitnessConfig) -> list[str]:
    """Notes on few samples, on many, and on rare or many classes."""
    notes, samples = [], len(label_N)
    classes, counts = np.unique(label_N, return_counts=True)
    if samples < FEW:
        notes.append(f"only {samples} samples: what is found may be chance")
    if cfg.max_cells is not None and samples > cfg.max_cells:
        notes.append(f"{cfg.max_cells} of {samples} samples take part (fitness.max_cells)")
    if 2 * len(classes) > samples:
        notes.append(f"{len(classes)} classes in {samples} samples: is the target a number to be predicted?")
    elif (counts == 1).any():
        rare = ", ".join(f"'{c}'" for c in classes[counts == 1][:SHOWN])
        notes.append(f"classes with a single sample, which is always called wrongly: {rare}")
    return notes


def _array(values: Any, where: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of unequal length
        raise DataError(f"This is no table: {error}.", where=where) from None


def _column(values: Any, where: str, samples: int) -> NDArray[Any]:
    """One value for each sample, none missing: (N,). Raises DataError."""
    try:
        column_N: NDArray[Any] = column_or_1d(_array(values, where), warn=True)
    except ValueError as error:
        raise DataError(str(error), where=where, cure="Give one value for each sample.") from None
    if len(column_N) != samples:
        raise DataError(
            f"There are {len(column_N)} values for {samples} samples.",
            where=where,
            cure="Give one value for each sample, in the same order.",
        )
    missing = np.asarray(pd.isna(column_N))
    if column_N.dtype.kind == "f":
        missing |= np.isinf(column_N)
    if missing.any():
        rows = ", ".join(map(str, np.flatnonzero(missing)[:SHOWN]))
        raise DataError(
            f"{missing.sum()} of {samples} values are missing, NaN or infinite (rows {rows}"
            f"{', ...' if missing.sum() > SHOWN else ''}).",
            where=where,
            cure="Drop these samples, or give them a value.",
        )
    return column_N


def _plain(column_N: NDArray[Any], where: str) -> NDArray[Any]:
    """Numbers, booleans or text instead of Python objects, so that they can be sorted. Raises DataError."""
    if column_N.dtype.kind in "biufUS":
        return column_N
    values = [value.item() if isinstance(value, np.generic) else value for value in column_N]
    kinds = {type(value) for value in values}
    if all(issubclass(kind, str) for kind in kinds) or all(issubclass(kind, int | float) for kind in kinds):
        return np.array(values)
    raise DataError(
        f"Values of {' and '.join(sorted(kind.__name__ for kind in kinds))} cannot be compared.",
        where=where,
        cure="Give text, or whole numbers.",
    )
