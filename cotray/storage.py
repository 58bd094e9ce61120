"""One filesystem layer: a folder on disk or at any fsspec URI, with atomic writes."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from cotray.errors import CotrayError, DatasetNotFoundError, RunError, RunNotWritableError


@dataclass(frozen=True)
class Folder:
    """A folder by URI. Cheap to pickle: Ray workers open their own connection."""

    uri: str

    @cached_property
    def _resolved(self) -> tuple[Any, str]:
        try:
            fs, path = fsspec.core.url_to_fs(self.uri)
        except (ValueError, ImportError) as error:
            raise RunError(
                f"Cannot open this place: {error}", where=self.uri, cure="Check the URI; s3:// needs s3fs."
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
        """Whether a file or folder is there."""
        return bool(self.fs.exists(self.at(name) if name else self.path))

    def files(self) -> list[str]:
        """Relative posix paths of all files below, sorted. Raises DatasetNotFoundError."""
        if not self.exists():
            raise DatasetNotFoundError("There is no such folder.", where=self.uri, cure="Check --root.")
        found = self.fs.find(self.path)
        return sorted(str(path)[len(self.path) :].lstrip("/") for path in found)

    def sizes(self) -> dict[str, tuple[int, str]]:
        """Relative path -> (bytes, modification mark) of all files below: a cheap content mark."""
        found: dict[str, dict[str, Any]] = self.fs.find(self.path, detail=True)
        return {
            path[len(self.path) :].lstrip("/"): (
                int(info.get("size") or 0),
                str(info.get("ETag") or info.get("mtime") or ""),
            )
            for path, info in sorted(found.items())
        }

    def read_bytes(self, name: str) -> bytes:
        """A file's bytes; FileNotFoundError if absent."""
        return bytes(self.fs.cat_file(self.at(name)))

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

    def _replace(self, path: str, data: bytes) -> None:
        temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
        with open(temporary, "wb") as file:  # noqa: PTH123 - a plain string path from fsspec
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105

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
            raise RunError(
                f"Cannot read this table: {error}",
                where=f"{self.uri}/{name}",
                cure="Redo the stage with --force.",
            ) from error

    def write_parquet(self, name: str, rows: pa.Table) -> None:
        """Write a Parquet file atomically."""
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="zstd")
        self.write_bytes(name, sink.getvalue().to_pybytes())

    def remove(self, name: str = "") -> None:
        """Remove a file or folder, if there."""
        path = self.at(name) if name else self.path
        if self.fs.exists(path):
            self.fs.rm(path, recursive=True)


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
