"""Building a Config from preset, YAML text and dotted overrides, in that order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cotray.config.presets import PRESETS
from cotray.config.tree import Config
from cotray.errors import ConfigError, InvalidValueError, UnknownKeyError, UnknownNameError, nearest


def load_config(
    preset: str | None = None, yaml_text: str | None = None, overrides: Iterable[str] = ()
) -> Config:
    """The config tree from a preset (default `tiny`, or the YAML's own), YAML, and `a.b=value` overrides.

    Raises UnknownNameError (preset), UnknownKeyError (with the nearest key), InvalidValueError.
    """
    given = _parse_yaml(yaml_text) if yaml_text else {}
    name = preset or str(given.get("preset", "tiny"))
    if name not in PRESETS:
        raise UnknownNameError(f"Unknown preset '{name}'.", cure=nearest(name, PRESETS))
    tree = merge(merge({}, PRESETS[name]), given)
    for override in overrides:
        tree = merge(tree, parse_override(override))
    tree["preset"] = name
    return validate(tree)


def validate(tree: Mapping[str, Any]) -> Config:
    """A Config from a plain tree, or a CotrayError that names the key and the cure."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise _explain(error.errors()[0]) from None


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``, section by section; ``dataset.class_map`` is replaced whole."""
    out = dict(base)
    for key, value in over.items():
        deep = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merge(out[key], value) if deep and key != "class_map" else value
    return out


def parse_override(text: str) -> dict[str, Any]:
    """``backbone.layers=4`` -> ``{"backbone": {"layers": 4}}``; the value is read as YAML."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"Cannot read the override '{text}'.", cure="Write it as section.key=value.")
    tree: Any = _parse_value(value)
    for part in reversed(key.strip().split(".")):
        tree = {part: tree}
    return dict(tree)


def to_yaml(config: Config) -> str:
    """The whole tree as YAML that :func:`load_config` reads back to an equal Config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def describe(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """(dotted key, help, default) of every leaf, for `cotray config show --help-text` and the docs."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from describe(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", " ".join((field.description or "").split()), field.default


def _parse_yaml(text: str) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"The config file is not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError("The config file must hold a mapping of sections.")
    return tree


def _parse_value(text: str) -> Any:
    """YAML, except that 1e-3 (a string to YAML 1.1) is a number."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _explain(error: ErrorDetails) -> ConfigError:
    path = [str(part) for part in error["loc"]]
    dotted = ".".join(path)
    if error["type"] == "extra_forbidden":
        return UnknownKeyError(f"Unknown setting '{dotted}'.", cure=_nearest_key(path))
    return InvalidValueError(
        f"Setting '{dotted}' cannot be {error.get('input')!r}: {error['msg']}.",
        cure="See `cotray config show --help-text`.",
    )


def _nearest_key(path: list[str]) -> str:
    """Nearest among siblings; failing that, the same last name anywhere in the tree."""
    section: type[BaseModel] = Config
    for part in path[:-1]:
        kind = section.model_fields[part].annotation if part in section.model_fields else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            break
        section = kind
    same = [key for key, _, _ in describe() if key.split(".")[-1] == path[-1]]
    if same:
        return f"Did you mean '{same[0]}'?"
    return nearest(path[-1], section.model_fields)
