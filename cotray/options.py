"""Options that several commands share, and the settings that they make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cotray.config import Config, load_config, merge, validate
from cotray.errors import ConfigError

Preset = Annotated[str | None, typer.Option(help="tiny (minutes on 2 cores), small (a workstation), paper.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="One setting, e.g. backbone.layers=4. Repeatable.")
]
RunFolder = Annotated[
    str | None, typer.Option("--run", help="Run folder or URI. Default: runs/<dataset>-<preset>.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show the logs of Ray's workers.")]
BundleAt = Annotated[
    str,
    typer.Option("--bundle", help="Bundle folder, run folder, or MLflow model URI (models:/NAME@champion)."),
]
TrackingUri = Annotated[
    str | None,
    typer.Option("--tracking-uri", help="MLflow server or database. Default: sqlite beside the run."),
]


def build_config(
    file: Path | None,
    preset: str | None,
    sets: list[str] | None,
    dataset: str | None = None,
    root: str | None = None,
    tracking_uri: str | None = None,
) -> Config:
    """Config from file, preset, overrides and the named options, the latter winning."""
    from cotray.storage import absolute

    named = {
        "dataset": {"name": dataset or None, "root": absolute(root) if root else None},
        "tracking": {"uri": tracking_uri or None},
    }
    return lay_over(load_config(preset, read_text(file), sets or ()), named)


def lay_over(config: Config, named: Mapping[str, Any]) -> Config:
    """The settings with those of ``named`` that are not None laid over them."""
    return validate(merge(config.model_dump(mode="json"), _given(named)))


def _given(tree: Mapping[str, Any]) -> dict[str, Any]:
    inner = {key: _given(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    return {key: value for key, value in inner.items() if value is not None}


def read_text(file: Path | None) -> str | None:
    """A config file's text. Raises ConfigError."""
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"Cannot read the config file: {error}", where=file, cure="Check --config."
        ) from None
