"""Parts that tell when they were worked on; in a file of its own: Ray's workers import it by name."""

from __future__ import annotations

import time

import pyarrow as pa

from cotray.stages.parts import Work


def spans() -> Work:
    """A row of a part's only item, and the wall-clock seconds at which work on it began and ended."""

    def work(part: int, items: list[int]) -> pa.Table:
        begun = time.time()
        time.sleep(0.2)
        return pa.table({"item": items, "begun": [begun], "ended": [time.time()]})

    return work
