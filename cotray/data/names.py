"""File names in a listing: which are images, which are masks, archives or clutter, and their order."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from cotray.errors import EmptyDatasetError

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
ARCHIVES = {".zip", ".rar", ".7z", ".tar", ".gz", ".tgz"}
CLUTTER = {"__macosx", "@eadir", "$recycle.bin", "lost+found", "thumbs.db", "desktop.ini"}
"""What operating systems and network drives leave behind; names that begin with a dot are clutter too."""


def without_clutter(files: Iterable[str]) -> list[str]:
    """The files that people put there, in their order."""
    return [file for file in files if not any(_clutters(part) for part in file.split("/"))]


def _clutters(part: str) -> bool:
    return part.startswith(".") or part.lower() in CLUTTER


def images_below(files: Iterable[str], root: str | None = None) -> list[str]:
    """Image files, naturally sorted; masks and hidden files are not images. Raises EmptyDatasetError."""
    here = without_clutter(files)
    found = [file for file in here if _suffix(file) in IMAGES and not is_mask(file)]
    if found:
        return sorted(found, key=natural)
    packed = archives(here)
    if packed:
        raise EmptyDatasetError(
            f"There is no image here, but {len(packed)} archives, the first: {packed[0]}.",
            where=root,
            cure="Unpack them first, e.g. with `unzip`; cotray reads unpacked folders.",
        )
    raise EmptyDatasetError(
        "There is no image here.", where=root, cure="Check --root; png, jpg, bmp and tif files are read."
    )


def is_mask(file: str) -> bool:
    """Whether a file lies in a masks* folder, or is named like a mask."""
    return any(part.lower().startswith("mask") for part in file.split("/"))


def archives(files: Iterable[str]) -> list[str]:
    """Packed files: what a download looks like before it is unpacked."""
    return without_clutter(file for file in files if _suffix(file) in ARCHIVES)


def with_suffix(files: Iterable[str], suffix: str) -> dict[str, str]:
    """Lower-case stem -> file, of the files with this suffix, in whatever case it is written."""
    return {stem(file): file for file in without_clutter(f for f in files if f.lower().endswith(suffix))}


def masks_by_stem(files: Iterable[str]) -> dict[str, str]:
    """Lower-case stem -> mask file; of several mask folders the first by name counts."""
    masks: dict[str, str] = {}
    for file in sorted(without_clutter(files), reverse=True):
        if _suffix(file) in IMAGES and is_mask(file.rpartition("/")[0]):
            masks[stem(file)] = file
    return masks


def stem(file: str) -> str:
    """Lower-case name without its suffix."""
    return file.rpartition("/")[2].lower().removesuffix(_suffix(file))


def folders_inside_out(file: str) -> list[str]:
    """The folders a file lies in, the innermost first."""
    return file.split("/")[-2::-1]


def natural(path: str) -> list[tuple[int, int, str]]:
    """Sort key: digits by value, so that 2 comes before 10."""
    pieces = re.split(r"(\d+)", path.lower())
    return [(0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in pieces]


def _suffix(file: str) -> str:
    return posixpath.splitext(file)[1].lower()  # paths of a listing, on any system; pathlib is far slower
