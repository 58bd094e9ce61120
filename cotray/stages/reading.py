"""Reading image files in Ray's workers: to rows of the manifest, with a reason where one cannot be used.

This module imports nothing heavy (no torch, no scikit-learn): every worker imports it before its first image.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cotray import manifest
from cotray.config import Config
from cotray.data.catalog import ImageRecord, decode_cell_mask
from cotray.data.decode import decode_mask_file, encode_bmp, encode_png
from cotray.data.hashing import perceptual_hash, pixel_digest
from cotray.data.phantom import PhantomSpec, draw_phantom
from cotray.errors import DecodeError
from cotray.preparation import decode, prepare_noted
from cotray.storage import Folder, absolute

Item = ImageRecord | PhantomSpec
MASK_FAULT = "its mask is not used"
"""Part of the reason of an image that is used without its mask."""


class Reader:
    """Reads the items of one part in a Ray worker."""

    def __init__(self, config: Config) -> None:
        self.config = config
        cv2.setNumThreads(1)  # there is a task for every core already

    def __call__(self, part: int, items: Sequence[Item]) -> pa.Table:
        """The rows of a part's items, in their order."""
        return manifest.table(self._row(item) for item in items)

    def _row(self, item: Item) -> dict[str, Any]:
        try:
            return self._used(item)
        except DecodeError as error:
            return quarantined(item.path, error.what)
        except OSError as error:
            return quarantined(item.path, f"cannot be read: {error.strerror or error}")
        except cv2.error as error:
            return quarantined(item.path, f"cannot be enhanced: {error.err}")

    def _used(self, item: Item) -> dict[str, Any]:
        rgb, mask = read_pixels(item, self.config)
        height, width = rgb.shape[:2]
        prepared = prepare_noted(rgb, self.config)
        notes = [prepared.stain_left] if prepared.stain_left else []
        if mask is None and getattr(item, "mask_path", None):
            notes.append(f"{MASK_FAULT}: it cannot be read, or is of another size")
        return {
            "id": item.path,
            "image_id": item.path,
            "source": "real",
            "label": item.label,
            "class_name": item.class_name,
            "subject": item.subject,
            "status": "used",
            "width": width,
            "height": height,
            "digest": pixel_digest(rgb),
            "phash": perceptual_hash(rgb),
            "mask_digest": None if mask is None else pixel_digest(mask),
            "reason": "; ".join(notes) or None,
            **(self._pixels(prepared.rgb, mask) if self.config.ingest.store == "bytes" else {}),
        }

    def _pixels(self, rgb: NDArray[np.uint8], mask: NDArray[np.bool_] | None) -> dict[str, bytes | None]:
        return {
            "image": encode_bmp(rgb),
            "mask": None if mask is None else encode_png(mask.astype(np.uint8) * 255),
        }


@functools.lru_cache(maxsize=1)
def _root(uri: str) -> Folder:
    """The dataset's folder, opened once in each process."""
    return Folder(absolute(uri))


def read_pixels(item: Item, config: Config) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """(raw RGB, true cell mask or None) of an item; None, too, for a mask that is damaged or of another size.

    Raises DecodeError, OSError where the image cannot be read.
    """
    if isinstance(item, PhantomSpec):
        drawn = draw_phantom(item)
        return drawn.rgb, drawn.instances > 0
    folder = _root(str(config.dataset.root))
    rgb = decode(folder.read_bytes(item.path), config)
    if item.mask_path is None:
        return rgb, None
    try:
        raw = decode_mask_file(folder.read_bytes(item.mask_path))
    except (DecodeError, OSError):
        return rgb, None  # the image is none the worse for it
    mask = decode_cell_mask(config.dataset.name, raw, item.mask_path)
    return rgb, mask if mask.shape == rgb.shape[:2] else None


def quarantined(path: str, reason: str) -> dict[str, Any]:
    """The row of a file that cannot be used."""
    return {"id": path, "image_id": path, "source": "real", "status": "quarantined", "reason": reason}
