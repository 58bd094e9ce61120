"""Image embeddings of a frozen encoder: computed once by Ray Data, kept in the run, read by every epoch.

They lie in ``embeddings/KEY``, where KEY is a digest of the encoder's weights and of all windows: what was
embedded by a killed run, or for another training, is used again, and nothing else is. Each part is an
.npy of float16 that training maps into memory instead of reading.

Shapes: N windows, S side of a window, C T channels and side of an embedding.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from numpy.typing import NDArray

from cotray.config import ComputeConfig
from cotray.segmentation.learner import LeuSamLearner
from cotray.stages.base import StageRun
from cotray.stages.cluster import use_gpu
from cotray.stages.parts import Plan, chunks, run_parts
from cotray.stages.weights import array_bytes
from cotray.storage import Folder

PART = 16
"""Windows per part: 32 MiB at 1024 px."""
BATCH = 4
"""Windows per forward of the encoder."""
Build = Callable[[], LeuSamLearner]


class StoredRows:
    """Rows of .npy parts, as much of an array as training asks for: ``len``, and ``[indices]``.

    Pickles as its address. Parts of a remote run are fetched once per process.
    """

    def __init__(self, folder: Folder, starts: Sequence[int], rows: NDArray[np.int64]) -> None:
        """``starts``: the first row of each part; ``rows``: the stored row of each item."""
        self.folder, self.starts, self.rows = folder, list(starts), rows
        self._open: dict[int, NDArray[Any]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: NDArray[np.int64]) -> NDArray[Any]:
        return np.stack([self._row(int(row)) for row in self.rows[index]])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def _row(self, row: int) -> NDArray[Any]:
        part = bisect.bisect_right(self.starts, row) - 1
        if part not in self._open:
            self._open[part] = _mapped(self.folder, array_name(part))
        stored: NDArray[Any] = self._open[part][row - self.starts[part]]
        return stored


def _mapped(folder: Folder, name: str) -> NDArray[Any]:
    """A stored array, mapped into memory; from a remote folder through a file without a name."""
    if folder.is_local:
        return np.asarray(np.load(folder.at(name), mmap_mode="r"))
    with tempfile.TemporaryDirectory() as place:
        local = Path(place) / "part.npy"
        folder.fs.get_file(folder.at(name), str(local))
        return np.asarray(np.load(local, mmap_mode="r"))  # the map outlives the file's name


def array_name(part: int) -> str:
    """File name of a part's embeddings."""
    return f"part-{part:05d}.npy"


def embed_windows(
    build: Build, image_NSS3: NDArray[np.uint8], compute: ComputeConfig, at: StageRun
) -> StoredRows:
    """The embedding (C, T, T) of every window; equal windows share one."""
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in image_NSS3]
    _, first, rows = np.unique(digests, return_index=True, return_inverse=True)
    key = cache_key(build(), [digests[index] for index in first])
    folder = at.folder / "embeddings" / key
    starts = range(0, len(first), PART)
    device = "cuda" if use_gpu(compute) else "cpu"
    refs = [ray.put(image_NSS3)]
    work = functools.partial(_Embedder, build, refs, folder, device)
    items = [first[start : start + PART].tolist() for start in starts]
    run_parts(Plan("embeddings", work, items, folder, actors=True), compute, at)
    return StoredRows(folder, starts, rows)


def cache_key(learner: LeuSamLearner, digests: Sequence[str]) -> str:
    """What embeddings depend on: the encoder's weights and the windows."""
    digest = hashlib.sha256("".join(digests).encode())
    for name, value in learner.nets["leusam"].state_dict().items():
        if name.startswith("image_encoder."):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class _Embedder:
    """Holds the encoder in a Ray actor; writes the embeddings of some windows."""

    def __init__(self, build: Build, refs: Sequence[Any], folder: Folder, device: str) -> None:
        self.net: Any = build().nets["leusam"].eval().to(device)
        self.image_NSS3: NDArray[np.uint8] = ray.get(refs[0])
        self.folder, self.device = folder, device

    @torch.no_grad()
    def __call__(self, part: int, windows: Sequence[int]) -> pa.Table:
        found = []
        for chosen in chunks(list(windows), BATCH):
            image = torch.from_numpy(self.image_NSS3[chosen]).to(self.device)
            found.append(self.net.embed(image).embedding_BCTT.half().cpu().numpy())
        self.folder.write_bytes(array_name(part), array_bytes(np.concatenate(found)))
        return pa.table({"window": list(windows)})
