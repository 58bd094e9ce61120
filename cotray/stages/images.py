"""Ingest's images for the stages after it, ready for cells to be looked for: as kept, or read again.

With ``ingest.store=bytes`` ingest's part files hold every image. With ``reference`` they hold none:
the file is read from the data set again, compared with what ingest saw by its digests, and prepared by the
same function under the same settings. Both ways give the same pixels. H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cotray import manifest
from cotray.config import Config, validate
from cotray.data.decode import decode_stored
from cotray.data.hashing import pixel_digest
from cotray.errors import DecodeError, SourceChangedError
from cotray.preparation import carried, prepare
from cotray.stages.ingest import READ_AGAIN, Item, list_items, read_pixels
from cotray.stages.parts import part_name
from cotray.storage import Folder

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Pixels = tuple[Rgb, Mask | None]


def open_images(ingest: Folder) -> Images:
    """The images of a completed ingest, by its folder. Raises what listing the data set raises."""
    parts = ingest / "images"
    if not ingest.exists(READ_AGAIN):
        return Images(parts)
    config = carried(validate(ingest.read_json(READ_AGAIN)), ingest)
    return Images(parts, config, {item.path: item for item in list_items(config)[0]})


class Images:
    """Rows of ingest's parts, and the pixels that belong to them. Cheap to send to workers."""

    def __init__(
        self, parts: Folder, config: Config | None = None, items: Mapping[str, Item] | None = None
    ) -> None:
        self.parts, self.config, self.items = parts, config, items or {}
        self._last: tuple[str, Pixels] | None = None

    def rows(self, part: int, pixels: tuple[str, ...] = manifest.PIXELS) -> list[dict[str, Any]]:
        """A part's rows, quarantined ones too; ``pixels`` names those columns that will be asked for."""
        light = [name for name in manifest.SCHEMA.names if name not in manifest.PIXELS]
        rows: list[dict[str, Any]] = self.parts.read_parquet(part_name(part), [*light, *pixels]).to_pylist()
        return rows

    def rgb(self, row: Mapping[str, Any]) -> Rgb:
        """(H, W, 3) uint8, blanked and enhanced. Raises SourceChangedError."""
        if self.config is None:
            return decode_stored(row["image"])
        return prepare(self._raw(self.config, row)[0], self.config)

    def mask(self, row: Mapping[str, Any]) -> Mask | None:
        """(H, W) the true cell mask, where there is one. Raises SourceChangedError."""
        if self.config is None:
            return None if row["mask"] is None else decode_stored(row["mask"])[..., 0] > 127
        return None if row["mask_digest"] is None else self._raw(self.config, row)[1]

    def _raw(self, config: Config, row: Mapping[str, Any]) -> Pixels:
        """Image and mask as ingest read them; the last ones are kept, for who asks for both."""
        if self._last is None or self._last[0] != row["id"]:
            self._last = (row["id"], _read_again(config, self.items.get(row["id"]), row))
        return self._last[1]


def _read_again(config: Config, item: Item | None, row: Mapping[str, Any]) -> Pixels:
    if item is None:
        raise _changed(config, row["id"], "is no longer among the files of the data set")
    try:
        rgb, mask = read_pixels(item, config)
    except FileNotFoundError:
        raise _changed(config, item.path, "is gone") from None
    except (DecodeError, OSError) as error:
        raise _changed(config, item.path, f"cannot be read any more ({error})") from error
    if pixel_digest(rgb) != row["digest"]:
        raise _changed(config, item.path, "has changed")
    if row["mask_digest"] not in (None, None if mask is None else pixel_digest(mask)):
        raise _changed(config, getattr(item, "mask_path", None) or item.path, "is gone or has changed")
    return rgb, mask


def _changed(config: Config, path: str, how: str) -> SourceChangedError:
    return SourceChangedError(
        f"The file {path} {how} since ingest, which kept a reference to it.",
        where=config.dataset.root or "drawn on the spot",
        cure="Put the file back as it was, or do ingest anew with `--force ingest`; "
        "with --set ingest.store=bytes a run keeps the images itself.",
    )
