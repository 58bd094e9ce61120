"""`cotray segment`: on anyone's images, or as the stage of a pipeline run. Parse, call, print."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from cotray.errors import ConfigError, InvalidValueError
from cotray.options import Sets, Verbose

if TYPE_CHECKING:
    from cotray.stages.segment_images import Outcome

IMAGES = "Your images"
"""Panel of the help."""


def segment(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE|FOLDER|URI]...", help="Images; folders are searched wholly."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="Folder or URI of the results. Default: runs/segment-<name>.", rich_help_panel=IMAGES
        ),
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            help="Use the LeuSAM of this run, bundle or models:/NAME@champion, not the one that comes with "
            "cotray.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    single: Annotated[
        bool | None,
        typer.Option(
            "--single/--fields",
            help="One cell per image, or many. Default: one where a cell in the middle fills a third of the "
            "image and no second whole one is of its size.",
            rich_help_panel=IMAGES,
            show_default=False,
        ),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            help="x0,y0,x1,y1 in pixels: the cell in this box of the one image. Repeatable.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(
            help="x,y in pixels: the cell at this point of the one image. Repeatable.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per image.", rich_help_panel=IMAGES)
    ] = False,
    run_folder: Annotated[
        str | None,
        typer.Option(
            "--run", help="Instead of images: an existing run of the pipeline, whose stage is done."
        ),
    ] = None,
    sets: Sets = None,
    force: Annotated[bool, typer.Option("--force", help="Redo it even if done.")] = False,
    verbose: Verbose = False,
) -> None:
    """Masks and overlays of the cells in your images, without any training.

    Writes for each image a 16-bit PNG of cell numbers (0 is background) and a
    picture with outlines and numbers, and for all of them cells.csv,
    cells.parquet, images.csv and images.parquet: boxes, areas, predicted IoU,
    run lengths; files that cannot be read, and why. The LeuSAM that comes
    with cotray has learned from drawn cells alone: look at the overlays
    before you trust its masks. What is done is skipped.

    Example: cotray segment smears/ --out masks/

    With --run it is a stage of the pipeline, with the run's settings: train
    LeuSAM; find, segment and cut every cell.
    """
    if run_folder:
        own: dict[str, object] = {"images": images, "--out": out, "--bundle": bundle, "--box": box}
        own |= {"--point": point, "--single/--fields": single, "--json": as_json or None}
        _refuse([name for name, value in own.items() if value is not None and value != []])
        _stage(run_folder, sets, force, verbose)
        return
    if not images:
        raise ConfigError(
            "There is nothing to segment.",
            where="IMAGE",
            cure="Name images or a folder of them, or a run of the pipeline with --run.",
        )
    prompts = (
        [_numbers(text, 4, "--box") for text in box or ()],
        [_numbers(text, 2, "--point") for text in point or ()],
    )
    _images(images, out, bundle, single, prompts, sets, force, as_json, verbose)


def _refuse(given: list[str]) -> None:
    """Raise ConfigError where --run comes with options that are for images."""
    if given:
        raise ConfigError(
            f"--run does not go with {', '.join(given)}.",
            cure="A run segments its own images; leave out --run, or use the run's LeuSAM with --bundle RUN.",
        )


def _numbers(text: str, count: int, option: str) -> tuple[int, ...]:
    """Whole numbers with commas between. Raises InvalidValueError."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count or (count == 4 and not (numbers[0] < numbers[2] and numbers[1] < numbers[3])):
        wanted = "x0,y0,x1,y1 with x0 < x1 and y0 < y1" if count == 4 else "x,y"
        raise InvalidValueError(f"Cannot read '{text}'.", where=option, cure=f"Write {wanted}, in pixels.")
    return numbers


def _stage(run_folder: str, sets: list[str] | None, force: bool, verbose: bool) -> None:
    from cotray.cli import execute
    from cotray.config import load_config
    from cotray.runs import Run

    text = Run.open(run_folder).folder.read_bytes("config.yaml").decode()
    settings = load_config(yaml_text=text, overrides=sets or ())
    execute(settings, run_folder, only="segment", force="segment" if force else None, verbose=verbose)


def _images(
    images: list[str],
    out: str | None,
    bundle: str | None,
    single: bool | None,
    prompts: tuple[list[tuple[int, ...]], list[tuple[int, ...]]],
    sets: list[str] | None,
    force: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    from cotray.console import Console
    from cotray.stages.base import Voice
    from cotray.stages.segment_images import Request, segment_images
    from cotray.stages.segment_model import Ask

    voice = Console()
    place = out or f"runs/segment-{images[0].rstrip('/').rpartition('/')[2].partition('.')[0] or 'images'}"
    boxes, points = prompts
    request = Request(
        images,
        place,
        bundle,
        Ask(single, tuple((a, b, c, d) for a, b, c, d in boxes), tuple((x, y) for x, y in points)),
        sets or (),
        force=force,
        voice=Voice() if as_json else voice,
        verbose=verbose,
    )
    outcome = segment_images(request)
    _print_lines(outcome) if as_json else _print_summary(place, outcome, voice.seconds())
    if "segmented" not in outcome.images["status"].to_pylist():
        raise typer.Exit(2)


def _print_lines(outcome: Outcome) -> None:
    """One JSON object per image, in the order of their names."""
    from cotray.stages.segment_images import picture_name

    cells: dict[str, list[dict[str, object]]] = {}
    for row in outcome.cells.drop_columns(["mask_rle"]).to_pylist():
        box = [row.pop(side) for side in ("x0", "y0", "x1", "y1")]
        row["predicted_iou"] = round(row["predicted_iou"], 4)
        cells.setdefault(row.pop("image"), []).append({**row, "box": box})
    for row in outcome.images.to_pylist():
        name = row["image"]
        if row["status"] == "quarantined":
            print(json.dumps({"image": name, "error": row["reason"]}))
            continue
        kept = {key: row[key] for key in ("image", "width", "height", "single")}
        files = {key: f"{outcome.out.uri}/{key}s/{picture_name(name)}" for key in ("mask", "overlay")}
        print(json.dumps({**kept, "cells": cells.get(name, []), **files}))


def _print_summary(place: str, outcome: Outcome, seconds: float) -> None:
    """Counts, what could not be read, and where to look."""
    from rich.markup import escape

    from cotray.console import SHOWN, clock, out
    from cotray.stages.segment_tables import counts

    n = counts(outcome.images)
    bad = [row for row in outcome.images.to_pylist() if row["status"] == "quarantined"]
    for row in bad[:SHOWN]:
        out.print(f"[yellow]{escape(row['image'])}[/yellow]: {escape(row['reason'])}", soft_wrap=True)
    if len(bad) > SHOWN:
        out.print(f"... and {len(bad) - SHOWN} more, in images.csv")
    again = f" ({outcome.skipped} were done before)" if outcome.skipped else ""
    out.print(
        f"images     {n['images']} in = {n['segmented']} segmented + {n['quarantined']} quarantined{again}"
    )
    without = f"; {n['images_without_cell']} images without a cell" if n["images_without_cell"] else ""
    out.print(f"cells      {n['cells']}{without}")
    out.print(f"LeuSAM     {escape(outcome.model)}", soft_wrap=True)
    where = escape(place)
    out.print(f"results    {where}: masks/, overlays/, cells.csv, images.csv (and .parquet)", soft_wrap=True)
    out.print(f"time       {clock(seconds)}", soft_wrap=True)
