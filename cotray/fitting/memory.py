"""Out of memory: which errors say so, and a batch in smaller pieces."""

from __future__ import annotations

from torch import OutOfMemoryError

from cotray.fitting.job import Pieces, in_pieces
from cotray.learning import Batch

SIGNS = ("can't allocate memory", "not enough memory", "out of memory")
"""How torch's CPU allocator and CUDA libraries put it, in a RuntimeError."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, (OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def cut(pieces: Pieces, times: int) -> list[Batch]:
    """Each piece in ``times`` parts of two items at least (a batch norm cannot do with one)."""
    return [part for piece in pieces for part in in_pieces(piece, times)]


def size(piece: Batch) -> int:
    """Items of a piece."""
    return len(next(iter(piece.values())))
