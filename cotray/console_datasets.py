"""What `cotray datasets` prints: layouts, and what a folder holds against what was published."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from cotray.console import Console, out
from cotray.data.catalog import DATASETS, find_dataset, guess_dataset
from cotray.data.inventory import HEAD, Inventory, Sizes, read_sizes, take_inventory
from cotray.data.names import images_below
from cotray.errors import DatasetNotFoundError
from cotray.storage import Folder, absolute

if TYPE_CHECKING:
    from cotray.config import Config

SHOWN = 10
"""Files and sizes that are named on the screen."""
MANY = 1000
"""From so many headers on progress is told."""


def print_datasets() -> None:
    """The known layouts."""
    table = _table("name", "title", "images hold", "summary")
    for name, layout in DATASETS.items():
        row = (layout.title, "many cells" if layout.multi_cell else "one cell", layout.summary)
        table.add_row(name, *map(escape, row))
    out.print(table)


def print_dataset(name: str) -> None:
    """One layout in words, with its published counts. Raises UnknownNameError."""
    layout = find_dataset(name)
    out.print(f"[bold]{layout.title}[/bold] ({name})\n{escape(layout.summary)}")
    if layout.published:
        table = _table("part", "class", "published images", "subjects")
        for part, kind, images, subjects in layout.published:
            table.add_row(part, kind, f"{images:,}", str(subjects or ""))
        out.print(table)
    if layout.centroids:
        out.print(f"files of centroids: {layout.centroids}")
    if layout.size:
        out.print(f"size: {layout.size}")


def check(config: Config, *, guess: bool, sizes: bool, as_json: bool) -> None:
    """Print what a place holds; then raise the first reason for which ingest would refuse it, if any."""
    if not guess and find_dataset(config.dataset.name).name == "phantom":
        raise DatasetNotFoundError(
            "The phantom has no files to check.", cure="See `cotray datasets phantom`."
        )
    folder = Folder(absolute(str(config.dataset.root)))
    files = folder.files()
    name, why = guess_dataset(files, folder.uri) if guess else (config.dataset.name, "")
    found = take_inventory(find_dataset(name), files, folder.read_text, config.dataset)
    if sizes:
        found = dataclasses.replace(found, sizes=_read_sizes(folder, files, quiet=as_json))
    if as_json:
        print(json.dumps({"root": folder.uri, "guessed": why or None, **as_dict(found)}, indent=1))
    else:
        print_inventory(found, why)
    if found.faults:
        raise found.faults[0]


def _read_sizes(folder: Folder, files: list[str], *, quiet: bool) -> Sizes:
    images, voice = images_below(files), Console()
    many = len(images) >= MANY and not quiet

    def progress(done: int) -> None:
        voice.progress("headers", done, len(images))

    def heads(paths: Sequence[str]) -> Iterator[bytes]:
        return folder.heads(paths, HEAD)

    return read_sizes(images, heads, folder.open, progress if many else None)


def as_dict(found: Inventory) -> dict[str, Any]:
    """An inventory for machines."""
    sizes = found.sizes
    return dataclasses.asdict(dataclasses.replace(found, faults=(), sizes=None)) | {
        "faults": [str(fault) for fault in found.faults],
        "sizes": sizes and {f"{width}x{height}": count for width, height, count in sizes.counts},
        "unreadable": list(sizes.unreadable) if sizes else None,
    }


def print_inventory(found: Inventory, guessed: str) -> None:
    """Tables and lists for people."""
    layout = find_dataset(found.dataset)
    how = f"guessed: {guessed}; --dataset overrides" if guessed else "as told"
    out.print(f"read as [bold]{layout.title}[/bold] ({escape(how)})", soft_wrap=True)
    rejected = len(found.rejected)
    out.print(
        f"{found.images:,} image files: {found.images - rejected:,} fit the layout, {rejected:,} do not"
    )
    _bullets((f"{path}: {reason}" for path, reason in found.rejected[:SHOWN]), "yellow")
    _print_lines(found)
    out.print(f"subjects: {found.subjects or 'none named'}")
    out.print(f"with a true mask: {found.masks}")
    if layout.centroids:
        out.print(f"with blast centroids: {found.centroid_files} files, {found.centroids} blasts")
    _print_sizes(found, layout.size)
    if layout.published:
        out.print(
            "[bold]missing[/bold]"
            if found.missing
            else "[green]complete: nothing published is missing[/green]"
        )
    _bullets(found.missing, "yellow")
    if found.notes:
        out.print("[bold]to note[/bold]")
    _bullets(found.notes)
    if found.faults:
        out.print("[bold red]ingest would refuse these data[/bold red]")
    _bullets(map(str, found.faults), "red")


def _print_lines(found: Inventory) -> None:
    """Images and subjects by part and class; published counts where there are any."""
    compared = any(line.published is not None for line in found.lines)
    table = _table(
        "part", "class", "images", "subjects", *(("published", "published subjects") if compared else ())
    )
    for column in table.columns[2:]:
        column.justify = "right"
    for line in found.lines:
        short = line.published is not None and line.images < line.published
        numbers = [line.subjects or None, line.published, line.published_subjects]
        told = ["" if number is None else f"{number:,}" for number in numbers]
        images = f"[yellow]{line.images:,}[/yellow]" if short else f"{line.images:,}"
        table.add_row(escape(line.part), escape(line.class_name), images, *told[: 3 if compared else 1])
    out.print(table)


def _print_sizes(found: Inventory, published: str) -> None:
    """Image sizes, the most frequent first."""
    if found.sizes is None:
        return
    counts, told = found.sizes.counts, f" (published: {published})" if published else ""
    mixed = f"mixed, {len(counts)} kinds" if len(counts) > 1 else "all alike" if counts else "none read"
    out.print(f"sizes: {mixed}{told}")
    _bullets(f"{width}x{height}: {count:,}" for width, height, count in counts[:SHOWN])
    if len(counts) > SHOWN:
        rest = sum(count for *_, count in counts[SHOWN:])
        out.print(f"  {len(counts) - SHOWN} more kinds: {rest:,}")
    unreadable = found.sizes.unreadable
    if unreadable:
        out.print(f"headers that cannot be read (ingest quarantines such files): {len(unreadable):,}")
    _bullets(unreadable[:SHOWN], "yellow")


def _bullets(lines: Iterable[str], colour: str = "none") -> None:
    for line in lines:
        out.print(f"  [{colour}]{escape(line)}[/{colour}]", soft_wrap=True)


def _table(*headings: str) -> Table:
    table = Table(box=None, header_style="dim")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
