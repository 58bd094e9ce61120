"""Ray Data over part files: each task reads some items, works, and writes one Parquet part, atomically.

A part that exists is never computed again, so a killed stage continues where it was; memory is bounded
by the parts in flight; and a part's content depends on its items alone, never on the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from cotray import manifest
from cotray.config import ComputeConfig
from cotray.stages.base import StageRun
from cotray.stages.cluster import cpus, use_gpu
from cotray.storage import Folder

Work = Callable[[int, Any], pa.Table]
"""(part number, that part's items) -> rows with pixels."""


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
    """Write every part of the plan that is not there yet."""
    total = len(plan.items)
    todo = [i for i in range(total) if not plan.out.exists(part_name(i))]
    if len(todo) < total:
        at.say(f"{total - len(todo)} of {total} parts of {plan.what} are there already")
    if not todo:
        return
    items = ray.put(list(plan.items))
    dataset = ray.data.from_items([{"part": i} for i in todo], override_num_blocks=len(todo))
    dataset = dataset.map_batches(
        _PartWorker if plan.actors else _stateless(plan, items),
        batch_size=1,
        **(_actor_options(plan, items, compute, len(todo)) if plan.actors else {}),
    )
    done, rows = total - len(todo), 0
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        done += len(batch)
        rows += int(pc.sum(batch["rows"]).as_py() or 0)
        at.voice.progress(plan.what, done, total, f"{rows} rows")


def _actor_options(plan: Plan, items: Any, compute: ComputeConfig, parts: int) -> dict[str, Any]:
    # Half a CPU each leaves room for readers: a pool that takes every CPU can starve them for ever.
    gpu = use_gpu(compute)
    size = max(1, min(1 if gpu else cpus(), parts))
    return {
        "fn_constructor_args": (plan.build, plan.out, items),
        "compute": ray.data.ActorPoolStrategy(size=size),
        "num_cpus": 0.5,
        **({"num_gpus": 1} if gpu else {}),
    }


def _stateless(plan: Plan, items: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    build, out = plan.build, plan.out

    def work(batch: dict[str, Any]) -> dict[str, Any]:
        return _PartWorker(build, out, items)(batch)

    return work


class _PartWorker:
    """The callable that Ray Data runs; one row in (a part number), one row out (its size)."""

    def __init__(self, build: Callable[[], Work], out: Folder, items: Any) -> None:
        self.work, self.out, self.items = build(), out, ray.get(items)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        counts = [self._one(int(part)) for part in batch["part"]]
        return {"part": batch["part"], "rows": counts}

    def _one(self, part: int) -> int:
        rows = self.work(part, self.items[part])
        if "part" in rows.schema.names:
            rows = manifest.assign(rows, "part", [part] * len(rows))
        self.out.write_parquet(part_name(part), rows)
        return len(rows)


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
