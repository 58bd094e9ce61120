"""The command `cotray tune`: parse, call, print."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cotray.config import Config, load_config
from cotray.errors import ConfigError
from cotray.options import ConfigFile, Preset, Sets, TrackingUri, Verbose, lay_over, read_text

Text = str | None
DATA, TRIALS = "Data", "Trials"


def tune(
    features: Annotated[
        Text,
        typer.Option(
            help="Parquet or CSV file, a folder of Parquet files, or their URI.", rich_help_panel=DATA
        ),
    ] = None,
    target: Annotated[Text, typer.Option(help="Column of the classes.", rich_help_panel=DATA)] = None,
    groups: Annotated[
        Text,
        typer.Option(
            help="Column of the groups (patients): none is on both sides of a fold. Default: every row.",
            rich_help_panel=DATA,
        ),
    ] = None,
    drop: Annotated[
        Text, typer.Option(help="Columns that are no features, with commas between.", rich_help_panel=DATA)
    ] = None,
    run_folder: Annotated[
        Text,
        typer.Option(
            "--run",
            help="Instead of a table: a run of the pipeline whose features are there. Its test split takes "
            "no part.",
            rich_help_panel=DATA,
        ),
    ] = None,
    out: Annotated[
        Text,
        typer.Option(
            help="Folder or URI of the results. Default: runs/tune-<file's name>, or RUN-tune.",
            rich_help_panel=DATA,
        ),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            help="What to vary: sca.a=1..4, abhc.beta_max=0.001..0.1:log, sca.agents=10..40:int or "
            "sca.transfer=sigmoid,v2. Repeatable. Default: SCA's and AbetaHC's parameters.",
            rich_help_panel=TRIALS,
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Settings to try. Default: 20.", rich_help_panel=TRIALS)
    ] = None,
    concurrent: Annotated[
        int | None, typer.Option(help="Trials at once. Default: one per CPU.", rich_help_panel=TRIALS)
    ] = None,
    budget_seconds: Annotated[
        float | None, typer.Option(help="Stop after this; the same command goes on.", rich_help_panel=TRIALS)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Default: 0.", rich_help_panel=TRIALS)] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    tracking_uri: TrackingUri = None,
    verbose: Verbose = False,
) -> None:
    """Tune the feature selection: try settings, judge the best ones on groups that no trial saw.

    Optuna proposes settings, and trials that fall behind are stopped. Each trial selects inside of outer
    folds and is judged outside of them. The same command continues a tuning that was killed, and with more
    --trials one that is finished.

    Example: cotray tune --features patients.parquet --target diagnosis --groups patient --trials 40
    --search sca.a=1..4 --search sca.transfer=sigmoid,v2

    It leaves best.yaml, for --config of `cotray select` and `cotray run`, and report.html.

    With --run, settings of earlier stages can be varied too, e.g. --search backbone.layers=1..4: then every
    trial trains that stage and those after it.
    """
    options: dict[str, Any] = {"--target": target, "--groups": groups, "--drop": drop}
    if run_folder:
        options |= {"--features": features, "--preset": preset, "--config": config}
        _refuse(options)
        base = _run_config(run_folder, sets)
    elif not features or not target:
        raise ConfigError(
            "There is nothing to tune on.",
            where="--features, --target",
            cure="Name a table and its column of classes, or a run of the pipeline with --run.",
        )
    else:
        base = load_config(preset, read_text(config), sets or ())
    named = {
        "tune": {"trials": trials, "concurrent": concurrent, "budget_seconds": budget_seconds},
        "seed": seed,
        "tracking": {"uri": tracking_uri},
    }
    settings = _search(lay_over(base, named), search or ())
    _tune(settings, run_folder, features, target, groups, drop, out, verbose)


def _refuse(options: dict[str, Any]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ConfigError(
            f"--run does not go with {', '.join(given)}.",
            cure="A run has its data and settings; change those of the selection by --set.",
        )


def _run_config(run_folder: str, sets: list[str] | None) -> Config:
    from cotray.runs import Run

    text = Run.open(run_folder).folder.read_bytes("config.yaml").decode()
    return load_config(yaml_text=text, overrides=sets or ())


def _search(settings: Config, specs: list[str] | tuple[str, ...]) -> Config:
    """What to vary, if it is said on the command line, in place of what the settings say."""
    if not specs:
        return settings
    from cotray.stages.tune_space import split_spec

    search = dict(split_spec(spec) for spec in specs)
    return settings.model_copy(update={"tune": settings.tune.model_copy(update={"search": search})})


def _tune(
    settings: Config,
    run_folder: Text,
    features: Text,
    target: Text,
    groups: Text,
    drop: Text,
    out: Text,
    verbose: bool,
) -> None:
    from cotray.console import Console, print_tuning
    from cotray.stages.tune import TuneRequest, run_tuning
    from cotray.stages.tune_ground import TableSource

    names = tuple(name.strip() for name in (drop or "").split(",") if name.strip())
    table = TableSource(features or "", target or "", groups, names)
    voice = Console()
    outcome = run_tuning(TuneRequest(run_folder or table, settings, out, voice, verbose))
    print_tuning(outcome, voice.seconds())
