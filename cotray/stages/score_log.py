"""What every mask was worth, on disk as soon as it is known: a killed search never evaluates twice.

On a local disk one file grows, record by record; elsewhere parts are written every few seconds. A record
is a mask's bits and its value; a part begins with the masks' width. P masks, D features.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from cotray.selection.drive import Memo
from cotray.selection.search import Values
from cotray.selection.transfer import Masks
from cotray.storage import Folder

NAME = "scored"
EVERY_S = 5.0
HEADER = np.dtype(np.uint64)


class ScoreLog:
    """The log in a stage's folder."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        parts = [folder.read_bytes(name) for name in self._parts()]
        self._known = [found for found in map(decode, parts) if found is not None]
        self._next, self._waiting, self._written = len(parts), b"", time.monotonic()

    def _parts(self) -> list[str]:
        if not self.folder.exists(NAME):
            return []
        return [f"{NAME}/{name}" for name in (self.folder / NAME).files() if name.endswith(".bin")]

    def __len__(self) -> int:
        return sum(len(values) for _, values in self._known)

    def recall(self, memo: Memo) -> None:
        """Teach a memo what was scored before."""
        for masks, values in self._known:
            memo.learn(masks, values)

    def append(self, mask_PD: Masks, value_P: Values) -> None:
        """Add scored masks."""
        body = encode(mask_PD, value_P)
        if self.folder.is_local:
            self._append_local(body, mask_PD.shape[1])
            return
        self._waiting = (self._waiting or _header(mask_PD.shape[1])) + body
        if time.monotonic() - self._written > EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write what waits, where the place is not a local disk."""
        if self._waiting:
            self.folder.write_bytes(f"{NAME}/{self._next:06d}.bin", self._waiting)
            self._next, self._waiting, self._written = self._next + 1, b"", time.monotonic()

    def _append_local(self, body: bytes, width: int) -> None:
        # A part of its own for every life of the process: a record cut by a kill ends its part.
        path = Path(self.folder.at(f"{NAME}/{self._next:06d}.bin"))
        fresh = not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:  # a single unbuffered write: what a SIGKILL leaves is whole records
            file.write((_header(width) if fresh else b"") + body)


def _header(width: int) -> bytes:
    return np.array([width], HEADER).tobytes()


def encode(mask_PD: Masks, value_P: Values) -> bytes:
    """Records of masks and values."""
    bits = np.packbits(mask_PD, axis=1)
    value = np.asarray(value_P, np.float64).reshape(-1, 1).view(np.uint8)
    return np.concatenate([bits, value], axis=1).tobytes()


def decode(part: bytes) -> tuple[Masks, Values] | None:
    """Masks and values of a part; a record cut off at its end is left out."""
    if len(part) < HEADER.itemsize:
        return None
    width = int(np.frombuffer(part[: HEADER.itemsize], HEADER)[0])
    body, bits = part[HEADER.itemsize :], -(-width // 8)
    rows = len(body) // (bits + 8)
    table = np.frombuffer(body[: rows * (bits + 8)], np.uint8).reshape(rows, bits + 8)
    masks = np.unpackbits(table[:, :bits], axis=1, count=width).astype(bool)
    return masks, np.ascontiguousarray(table[:, bits:]).view(np.float64)[:, 0]
