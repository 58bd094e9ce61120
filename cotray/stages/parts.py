"""Ray Data over part files: a task works through some parts and writes each as Parquet, atomically.

A part that exists is never computed again, so a killed stage continues where it was; memory is bounded
by the parts in flight; and a part's content depends on its items alone, never on the worker.

A part travels with its own items: what a task is sent does not grow with the whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import ray.data

from cotray import errors, manifest
from cotray.config import ComputeConfig
from cotray.errors import CotrayError
from cotray.stages.base import StageRun
from cotray.stages.cluster import OWN, cpus, own_share, use_gpu
from cotray.storage import Folder

Work = Callable[[int, Any], pa.Table]
"""(part number, that part's items) -> rows with pixels."""
MOST_PARTS = 8
"""A task takes at most so many parts. Few tasks cost less, and more say sooner how far the work is."""


@dataclass(frozen=True)
class Plan:
    """A long piece of work in parts."""

    what: str
    """Shown with the progress, e.g. `images`."""
    build: Callable[[], Work]
    """Makes the worker's function; models are loaded here, once per actor."""
    items: Sequence[Any]
    """One entry per part."""
    out: Folder
    """Where the parts are written."""
    actors: bool = False
    """True: an actor pool (the worker holds a model); False: stateless tasks."""


def run_parts(plan: Plan, compute: ComputeConfig, at: StageRun) -> None:
    """Write every part of the plan that is not there yet. Raises the CotrayError that a worker met."""
    total = len(plan.items)
    todo = [i for i in range(total) if not plan.out.exists(part_name(i))]
    if len(todo) < total:
        at.say(f"{total - len(todo)} of {total} parts of {plan.what} are there already")
    if not todo:
        return
    shares = [[i] for i in todo] if plan.actors else _shares(todo, cpus())
    blocks = [pd.DataFrame({"part": share, "items": [plan.items[i] for i in share]}) for share in shares]
    dataset = ray.data.from_pandas(blocks).map_batches(
        _PartWorker if plan.actors else _stateless(plan),
        batch_size=None,
        batch_format="pandas",
        **(_actor_options(plan, compute, len(todo)) if plan.actors else _task_options()),
    )
    done, rows = total - len(todo), 0
    for batch in dataset.iter_batches(batch_size=None, batch_format="pandas", prefetch_batches=0):
        _raise_told(batch["error"])
        done += len(batch)
        rows += int(batch["rows"].sum())
        at.voice.progress(plan.what, done, total, f"{rows} rows")


def _shares(parts: Sequence[int], workers: int) -> Iterator[Sequence[int]]:
    """Parts by task: many at first and single ones at last, so that all workers end together."""
    start = 0
    while start < len(parts):
        size = max(1, min(MOST_PARTS, (len(parts) - start) // (2 * workers)))
        yield parts[start : start + size]
        start += size


def _task_options() -> dict[str, Any]:
    """One task for each core; in a Ray of this machine only, another for each waits for a core.

    Ray Data takes up to 0.2 s to see that a task is over and to begin another, and a core stands still
    meanwhile; and for the first second it begins a single task, not knowing yet how many cores there are. So
    its own count is put aside (`num_cpus=0`), and Ray is given twice as many tasks as there are cores, of
    which it runs one on each, by a resource that Ray Data does not count. A cluster has no such resource.
    """
    if not (share := own_share()):
        return {"num_cpus": 1}
    ahead = ray.data.TaskPoolStrategy(size=2 * cpus())
    return {"num_cpus": 0, "resources": {OWN: share}, "compute": ahead}


def _actor_options(plan: Plan, compute: ComputeConfig, parts: int) -> dict[str, Any]:
    # Half a CPU each leaves room for readers: a pool that takes every CPU can starve them for ever.
    gpu = use_gpu(compute)
    size = max(1, min(1 if gpu else cpus(), parts))
    return {
        "fn_constructor_args": (plan.build, plan.out),
        "compute": ray.data.ActorPoolStrategy(size=size),
        "num_cpus": 0.5,
        **({"num_gpus": 1} if gpu else {}),
    }


def _stateless(plan: Plan) -> Callable[[pd.DataFrame], pd.DataFrame]:
    build, out = plan.build, plan.out

    def work(batch: pd.DataFrame) -> pd.DataFrame:
        return _PartWorker(build, out)(batch)

    return work


class _PartWorker:
    """The callable that Ray Data runs; one row in (a part), one row out (its size, or what went wrong)."""

    def __init__(self, build: Callable[[], Work], out: Folder) -> None:
        self.work, self.out = build(), out

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        told: list[Future[dict[str, Any]]] = []
        with ThreadPoolExecutor(1) as writer:  # a part goes to the disk while the next one is made
            for part, items in zip(batch["part"].tolist(), batch["items"], strict=True):
                made = self._make(part, items)
                if told:
                    told[-1].result()  # no more than one part waits in memory
                told.append(writer.submit(self._write, part, made))
        return pd.DataFrame([one.result() for one in told])

    def _make(self, part: int, items: Any) -> pa.Table | CotrayError | None:
        """The part's rows, or what went wrong; None where a task that was killed later wrote it."""
        try:
            if self.out.exists(part_name(part)):
                return None
            return self.work(part, items)
        except CotrayError as error:
            return error

    def _write(self, part: int, made: pa.Table | CotrayError | None) -> dict[str, Any]:
        if isinstance(made, pa.Table):
            try:
                self.out.write_parquet(part_name(part), _numbered(made, part))
            except CotrayError as error:
                made = error
        if isinstance(made, CotrayError):
            return {"part": part, "rows": 0, "error": json.dumps([type(made).__name__, *made.args])}
        return {"part": part, "rows": 0 if made is None else len(made), "error": ""}


def _numbered(rows: pa.Table, part: int) -> pa.Table:
    """The rows, naming their part where they have a column for it."""
    if "part" not in rows.schema.names:
        return rows
    return manifest.assign(rows, "part", [part] * len(rows))


def _raise_told(told: Iterable[str]) -> None:
    """Raise what a worker met. Ray would wrap it, and the user would see Ray's traceback instead."""
    for error in filter(None, told):
        kind, what, where, cure = json.loads(error)
        raise getattr(errors, kind)(what, where=where, cure=cure)


def part_name(index: int) -> str:
    """File name of a part."""
    return f"part-{index:05d}.parquet"


def read_parts(folder: Folder, count: int, pixels: bool = False) -> pa.Table:
    """All parts in order, without pixels unless asked for."""
    columns = None if pixels else [name for name in manifest.SCHEMA.names if name not in manifest.PIXELS]
    tables = [folder.read_parquet(part_name(i), columns) for i in range(count)]
    rows = pa.concat_tables(tables) if tables else manifest.SCHEMA.empty_table()
    for name in manifest.SCHEMA.names:
        if name not in rows.schema.names:
            rows = rows.append_column(manifest.SCHEMA.field(name), pa.nulls(len(rows), pa.binary()))
    return rows.select(manifest.SCHEMA.names)


def chunk_size(items: int, blocks_per_cpu: int) -> int:
    """Items per part: enough parts to share evenly, few enough to be cheap; the same on every machine."""
    return max(8, min(64, items // (4 * blocks_per_cpu) or 1))


def chunks(items: Sequence[Any], size: int) -> list[list[Any]]:
    """Consecutive chunks."""
    return [list(items[i : i + size]) for i in range(0, len(items), size)]
