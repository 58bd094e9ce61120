"""Building a Config from preset, YAML text and dotted overrides, in that order."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cotray.config.plain_yaml import dump_yaml, parse_yaml
from cotray.config.presets import PRESETS
from cotray.config.tree import Config
from cotray.errors import ConfigError, InvalidValueError, UnknownKeyError, UnknownNameError, nearest


def load_config(
    preset: str | None = None, yaml_text: str | None = None, overrides: Iterable[str] = ()
) -> Config:
    """The config tree from a preset (default `tiny`, or the YAML's own), YAML, and `a.b=value` overrides.

    Raises UnknownNameError (preset), UnknownKeyError (with the nearest key), InvalidValueError.
    """
    given = _mapping(yaml_text) if yaml_text else {}
    for override in overrides:
        given = merge(given, parse_override(override))
    name = preset or str(given.get("preset", "tiny"))
    if name not in PRESETS:
        raise UnknownNameError(f"Unknown preset '{name}'.", cure=nearest(name, PRESETS))
    # The defaults are written out first: a part of a section must not reset the rest of it.
    tree = merge(merge(Config().model_dump(mode="json"), PRESETS[name]), given)
    return validate(tree | {"preset": name})


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
    return dump_yaml(config.model_dump(mode="json"))


def describe(section: BaseModel | None = None, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """(dotted key, help, default) of every leaf, for `cotray config show --help-text` and the docs."""
    section = section or Config()
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from describe(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", " ".join((field.description or "").split()), value


def _mapping(text: str) -> dict[str, Any]:
    try:
        tree = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"The config file is not YAML: {error}") from None
    if not isinstance(tree, dict | None):
        raise ConfigError("The config file must hold a mapping of sections.", cure="Write `section:` lines.")
    return tree or {}


def _parse_value(text: str) -> Any:
    try:
        return parse_yaml(text)
    except ValueError:
        return text


def _explain(error: ErrorDetails) -> ConfigError:
    path = [str(part) for part in error["loc"]]
    dotted = ".".join(path)
    if error["type"] == "extra_forbidden":
        return UnknownKeyError(f"Unknown setting '{dotted}'.", cure=_nearest_key(path))
    if error["type"] == "value_error":  # of a whole section: its message names the setting
        what = f"Setting '{dotted}' is not acceptable: {error['msg'].removeprefix('Value error, ')}."
    else:
        what = f"Setting '{dotted}' cannot be {error.get('input')!r}: {error['msg']}."
    return InvalidValueError(what, cure="See `cotray config show --help-text`.")


def _nearest_key(path: list[str]) -> str:
    """The same name elsewhere in the tree; a name alike in the section; any key that is alike."""
    dotted, name = ".".join(path), path[-1]
    keys = [key for key, _, _ in describe()]
    same = [key for key in keys if key.split(".")[-1] == name]
    siblings = _names(path[:-1])
    if same:
        found = max(same, key=lambda key: difflib.SequenceMatcher(None, key, dotted).ratio())
    elif difflib.get_close_matches(name, siblings, cutoff=0.7):
        return nearest(name, siblings)
    else:
        lasts = difflib.get_close_matches(name, [key.split(".")[-1] for key in keys], n=1, cutoff=0.7)
        found = next((key for key in keys if key.split(".")[-1] in lasts), "")
    return f"Did you mean '{found}'?" if found else nearest(name, siblings)


def _names(path: list[str]) -> list[str]:
    """Names inside the section at ``path``; of the whole tree where there is no such section."""
    section: BaseModel = Config()
    for part in path:
        inner = getattr(section, part, None)
        section = inner if isinstance(inner, BaseModel) else section
    return list(type(section).model_fields)
