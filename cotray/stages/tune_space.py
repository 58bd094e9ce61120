"""What a tuning varies: ranges and choices of settings, by dotted key."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel

from cotray.config import Config, merge, parse_override, validate
from cotray.errors import ConfigError, InvalidValueError

Space = dict[str, BaseDistribution]
Params = dict[str, Any]
"""Dotted key -> value."""

RANGE = re.compile(r"\s*([^:]+?)\s*\.\.\s*([^:]+?)\s*((?::(?:log|int))*)\s*")
SELECTION = ("sca", "abhc", "fitness", "select")
"""Sections of the selection itself."""
BEFORE = ("ingest", "enhance", "roi", "segment", "gan", "backbone", "grafr")
"""Sections of the stages before it: a trial that varies them runs the pipeline up to it."""
IDLE = ("select.evaluator", "select.outer", "fitness.cache_mb")
"""Settings of these sections that change nothing that is found."""
HOW = "Write KEY=1..4, KEY=0.001..0.1:log, KEY=10..40:int or KEY=sigmoid,vshaped."


def make_space(config: Config) -> Space:
    """The space of `tune.search`, or the default one. Raises UnknownKeyError, InvalidValueError."""
    asked = config.tune.search or default_search(config)
    return {key: parse_spec(key, spec, config) for key, spec in asked.items()}


def split_spec(text: str) -> tuple[str, str]:
    """``sca.a=1..4`` -> key and spec. Raises ConfigError."""
    key, sign, spec = (part.strip() for part in text.partition("="))
    if not (key and sign and spec):
        raise ConfigError(f"Cannot read the search '{text}'.", where="--search", cure=HOW)
    return key, spec


def default_search(config: Config) -> dict[str, str]:
    """Specs of SCA's and AbetaHC's parameters, each wide enough to hold the setting given."""
    sca, abhc = config.sca, config.abhc
    found = {
        "sca.agents": _around(sca.agents, max(2, sca.agents // 2), 2 * sca.agents),
        "sca.init": _among(sca.init, ("random", "sparse", "ranked")),
    }
    if config.select.optimizer != "sca":
        return found
    found["sca.a"] = _around(sca.a, 1.0, 4.0)
    found["sca.transfer"] = _among(sca.transfer, ("sigmoid", "s1", "s4", "vshaped", "v2", "v4"))
    if abhc.when == "off":
        return found
    found["abhc.p"] = _around(abhc.p, 0.5, 6.0)
    found["abhc.beta_min"] = _around(abhc.beta_min, 0.0001, 0.005, ":log")
    found["abhc.beta_max"] = _around(abhc.beta_max, 0.005, 0.2, ":log")
    if config.select.budget:  # without one, more steps would just be more evaluations
        found["abhc.steps"] = _around(abhc.steps, max(1, abhc.steps // 3), 3 * abhc.steps)
    return found


def _around(given: float, low: float, high: float, mark: str = "") -> str:
    low, high = min(low, given), max(high, given)
    return f"{low}..{high}{mark if low > 0 else ''}"


def _among(given: str, options: Iterable[str]) -> str:
    return ",".join(dict.fromkeys((*options, given)))


# -- one spec -----------------------------------------------------------------------------------------------


def parse_spec(key: str, spec: str, config: Config) -> BaseDistribution:
    """A range or choices of one setting. Raises UnknownKeyError (with the nearest), InvalidValueError."""
    found = RANGE.fullmatch(spec)
    if not found:
        choices = _choices(key, spec, config)
        _try(key, choices.choices, config)
        return choices
    between = _range(key, spec, found[1], found[2], found[3], config)
    _try(key, (between.low, between.high), config)
    return between


def _try(key: str, values: Iterable[Any], config: Config) -> None:
    """What a setting cannot be is said in its own words."""
    for value in values:
        with_settings(config, {key: value})


def require_known(key: str, value: Any, config: Config) -> None:
    """Raise where a key does not exist, or where it has no part in what a selection finds."""
    section = key.split(".")[0]
    if key in IDLE or (hasattr(config, section) and section not in SELECTION + BEFORE):
        raise InvalidValueError(
            f"Setting '{key}' cannot be tuned: it does not change what a selection finds, or what it is "
            "judged on must not change between trials.",
            where="tune.search",
            cure=f"Tune settings of {', '.join(SELECTION)}; with --run also of {', '.join(BEFORE)}.",
        )
    if _annotation(key, config) is None:
        with_settings(config, {key: value})  # names the nearest key


def _range(
    key: str, spec: str, low: str, high: str, marks: str, config: Config
) -> IntDistribution | FloatDistribution:
    require_known(key, 0, config)
    kinds = _kinds(_annotation(key, config))
    whole = ":int" in marks or (int in kinds and float not in kinds)
    log = ":log" in marks
    try:
        first, last = (int(low), int(high)) if whole else (float(low), float(high))
    except ValueError:
        raise _unreadable(key, spec, "whole numbers" if whole else "numbers") from None
    if not first < last or not abs(last) < float("inf") or not abs(first) < float("inf"):
        raise _unreadable(key, spec, "a lower number first")
    if log and first <= 0:
        raise _unreadable(key, spec, "numbers above 0 with ':log'")
    if whole:
        return IntDistribution(int(first), int(last), log=log)
    return FloatDistribution(first, last, log=log)


def _choices(key: str, spec: str, config: Config) -> CategoricalDistribution:
    words = [word.strip() for word in spec.split(",")]
    values = [_value(key, word) for word in words]
    require_known(key, values[0], config)
    if len(values) < 2 or not all(words):
        raise _unreadable(key, spec, "a range or at least two choices")
    if any(isinstance(value, list | dict) for value in values):
        raise _unreadable(key, spec, "plain values")
    if len({repr(value) for value in values}) < len(values):
        raise _unreadable(key, spec, "each choice once")
    return CategoricalDistribution(values)


def _value(key: str, word: str) -> Any:
    """The word as YAML means it: a number, true, null or text."""
    tree: Any = parse_override(f"{key}={word}")
    for part in key.split("."):
        tree = tree[part]
    return tree


def _unreadable(key: str, spec: str, wanted: str) -> InvalidValueError:
    return InvalidValueError(f"'{key}={spec}' needs {wanted}.", where="tune.search", cure=HOW)


def _annotation(key: str, config: Config) -> Any:
    """The type of a setting; None where there is no such setting, or a whole section."""
    section: BaseModel = config
    *path, last = key.split(".")
    for part in path:
        inner = getattr(section, part, None)
        if not isinstance(inner, BaseModel):
            return None
        section = inner
    field = type(section).model_fields.get(last)
    is_section = isinstance(getattr(section, last, None), BaseModel)
    return None if field is None or is_section else field.annotation


def _kinds(annotation: Any) -> set[Any]:
    """The plain types of an annotation: ``int | None`` -> {int, NoneType}."""
    return set(typing.get_args(annotation)) or {annotation}


# -- settings of a trial ------------------------------------------------------------------------------------


def with_settings(config: Config, params: Mapping[str, Any]) -> Config:
    """The config with some settings replaced. Raises UnknownKeyError, InvalidValueError."""
    tree = config.model_dump(mode="json")
    for key, value in params.items():
        branch: Any = tidy(value)
        for part in reversed(key.split(".")):
            branch = {part: branch}
        tree = merge(tree, branch)
    return validate(tree)


def tidy(value: Any) -> Any:
    """Numbers with six digits: nobody needs more in a config file."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def setting(config: Config, key: str) -> Any:
    """A setting by its dotted key."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def given_point(space: Space, config: Config) -> Params | None:
    """The settings given as a point of the space; None where it does not hold them."""
    point = {}
    for key, distribution in space.items():
        value = setting(config, key)
        if isinstance(distribution, CategoricalDistribution):
            inside = value in distribution.choices
        else:
            assert isinstance(distribution, IntDistribution | FloatDistribution)
            inside = value is not None and distribution.low <= value <= distribution.high
        if not inside:
            return None
        point[key] = value
    return point


def needs_pipeline(space: Iterable[str]) -> bool:
    """Whether some keys belong to stages before the selection."""
    return any(key.split(".")[0] in BEFORE for key in space)
