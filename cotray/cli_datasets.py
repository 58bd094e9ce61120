"""``cotray datasets``: the known layouts, what a folder holds against what was published, phantoms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cotray.cli_audit import audit
from cotray.options import Sets, build_config

datasets_app = typer.Typer(
    help="Known image layouts: list, describe, check and audit yours, draw a phantom.", no_args_is_help=True
)


@datasets_app.command("list")
def datasets_list() -> None:
    """The layouts cotray reads."""
    from cotray.console_datasets import print_datasets

    print_datasets()


@datasets_app.command("describe")
def datasets_describe(name: Annotated[str, typer.Argument(help="Layout.")]) -> None:
    """What a layout looks like on disk, and its published counts."""
    from cotray.console_datasets import print_dataset

    print_dataset(name)


@datasets_app.command("check")
def datasets_check(
    root: Annotated[str, typer.Argument(help="Folder or URI of the images.")],
    dataset: Annotated[
        str | None, typer.Option(help="Layout to read it as. Default: guessed from the names.")
    ] = None,
    no_sizes: Annotated[bool, typer.Option("--no-sizes", help="Do not read the images' headers.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    sets: Sets = None,
) -> None:
    """What is found at a place, by part, class, subject and size, against the published counts.

    Reads tables and the images' headers, no pixels. Exit code 0 where images are missing, 2 where the
    data contradict themselves so that ingest would refuse them.

    Example: cotray datasets check s3://lab/C-NMC_Leukemia --dataset c-nmc
    """
    from cotray.console_datasets import check

    check(
        build_config(None, None, sets, dataset, root),
        guess=dataset is None,
        sizes=not no_sizes,
        as_json=as_json,
    )


datasets_app.command("audit")(audit)


@datasets_app.command("phantom")
def datasets_phantom(
    out: Annotated[Path, typer.Argument(help="New folder to draw into.")],
    layout: Annotated[str, typer.Option(help="c-nmc, all-idb2 or fields.")] = "all-idb2",
    subjects: Annotated[int, typer.Option(help="Subjects.")] = 24,
    per_subject: Annotated[int, typer.Option(help="Images per subject.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
) -> None:
    """Draw a phantom data set to disk: procedural smears without any medical meaning."""
    from cotray.console import write_phantom

    write_phantom(out, layout, subjects, per_subject, seed)
