"""What this process and those below it use, from /proc: memory and CPU time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def tree() -> list[str]:
    """Ids of this process and of all that descend from it."""
    parents = dict(_parents())
    own = str(os.getpid())
    return [own, *(pid for pid in parents if own in _ancestors(pid, parents))]


def _ancestors(pid: str, parents: dict[str, str]) -> Iterator[str]:
    while pid in parents:
        pid = parents[pid]
        yield pid


def _parents() -> Iterator[tuple[str, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        if fields := _stat(folder.name):
            yield folder.name, fields[1]


def _stat(pid: str) -> list[str]:
    """The fields of /proc/PID/stat that follow the name; none where the process has ended."""
    try:
        return (Path("/proc") / pid / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cpu_seconds() -> float:
    """CPU time of the tree so far, ended children that were waited for included."""
    spent = [_stat(pid)[11:15] for pid in tree()]
    return sum(int(ticks) for fields in spent for ticks in fields) / TICKS


def resident(pid: str) -> float:
    """MiB of a process; 0 where it has ended."""
    try:
        lines = (Path("/proc") / pid / "status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)


def is_ray_worker(pid: str) -> bool:
    """Whether Ray runs tasks or actors in this process."""
    try:
        return (Path("/proc") / pid / "cmdline").read_bytes().startswith(b"ray::")
    except OSError:
        return False
