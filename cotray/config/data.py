"""Settings of the data's side: dataset, ingest, enhancement, split, cell finding."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from cotray.config.base import Section


class DatasetConfig(Section):
    """Which images, and how their names become labels."""

    name: str = "phantom"
    """Layout of the images: `cotray datasets` lists the known ones; `folder` reads class folders."""
    root: str | None = None
    """Folder or URI that holds the images. The phantom needs none: it is drawn on the spot."""
    class_map: dict[str, int] = {}
    """For `folder`: class folder -> 1 (malignant) or 0 (normal), e.g. {Benign: 0, Early: 1}."""
    subjects_csv: str | None = None
    """For `folder`: CSV (relative to root, an absolute path or a URI) with columns `path` and `subject`."""
    limit: int | None = Field(None, ge=1)
    """Use at most this many images, spread evenly over classes and over the listing; None = all."""
    multi_cell: bool | None = None
    """True: images are fields with many cells; False: one cell each; None: as the layout says."""
    phantom_subjects: int = Field(36, ge=4)
    """For `phantom`: how many subjects to draw; two thirds are malignant."""
    phantom_cells: int = Field(5, ge=1)
    """For `phantom`: images per subject."""


class IngestConfig(Section):
    """Reading and checking image files."""

    max_pixels: int = Field(50_000_000, ge=1)
    """An image with more pixels than this is quarantined before it is decoded."""
    min_side: int = Field(16, ge=1)
    """An image with a side shorter than this is quarantined."""
    store: Literal["bytes", "reference"] = "bytes"
    """What a run keeps of every image. `bytes`: the enhanced image, in Parquet, which segmentation and the
    pictures of the report read. About as much disk as the images would take as PNG. `reference`: only
    the path and a digest of the pixels, hardly any disk; ingest is faster, but who looks at pixels later
    reads, decodes and enhances the file again (some milliseconds each, and a download from s3://). The files
    must stay where and as they are: one that is gone or changed stops the run, by name. Both give the same
    pixels. Choose `reference` where the set is large, near, and at rest, and disk is scarce."""
    mask_regions: list[tuple[float, float, float, float]] = []
    """Rectangles (x0, y0, x1, y1) as fractions of width and height to blank in every image: known
    shortcuts such as a scale bar. Filled with the image's median colour."""
    blocks_per_cpu: int = Field(4, ge=1)
    """Ray Data blocks per CPU; more blocks means finer progress, fewer means less overhead."""


class EnhanceConfig(Section):
    """Stain, then contrast and sharpness (paper, section 3.2)."""

    stain: Literal["none", "macenko", "reinhard"] = "none"
    """Stain normalisation before everything else in this section. Both methods were made for H&E sections;
    on Wright-Giemsa smears measure whether they help. An image that cannot be normalised is left as it is."""
    stain_target: str | None = None
    """Image whose stain the others are given (path or URI); None = one drawn by the phantom."""
    method: Literal["clahe_sharpen", "none", "he", "fuzzy", "clahe", "sharpen", "mirnet"] = "clahe_sharpen"
    """`clahe_sharpen` is the paper's; the others serve its ablation. `mirnet` needs your weights."""
    clip_limit: float = Field(2.0, gt=0)
    """CLAHE clip limit, on L of Lab."""
    tiles: int = Field(8, ge=1)
    """CLAHE grid: tiles x tiles."""
    mirnet_weights: str | None = None
    """TorchScript file (path or URI) of a network that maps (1, 3, H, W) in 0..1 to the same, for `mirnet`.
    The run and its bundle keep a copy."""


class SplitConfig(Section):
    """How images are divided into train, validation and test."""

    mode: Literal["disjoint", "leaky"] = "disjoint"
    """`disjoint` keeps every group (subject, or near-duplicates and neighbours) on one side. `leaky` is
    the field's random split: it inflates results and exists only to measure by how much."""
    test_fraction: float = Field(0.3, gt=0, lt=1)
    """Share of groups held out for the final figures; without folds."""
    folds: int | None = Field(None, ge=2, le=100)
    """K of a stratified K-fold over groups; None = one hold-out of `test_fraction`. A run tests one fold:
    over runs with `fold` = 0 to K - 1, each image is tested exactly once."""
    fold: int = Field(0, ge=0)
    """Which of the folds is tested, counted from 0."""
    val_fraction: float = Field(0.2, gt=0, lt=1)
    """Share of the remaining groups used to stop and calibrate."""
    block: int = Field(10, ge=1)
    """Where a dataset names no subjects: this many consecutive files of a class form one group."""
    near_duplicate_bits: int = Field(6, ge=0, le=16)
    """Images whose 64-bit perceptual hashes differ in at most this many bits share a group."""

    @model_validator(mode="after")
    def _fold_exists(self) -> Self:
        if self.fold >= (self.folds or 1):
            of = f"split.folds is {self.folds}" if self.folds else "split.folds is not set"
            raise ValueError(f"fold {self.fold} does not exist: {of}, and folds are counted from 0")
        return self


class RoiConfig(Section):
    """Finding stained nuclei classically; each gives LeuSAM a box prompt."""

    min_area: float = Field(0.003, gt=0, lt=1)
    """Smallest nucleus, as a share of the image's area."""
    max_area: float = Field(0.6, gt=0, le=1)
    """Largest nucleus, as a share of the image's area."""
    margin: float = Field(0.03, ge=0)
    """Margin of a cell's box, as a share of its longer side. The box already holds the nucleus and the
    weaker stain around it."""
    max_cells: int = Field(32, ge=1)
    """At most this many boxes in one field, the largest first."""
    split_touching: bool = True
    """Part touching nuclei by a distance-transform watershed."""
