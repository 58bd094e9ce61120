"""What `cotray segment` is given: files, folders and URIs, as names below one common folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cotray.data.layouts import images_below
from cotray.errors import DataError, DatasetNotFoundError, EmptyDatasetError
from cotray.storage import Folder, absolute, reachable


@dataclass(frozen=True)
class Item:
    """One image file."""

    path: str
    """Posix path below the common folder: the image's name in every result."""
    mark: str
    """Size and time of change: another file of the same name is another image."""


@dataclass(frozen=True)
class Inputs:
    """Where the images are."""

    root: Folder
    items: list[Item]


def find_inputs(inputs: Sequence[str], out: Folder, former: str | None = None) -> Inputs:
    """Every image below the inputs, named from the folder that is common to all of them, or from ``former``
    (of an earlier call) where that holds them all.

    Folders are searched wholly, but for what a former run wrote to ``out``; a file is taken whatever it is
    called. Raises DatasetNotFoundError, EmptyDatasetError (a folder without an image), AccessError,
    StorageError, DataError (inputs on different filesystems).
    """
    found = [_expand(absolute(uri), out) for uri in inputs]
    if len({type(folder.fs) for folder, _ in found}) != 1:
        raise DataError("The inputs are on different filesystems.", cure="Segment them one after another.")
    common = os.path.commonpath([folder.path or "/" for folder, _ in found])
    if not common:  # as of two buckets
        raise DataError("The inputs share no folder.", cure="Segment them one after another.")
    fs, local = found[0][0].fs, found[0][0].is_local
    before = Folder(former or common)
    if former and type(before.fs) is type(fs) and f"{common}/".startswith(f"{before.path}/"):
        common = before.path
    root = Folder(common if local else str(fs.unstrip_protocol(common)))
    items = {item.path: item for folder, below in found for item in _renamed(folder, below, common)}
    return Inputs(root, [items[path] for path in sorted(items)])


def _expand(uri: str, out: Folder) -> tuple[Folder, dict[str, str]]:
    """(folder, name below it -> mark) of one input."""
    place = Folder(uri.rstrip("/") or "/")
    with reachable(uri):
        if place.fs.isfile(place.path):
            parent, _, name = place.uri.rpartition("/")
            info = place.fs.info(place.path)
            changed = info.get("ETag") or info.get("mtime") or ""
            return Folder(parent or "/"), {name: f"{info.get('size') or 0} {changed}"}
    if not place.exists():
        raise DatasetNotFoundError("There is no such image or folder.", where=uri, cure="Check the path.")
    return place, _images(place, out)


def _images(folder: Folder, out: Folder) -> dict[str, str]:
    sizes = folder.sizes()
    own = f"{out.path}/"[len(folder.path) + 1 :] if out.path.startswith(f"{folder.path}/") else None
    try:
        images = images_below(name for name in sizes if own is None or not name.startswith(own))
    except EmptyDatasetError as error:
        raise EmptyDatasetError(
            "There is no image in this folder.",
            where=folder.uri,
            cure="Name a folder of png, jpg, bmp or tif files; folders called mask* are left out.",
        ) from error
    return {name: " ".join(map(str, sizes[name])) for name in images}


def _renamed(folder: Folder, below: Mapping[str, str], common: str) -> Iterable[Item]:
    """Names as seen from the common folder."""
    ahead = os.path.relpath(folder.path or "/", common)
    prefix = "" if ahead == "." else f"{ahead}/"
    return [Item(f"{prefix}{name}", mark) for name, mark in below.items()]
