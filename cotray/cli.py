"""The command line: parse, call a stage, print. Heavy imports happen inside the commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from cotray.cli_datasets import datasets_app
from cotray.cli_segment import segment
from cotray.cli_select import select
from cotray.cli_tune import tune
from cotray.config import Config, load_config
from cotray.errors import CotrayError
from cotray.options import (
    BundleAt,
    ConfigFile,
    Preset,
    RunFolder,
    Sets,
    TrackingUri,
    Verbose,
    build_config,
    read_text,
)

if TYPE_CHECKING:
    from cotray.runs import Run


class Commands(typer.core.TyperGroup):
    """Typer ends silently when it is interrupted; here it is said what that means."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("cotray: stopped; the same command continues.", file=sys.stderr)
            raise SystemExit(130) from None


app = typer.Typer(
    name="cotray",
    cls=Commands,
    help="Leukemia detection (CoTCoNet) as a distributed service on Ray. Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="Settings.", no_args_is_help=True)
app.add_typer(datasets_app, name="datasets")
app.add_typer(config_app, name="config")


@app.command()
def run(
    dataset: Annotated[str | None, typer.Option(help="Image layout; see `cotray datasets list`.")] = None,
    root: Annotated[str | None, typer.Option(help="Folder or URI of the images.")] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    run_folder: RunFolder = None,
    force: Annotated[str | None, typer.Option(help="Redo this stage and all that follow.")] = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage.")] = None,
    tracking_uri: TrackingUri = None,
    verbose: Verbose = False,
) -> None:
    """Run the whole pipeline: folder of images in, evaluated, explained, registered classifier out.

    The same command continues a run that was killed, and skips what is done. Without --dataset it runs
    on phantom smears, drawn on the spot.

    Example: cotray run --dataset all-idb2 --root /data/ALL_IDB2 --preset tiny
    """
    settings = build_config(config, preset, sets, dataset, root, tracking_uri)
    execute(settings, run_folder, force=force, until=until, verbose=verbose)


def execute(
    settings: Config,
    run_folder: str | None,
    *,
    force: str | None = None,
    until: str | None = None,
    only: str | None = None,
    verbose: bool = False,
) -> None:
    """Run the pipeline (or a part of it) with progress, and print what came of it."""
    from cotray.console import Console, print_summary
    from cotray.stages.pipeline import Request, run_pipeline

    place = run_folder or f"runs/{settings.dataset.name}-{settings.preset}"
    voice = Console()
    request = Request(place, settings, force=force, until=until, only=only, voice=voice, verbose=verbose)
    records = run_pipeline(request)
    print_summary(place, records, voice.seconds())


def _stage_command(name: str, summary: str) -> None:
    """Add the command of one stage; it works on an existing run and its config."""

    def command(
        run_folder: Annotated[str, typer.Option("--run", help="Run folder or URI.")],
        sets: Sets = None,
        force: Annotated[bool, typer.Option("--force", help="Redo it even if done.")] = False,
        verbose: Verbose = False,
    ) -> None:
        settings = _run_config(_open_run(run_folder), sets)
        execute(settings, run_folder, only=name, force=name if force else None, verbose=verbose)

    doc = f"{summary[0].upper()}{summary[1:]}.\n\nWorks on an existing run, with the run's settings."
    app.command(name.replace("_", "-"), help=doc, rich_help_panel="Stages")(command)


def _open_run(folder: str) -> Run:
    from cotray.runs import Run

    return Run.open(folder)


def _run_config(opened: Run, sets: list[str] | None) -> Config:
    return load_config(yaml_text=opened.folder.read_bytes("config.yaml").decode(), overrides=sets or ())


# Kept beside the stages by a test: naming them here keeps Ray out of `cotray --help`.
STAGE_SUMMARIES = {
    "ingest": "read, check, enhance and split the images",
    "segment": "train LeuSAM; find, segment and cut every cell",
    "synthesize": "LeuGAN balances the training split",
    "train_backbone": "train SMod, GMod + SMod or a rival end to end",
    "extract": "backbone features and graph reconstruction of every cell",
    "select": "sine-cosine search with adaptive beta-hill climbing over features",
    "classify": "train HDLC on the selected features; calibrate; write the bundle",
    "evaluate": "held-out figures, report, registration in MLflow",
}


@app.command(rich_help_panel="Stages")
def ingest(
    run_folder: Annotated[str, typer.Option("--run", help="Run folder or URI; made if it is new.")],
    dataset: Annotated[str | None, typer.Option(help="Image layout; see `cotray datasets list`.")] = None,
    root: Annotated[str | None, typer.Option(help="Folder or URI of the images.")] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    force: Annotated[bool, typer.Option("--force", help="Redo it even if done.")] = False,
    tracking_uri: TrackingUri = None,
    verbose: Verbose = False,
) -> None:
    """Read, check, enhance and split the images.

    The first stage begins a run: it takes the settings of `cotray run`, and the stages after it keep them.
    On an existing run it needs none.
    """
    from cotray.runs import Run

    fresh = any((dataset, root, preset, config, tracking_uri)) or not Run.exists(run_folder)
    settings = (
        build_config(config, preset, sets, dataset, root, tracking_uri)
        if fresh
        else _run_config(_open_run(run_folder), sets)
    )
    execute(settings, run_folder, only="ingest", force="ingest" if force else None, verbose=verbose)


OF_THEIR_OWN: dict[str, Callable[..., None]] = {"segment": segment, "select": select}
"""Stages whose commands also work without a run."""
for _name, _summary in STAGE_SUMMARIES.items():
    if _name in OF_THEIR_OWN:
        app.command(rich_help_panel="Stages")(OF_THEIR_OWN[_name])
    elif _name != "ingest":
        _stage_command(_name, _summary)


app.command()(tune)


@app.command()
def status(run_folder: Annotated[str, typer.Argument(metavar="RUN", help="Run folder or URI.")]) -> None:
    """What is done in a run, how long it took, and where things are."""
    from cotray.console import print_status

    print_status(_open_run(run_folder))


@app.command()
def predict(
    images: Annotated[list[str], typer.Argument(help="Image files, folders or URIs.")],
    bundle: BundleAt,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    overlay: Annotated[
        Path | None, typer.Option(help="Write pictures with the cells drawn in, here.")
    ] = None,
) -> None:
    """Answer images with a trained bundle, without a server. Research use only."""
    from cotray.console import predict_images

    if predict_images(images, bundle, as_json=as_json, overlay=overlay):
        raise typer.Exit(2)


@app.command()
def serve(
    bundle: BundleAt,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.")] = 8000,
    replicas: Annotated[int, typer.Option(help="Copies of the model.")] = 1,
) -> None:
    """Serve a bundle over HTTP with Ray Serve: POST an image to /v1/predict."""
    from cotray.stages.serving import serve_forever

    serve_forever(bundle, host=host, port=port, replicas=replicas)


@config_app.command("show")
def config_show(
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    help_text: Annotated[bool, typer.Option("--help-text", help="Print every key with its meaning.")] = False,
) -> None:
    """Print the settings that a run would use, as YAML."""
    from cotray.config import describe, to_yaml

    if help_text:
        for key, text, default in describe():
            typer.echo(f"{key} (default {default})\n    {text}")
        return
    typer.echo(to_yaml(load_config(preset, read_text(config), sets or ())), nl=False)


def main(argv: list[str] | None = None) -> None:
    """Entry point. A CotrayError is one line on stderr and exit code 2, never a traceback."""
    try:
        app(args=argv, standalone_mode=True)
    except CotrayError as error:
        print(f"cotray: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
