"""`cotray datasets audit`: leaks and shortcuts of a dataset before anything is trained on it."""

from __future__ import annotations

from typing import Annotated

import typer

from cotray.options import ConfigFile, Sets, Verbose, build_config, lay_over


def audit(
    root: Annotated[str, typer.Argument(help="Folder or URI of the images.")],
    dataset: Annotated[str, typer.Option(help="Layout to read it as.")] = "folder",
    out: Annotated[
        str | None, typer.Option(help="Folder or URI of the results. Default: runs/audit-<dataset>.")
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    force: Annotated[bool, typer.Option("--force", help="Look again even if done.")] = False,
    verbose: Verbose = False,
) -> None:
    """Copies in a dataset, and whether its classes can be told without looking at a cell.

    Reads, groups and splits the images as a run would; then reports clusters
    of copies and near-duplicates, and how well small forests tell the class
    from the file's size, from metadata, border, corners, background or colour
    alone, on that split. Writes audit/index.html and audit/audit.json into
    --out. Nothing else is trained.

    Example: cotray datasets audit /data/taleqani --set
    'dataset.class_map={Benign: 0, Early: 1, Pre: 1, Pro: 1}'
    """
    from cotray.console import Console
    from cotray.stages.audit import AuditRequest, run_audit

    settings = build_config(config, None, sets, dataset, root)
    settings = lay_over(settings, {"tracking": {"enabled": False}})  # an audit is no experiment
    place = out or f"runs/audit-{settings.dataset.name}"
    record = run_audit(AuditRequest(place, settings, force=force, voice=Console(), verbose=verbose))
    for text in record.result.notes:
        typer.echo(f"- {text}")
    typer.echo(f"report: {place}/audit/{record.result.artifacts['report']}")
