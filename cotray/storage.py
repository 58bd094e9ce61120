"""One filesystem layer: a folder on disk or at any fsspec URI, with atomic writes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from cotray.errors import (
    AccessError,
    CotrayError,
    DatasetNotFoundError,
    RunError,
    RunNotWritableError,
    StorageError,
)

HEADS_AT_ONCE = 256
"""Files whose beginnings are asked for together; remote places answer them side by side."""
ROW_GROUP = 64
"""Rows of a table with images that are read together at least."""
SYSTEM_FOLDERS = {"lost+found", "$RECYCLE.BIN", "System Volume Information"}
"""Closed to users on many disks, and never anybody's data."""


@dataclass(frozen=True)
class Folder:
    """A folder by URI. Cheap to pickle: Ray workers open their own connection."""

    uri: str

    @cached_property
    def _resolved(self) -> tuple[Any, str]:
        try:
            fs, path = fsspec.core.url_to_fs(self.uri)
        except ImportError as error:
            raise StorageError(
                f"This kind of place needs a package that is not installed: {error}.",
                where=self.uri,
                cure="For s3:// do `pip install 'cotray[s3]'`; for others, the fsspec package of that name.",
            ) from error
        except ValueError as error:
            raise StorageError(
                f"Cannot open this place: {error}.", where=self.uri, cure="Check the URI."
            ) from error
        return fs, path.rstrip("/")

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}

    def __setstate__(self, state: dict[str, str]) -> None:
        object.__setattr__(self, "uri", state["uri"])

    @property
    def fs(self) -> Any:
        """The fsspec filesystem."""
        return self._resolved[0]

    @property
    def path(self) -> str:
        """The path inside :attr:`fs`."""
        return str(self._resolved[1])

    @property
    def is_local(self) -> bool:
        """Whether this is a folder on this machine's disk."""
        return "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    def arrow(self) -> tuple[pafs.FileSystem, str]:
        """(pyarrow filesystem, path): what Ray Train's storage and Parquet take."""
        if self.is_local:
            return pafs.LocalFileSystem(), self.path
        return pafs.PyFileSystem(pafs.FSSpecHandler(self.fs)), self.path

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.uri.rstrip('/')}/{name}")

    def at(self, name: str) -> str:
        """Path of a file below this folder, inside :attr:`fs`."""
        return f"{self.path}/{name}"

    def exists(self, name: str = "") -> bool:
        """Whether a file or folder is there. Raises AccessError, StorageError where that cannot be known."""
        with reachable(self.uri):
            if name or self.is_local:
                return bool(self.fs.exists(self.at(name) if name else self.path))
            with suppress(PermissionError):
                if self.fs.exists(self.path):
                    return True
            return self._listed()

    def _listed(self) -> bool:
        """Whether a remote folder can be listed: a forbidden bucket looks absent until it is."""
        try:
            self.fs.ls(self.path, refresh=True)
        except FileNotFoundError:
            return False
        return True

    def files(self) -> list[str]:
        """Relative posix paths of all files below, sorted. Raises DatasetNotFoundError, AccessError."""
        return list(self.sizes())

    def sizes(self) -> dict[str, tuple[int, str]]:
        """Relative path -> (bytes, modification mark) of all files below, sorted: a cheap content mark.

        Links are followed. Raises DatasetNotFoundError, AccessError (also of a folder somewhere below).
        """
        if not self.exists():
            raise DatasetNotFoundError("There is no such folder.", where=self.uri, cure="Check --root.")
        with reachable(self.uri):
            if self.fs.isfile(self.path):
                raise DatasetNotFoundError(
                    "This is a file, not a folder.",
                    where=self.uri,
                    cure="Give the folder; unpack an archive first.",
                )
            return dict(sorted((_walk(self.path) if self.is_local else self._remote()).items()))

    def _remote(self) -> dict[str, tuple[int, str]]:
        found: dict[str, dict[str, Any]] = self.fs.find(self.path, detail=True)
        return {
            path[len(self.path) :].lstrip("/"): (
                int(info.get("size") or 0),
                str(info.get("ETag") or info.get("etag") or info.get("mtime") or ""),
            )
            for path, info in found.items()
            if not path.endswith("/")  # an empty object that stands for a folder
        }

    def read_bytes(self, name: str) -> bytes:
        """A file's bytes. OSError of the file (FileNotFoundError if absent), StorageError of the place."""
        try:
            return bytes(self.fs.cat_file(self.at(name)))
        except OSError:
            raise  # of this one file: the caller knows what it is worth
        except Exception as error:  # of the place, in the words of whoever speaks its protocol
            raise _told(error, self.at(name)) from error

    def read_text(self, name: str) -> str:
        """A text file below, or at a URI or absolute path of its own. OSError, UnicodeDecodeError."""
        if "://" in name or name.startswith("/"):
            place, _, name = name.rpartition("/")
            return Folder(place).read_text(name)
        return self.read_bytes(name).decode("utf-8-sig")

    def heads(self, names: Sequence[str], size: int) -> Iterator[bytes]:
        """The first ``size`` bytes of each file, in order; empty where it cannot be read."""
        for start in range(0, len(names), HEADS_AT_ONCE):
            paths = [self.at(name) for name in names[start : start + HEADS_AT_ONCE]]
            with reachable(self.uri):
                found = self.fs.cat_ranges(paths, 0, size, on_error="return")
            yield from (head if isinstance(head, bytes) else b"" for head in found)

    def open(self, name: str) -> BinaryIO:
        """A file to read from and seek in, without loading all of it. OSError."""
        file: BinaryIO = self.fs.open(self.at(name), "rb", block_size=65536)
        return file

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write atomically: a reader sees the old file or the whole new one. RunNotWritableError."""
        path = self.at(name)
        try:
            self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            if self.is_local:
                self._replace(path, data)
            else:
                self.fs.pipe_file(path, data)
        except OSError as error:
            raise RunNotWritableError(
                f"Cannot write: {error.strerror or error}.",
                where=path,
                cure="Choose another place with --run, or free space and permissions there.",
            ) from error
        except Exception as error:  # of the place, in the words of whoever speaks its protocol
            raise _told(error, path) from error

    def _replace(self, path: str, data: bytes) -> None:
        temporary = Path(f"{path}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:  # a half written file would keep a full disk full
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def read_json(self, name: str) -> Any:
        """A JSON file. Raises RunError where it is not JSON."""
        try:
            return json.loads(self.read_bytes(name))
        except json.JSONDecodeError as error:
            raise RunError(
                "This file is damaged.", where=self.at(name), cure="Redo the stage with --force."
            ) from error

    def write_json(self, name: str, value: Any) -> None:
        """Write JSON atomically, sorted and indented so that people can read and compare it."""
        self.write_bytes(name, json.dumps(value, indent=1, sort_keys=True).encode())

    def read_parquet(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file, or all part files of a folder. Raises RunError where damaged."""
        fs, path = self.arrow()
        try:
            return pq.read_table(f"{path}/{name}", filesystem=fs, columns=columns)
        except (pa.ArrowInvalid, OSError) as error:
            raise _damaged(error, f"{self.uri}/{name}") from error

    def read_rows(self, name: str, start: int, stop: int, columns: list[str]) -> tuple[pa.Table, int]:
        """(some rows of a Parquet file, how many it has); only their row groups are read. Raises RunError."""
        fs, path = self.arrow()
        try:
            with pq.ParquetFile(f"{path}/{name}", filesystem=fs) as file:
                known = file.metadata
                sizes = [known.row_group(i).num_rows for i in range(known.num_row_groups)]
                first = [sum(sizes[:i]) for i in range(len(sizes))]
                groups = [i for i in range(len(sizes)) if first[i] < stop and first[i] + sizes[i] > start]
                rows = file.read_row_groups(groups, columns)
        except (pa.ArrowInvalid, OSError) as error:
            raise _damaged(error, f"{self.uri}/{name}") from error
        begin = start - first[groups[0]] if groups else 0
        return rows.slice(begin, stop - start), known.num_rows

    def write_parquet(self, name: str, rows: pa.Table) -> None:
        """Write a Parquet file atomically; bytes that are compressed already (PNG) as they are, the rest by
        zstd."""
        sink = pa.BufferOutputStream()
        leaves = {
            f"{f.name}.list.element" if pa.types.is_list(f.type) else f.name: f.type for f in rows.schema
        }
        plain = [name for name, kind in leaves.items() if pa.types.is_binary(kind)]
        packed = {name: "none" if name in plain and not _bitmaps(rows[name]) else "zstd" for name in leaves}
        dictionary = [name for name in leaves if name not in plain]
        size = ROW_GROUP if any(rows[name].null_count < len(rows) for name in plain) else None
        pq.write_table(rows, sink, compression=packed, use_dictionary=dictionary, row_group_size=size)
        self.write_bytes(name, sink.getvalue().to_pybytes())

    def remove(self, name: str = "") -> None:
        """Remove a file or folder, if there."""
        path = self.at(name) if name else self.path
        if self.fs.exists(path):
            self.fs.rm(path, recursive=True)


def _bitmaps(column: pa.ChunkedArray) -> bool:
    """Whether the first bytes of a column are a bitmap's."""
    first = next((value for value in column if value.is_valid), None)
    return first is not None and first.as_buffer()[:2].to_pybytes() == b"BM"


def _damaged(error: Exception, where: str) -> RunError:
    return RunError(f"Cannot read this table: {error}", where=where, cure="Redo the stage with --force.")


def _walk(root: str) -> dict[str, tuple[int, str]]:
    """All files below a folder of this machine, by relative posix path; a folder linked twice counts once."""
    found: dict[str, tuple[int, str]] = {}
    seen: set[str] = set()
    for folder, inner, names in os.walk(root, onerror=_refuse, followlinks=True):
        here = os.path.realpath(folder)
        if here in seen:
            inner.clear()
            continue
        seen.add(here)
        inner[:] = sorted(name for name in inner if name not in SYSTEM_FOLDERS)
        below = Path(folder).relative_to(root).as_posix()
        prefix = "" if below == "." else f"{below}/"
        found |= {prefix + name: _size(f"{folder}/{name}") for name in names}
    return found


def _size(path: str) -> tuple[int, str]:
    """(bytes, modification mark) of a file of this machine; a link may lead nowhere."""
    try:
        mark = os.stat(path)  # noqa: PTH116 - a pathlib.Path for each of many files costs more than the stat
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return 0, ""
        raise
    return mark.st_size, str(mark.st_mtime)


def _refuse(error: OSError) -> None:
    """A folder that cannot be listed would hide its images in silence."""
    raise _told(error, error.filename) from error


@contextmanager
def reachable(place: str) -> Iterator[None]:
    """Whatever a filesystem raises inside becomes an AccessError or StorageError that says what to do.

    FileNotFoundError and cotray's own errors pass.
    """
    try:
        yield
    except (CotrayError, FileNotFoundError):
        raise
    except Exception as error:  # every filesystem has errors of its own
        raise _told(error, place) from error


def _told(error: Exception, place: str) -> StorageError:
    said = getattr(error, "strerror", None) or str(error)
    reason = (said.splitlines() or [""])[0].rstrip(".") or type(error).__name__
    if "credential" in f"{type(error).__name__} {reason}".lower():
        return AccessError(f"Credentials are missing: {reason}.", where=place, cure=_permission(place))
    if isinstance(error, PermissionError):
        return AccessError(f"No permission here: {reason}.", where=place, cure=_permission(place))
    cure = "Check the address"
    if place.startswith("s3"):
        cure += "; a server other than Amazon's is named by AWS_ENDPOINT_URL"
    return StorageError(f"This place cannot be reached: {reason}.", where=place, cure=f"{cure}.")


def _permission(place: str) -> str:
    if not place.startswith("s3"):
        return "Check the credentials and permissions of this place."
    return (
        "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE) and the bucket's policy; "
        "a public bucket needs FSSPEC_S3_ANON=true."
    )


def absolute(uri: str) -> str:
    """A local path made absolute (Ray workers have another working folder); URIs as they are."""
    return uri if "://" in uri else os.path.abspath(os.path.expanduser(uri))  # noqa: PTH100, PTH111


def require_writable(folder: Folder) -> None:
    """Raise RunNotWritableError now rather than after an hour of work."""
    try:
        folder.write_bytes(".writable", b"")
        folder.remove(".writable")
    except CotrayError:
        raise
    except Exception as error:  # a remote filesystem raises what it likes
        raise RunNotWritableError(
            f"Cannot write to the run folder: {error}", where=folder.uri, cure="Choose another with --run."
        ) from error
