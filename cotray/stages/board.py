"""Where a training's workers and its driver leave word for each other.

An actor's process imports the module of its class. This one imports hardly anything, and so is there at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray


@ray.remote
class Board:
    """Where rank 0 posts figures for the driver to read, and where an attempt leaves word for the next."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, Any]] = []
        self.known_cuts = 1
        self.pieces = np.zeros(0, np.int64)

    def push(self, kind: str, post: Any) -> None:
        """Post a row of a ``step`` or an ``epoch``, a ``picture`` and its epoch, or something to ``say``."""
        self.posts.append((kind, post))

    def drain(self) -> list[tuple[str, Any]]:
        """All posts since the last call."""
        posts, self.posts = self.posts, []
        return posts

    def cut(self, cuts: int) -> None:
        """Memory ran out: pieces of batches are to be cut into so many parts."""
        self.known_cuts = cuts

    def cuts(self) -> int:
        """Into how many."""
        return self.known_cuts

    def begin(self, order: NDArray[np.int64]) -> None:
        """All ranks are about to read an epoch's stream, its pieces in this order."""
        self.pieces = order

    def order(self, place: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which pieces are at these places of it."""
        return self.pieces[place]
