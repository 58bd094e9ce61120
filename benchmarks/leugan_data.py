"""Real cells for benchmarks.leugan: cut out on black, with labels and groups. N cells, S side.

- `all-idb2`: one cell an image, cut by Putzu's masks. Groups are blocks of ten neighbours in name, joined
  with near-duplicates.
- `taleqani`: a third of the groups (every third in order); the corner with the scale bar is blanked; cells
  are those that the ROI step and Otsu's threshold find, eight a field at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cotray.config import Config, SplitConfig, load_config
from cotray.data.hashing import perceptual_hash
from cotray.data.splits import group_records, make_split
from cotray.imaging.masks import cut_cell
from cotray.predictor import cut_cells, decode, prepare
from cotray.segmentation.otsu import OtsuSegmenter

SIZE = 64
"""Side of the cells: LeuGAN's in `tiny`."""
EVERY = 3
"""Of Taleqani's groups one in so many is used."""
TEST = 0.3


@dataclass(frozen=True)
class Cells:
    """Cells of one data set."""

    image_NSS3: NDArray[np.uint8]
    label_N: NDArray[np.int64]
    group_N: NDArray[np.str_]

    def take(self, keep_N: NDArray[np.bool_]) -> Cells:
        """The cells where ``keep_N`` holds."""
        return Cells(self.image_NSS3[keep_N], self.label_N[keep_N], self.group_N[keep_N])

    def __len__(self) -> int:
        return len(self.label_N)


def all_idb2(folder: Path) -> Cells:
    """One cell of each image."""
    config = load_config("tiny")
    paths = sorted((folder / "all-idb2" / "img").glob("*.tif"))
    labels = [int(path.stem[-1]) for path in paths]
    raw = [decode(path.read_bytes(), config) for path in paths]
    images = [
        cut_cell(prepare(rgb, config), _mask(folder, path), SIZE, config.segment.cell_margin)
        for rgb, path in zip(raw, paths, strict=True)
    ]
    return Cells(np.stack(images), np.array(labels), np.array(_groups(paths, labels, raw)))


def taleqani(folder: Path) -> Cells:
    """Cells of the fields of every third group; a cell bears its field's label."""
    config = load_config("tiny", (Path(__file__).parent / "taleqani.yaml").read_text())
    paths = sorted((folder / "taleqani" / "Original").glob("*/*.jpg"))
    labels = [int(path.parent.name != "Benign") for path in paths]
    raw = [decode(path.read_bytes(), config) for path in paths]
    groups = _groups(paths, labels, raw)
    used = set(sorted(set(groups))[::EVERY])
    images: list[NDArray[np.uint8]] = []
    owner: list[int] = []
    for number, (rgb, group) in enumerate(zip(raw, groups, strict=True)):
        cells = _field_cells(rgb, config) if group in used else []
        images += cells
        owner += [number] * len(cells)
    return Cells(np.stack(images), np.array(labels)[owner], np.array(groups)[owner])


SETS = {"all-idb2": all_idb2, "taleqani": taleqani}


def _field_cells(rgb: NDArray[np.uint8], config: Config) -> list[NDArray[np.uint8]]:
    small = config.model_copy(update={"segment": config.segment.model_copy(update={"cell_size": SIZE})})
    return [cell.image for cell in cut_cells(prepare(rgb, config), OtsuSegmenter(), small, single=False)]


def _mask(folder: Path, path: Path) -> NDArray[np.bool_]:
    """Putzu's: white is background."""
    drawn = cv2.imread(str(folder / "all-idb2" / "masks-putzu" / path.name), cv2.IMREAD_COLOR)
    return np.asarray(np.asarray(drawn).min(axis=2) <= 200)


def _groups(paths: Sequence[Path], labels: Sequence[int], raw: Sequence[NDArray[np.uint8]]) -> list[str]:
    hashes = np.array([perceptual_hash(rgb) for rgb in raw], np.uint64)
    return group_records([str(path) for path in paths], labels, [None] * len(paths), hashes, SplitConfig())


def halves(cells: Cells, seed: int) -> tuple[Cells, Cells]:
    """(train, test), no group on both sides; the small validation side joins training."""
    config = SplitConfig(test_fraction=TEST)
    side = np.array(make_split(cells.group_N.tolist(), cells.label_N.tolist(), config, seed))
    return cells.take(side != "test"), cells.take(side == "test")


def thinned(train: Cells, label: int, share: float, seed: int) -> Cells:
    """``train`` with only ``share`` of the groups that hold cells of ``label``: a made imbalance.

    Groups go, not cells; a group of both classes keeps its cells of the other one.
    """
    groups = np.random.default_rng(seed).permutation(np.unique(train.group_N[train.label_N == label]))
    kept = groups[: max(1, round(share * len(groups)))]
    return train.take((train.label_N != label) | np.isin(train.group_N, kept))
