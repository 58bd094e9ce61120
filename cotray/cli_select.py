"""`cotray select`: on anyone's table, or as the stage of a pipeline run. Parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cotray.config import Config, load_config
from cotray.errors import ConfigError
from cotray.options import ConfigFile, Preset, Sets, TrackingUri, Verbose, lay_over, read_text

Text = str | None
TABLE, SEARCH = "Your table", "The search"
"""Panels of the help."""


def select(
    features: Annotated[
        Text,
        typer.Option(
            help="Parquet or CSV file, or folder of Parquet files; a URI will do.", rich_help_panel=TABLE
        ),
    ] = None,
    target: Annotated[Text, typer.Option(help="Column of the classes.", rich_help_panel=TABLE)] = None,
    groups: Annotated[
        Text,
        typer.Option(
            help="Column of groups (patients): none is on two sides of a fold. Default: each row is one.",
            rich_help_panel=TABLE,
        ),
    ] = None,
    drop: Annotated[
        Text,
        typer.Option(help="Columns that are no features, with commas between.", rich_help_panel=TABLE),
    ] = None,
    out: Annotated[
        Text,
        typer.Option(
            help="Folder or URI of the results. Default: runs/select-<file's name>.", rich_help_panel=TABLE
        ),
    ] = None,
    budget: Annotated[
        Text,
        typer.Option(
            help="'620 evaluations' or '30 seconds'. Default: sca.iterations of the preset.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    optimizer: Annotated[
        Text, typer.Option(help="sca, ga, pso or random. Default: sca.", rich_help_panel=SEARCH)
    ] = None,
    compare: Annotated[
        Text,
        typer.Option(
            help="Optimizers to run as well, under the same budget: ga,pso.", rich_help_panel=SEARCH
        ),
    ] = None,
    engine: Annotated[
        Text,
        typer.Option(
            help="Classifier that judges: knn, knn-torch, ridge, logistic, sklearn. Default: knn.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    members: Annotated[
        int | None,
        typer.Option(
            help="Searches on halves of the data, for stability. Default: 0.", rich_help_panel=SEARCH
        ),
    ] = None,
    rule: Annotated[
        Text, typer.Option(help="best, one_se or consensus. Default: best.", rich_help_panel=SEARCH)
    ] = None,
    evaluator: Annotated[
        Text, typer.Option(help="ray, tasks or serial. Default: ray.", rich_help_panel=SEARCH)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Default: 0.", rich_help_panel=SEARCH)] = None,
    run_folder: Annotated[
        Text,
        typer.Option(
            "--run", help="Instead of a table: an existing run of the pipeline, whose stage is done."
        ),
    ] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    tracking_uri: TrackingUri = None,
    force: Annotated[bool, typer.Option("--force", help="Redo it even if done.")] = False,
    verbose: Verbose = False,
) -> None:
    """Sine-cosine search with adaptive beta-hill climbing over features.

    Which columns of a table tell its classes apart. Every column that is not
    named otherwise is a feature. A fifth of the groups (select.outer) is set
    aside before the search sees anything; it judges what was found, beside
    all features and the best filter. The same command continues a selection
    that was killed, exactly, and skips what is done.

    Example: cotray select --features patients.parquet --target diagnosis
    --groups patient --drop name,date --budget "2000 evaluations" --members 5
    --compare ga,pso

    With --run it is the stage of a run of the pipeline, with the run's
    settings; change them by --set.
    """
    table: dict[str, str | Path | None] = {
        "--features": features,
        "--target": target,
        "--groups": groups,
        "--drop": drop,
        "--out": out,
    }
    search = {
        "select": {
            "budget": budget,
            "optimizer": optimizer,
            "members": members,
            "rule": rule,
            "evaluator": evaluator,
        },
        "fitness": {"engine": engine},
        "seed": seed,
        "tracking": {"uri": tracking_uri},
    }
    if run_folder:
        _refuse(table | {"--compare": compare, "--preset": preset, "--config": config}, search)
        _stage(run_folder, sets, force, verbose)
        return
    if not features or not target:
        raise ConfigError(
            "There is nothing to select from.",
            where="--features, --target",
            cure="Name a table and its column of classes, or a run of the pipeline with --run.",
        )
    settings = lay_over(load_config(preset, read_text(config), sets or ()), search)
    _table(settings, features, target, groups, _names(drop), out, _names(compare), force, verbose)


def _names(text: Text) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _refuse(options: dict[str, str | Path | None], search: dict[str, Any]) -> None:
    """Raise ConfigError where --run comes with options that are a table's."""
    flat = {f"--{key}": value for key, value in search["select"].items()}
    flat |= {"--engine": search["fitness"]["engine"], "--seed": search["seed"]}
    given = [
        name
        for name, value in {**options, **flat, "--tracking-uri": search["tracking"]["uri"]}.items()
        if value is not None
    ]
    if given:
        raise ConfigError(
            f"--run does not go with {', '.join(given)}.",
            cure="A run keeps its settings; change those of this stage by --set, as select.members=5.",
        )


def _stage(run_folder: str, sets: list[str] | None, force: bool, verbose: bool) -> None:
    from cotray.cli import execute
    from cotray.stages.table import pipeline_only

    text = pipeline_only(run_folder).folder.read_bytes("config.yaml").decode()
    settings = load_config(yaml_text=text, overrides=sets or ())
    execute(settings, run_folder, only="select", force="select" if force else None, verbose=verbose)


def _table(
    settings: Config,
    features: str,
    target: str,
    groups: Text,
    drop: tuple[str, ...],
    out: Text,
    compare: tuple[str, ...],
    force: bool,
    verbose: bool,
) -> None:
    from cotray.console import Console, print_selection
    from cotray.stages.table import TableRequest, run_table

    voice = Console()
    request = TableRequest(
        features, target, groups, settings, out, drop, compare, force=force, voice=voice, verbose=verbose
    )
    run, records = run_table(request)
    print_selection(request.place, run, records, voice.seconds())
