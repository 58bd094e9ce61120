"""What a report is made of: plain strings, numbers, mappings and PNG bytes. Every part but the first two
may be absent; the report leaves out what it was not given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # its sentences are made by the same hand as the report's
    from cotray.evaluation.audit_report import Audit


@dataclass(frozen=True)
class Sample:
    """One image or cell to show."""

    png: bytes
    name: str = ""
    """File name or cell id; shown escaped."""
    truth: int | None = None
    """1 malignant, 0 normal, None unknown."""
    probability: float | None = None
    """Stated probability of malignant."""
    beside: bytes = b""
    """A second PNG to show beside the first: the plain cell beside its heat map."""
    note: str = ""


@dataclass(frozen=True)
class Reference:
    """A published figure to read the result beside."""

    name: str
    metric: str
    value: float
    note: str = ""
    """Where it is from, and how comparable it is."""


@dataclass(frozen=True)
class ReportData:
    """Everything an evaluation has to tell."""

    dataset: str
    metrics: Mapping[str, float]
    """Of the held-out test split; names of :data:`cotray.evaluation.metrics.NEEDS`."""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    confidence: float = 0.95
    headline: str = "balanced_accuracy"
    """The metric the verdict is about."""
    threshold: float = 0.5
    run: str = ""
    created: str = ""
    model_version: str = ""
    backbone: str = ""
    """Its name (`backbone.name`)."""
    asked: str = "Is there a malignant (leukemic) leukocyte in this image?"
    unit: str = "images"
    """What was scored."""
    group_unit: str = "groups"
    """What intervals and split are over: `subjects`, `blocks of neighbouring files` ..."""
    test_size: int | None = None
    test_groups: int | None = None
    phantom: bool = False
    """The images were drawn by a program."""
    split_mode: str = "disjoint"
    """`disjoint`, or `leaky`: then the report says so in a banner."""
    notes: Sequence[str] = ()
    """Sentences of the stages for people."""

    floor_metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the colour-only forest on the same split."""
    floor_intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    leaky_metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the same method under the random split, for the leak gap."""
    references: Sequence[Reference] = ()

    found: int | None = None
    """Image files found = used + quarantined."""
    used: int | None = None
    quarantine: Mapping[str, int] = field(default_factory=dict)
    """Reason -> how many files."""
    split_rows: Sequence[Mapping[str, str | int]] = ()
    """Rows of the data table, all with the same keys, e.g. split, class, images, groups, cells."""
    without_cell: int = 0
    """Test images in which no cell was found: they have no answer, and are in no figure."""

    audit: Audit | None = None
    """Leaks and shortcuts of the images."""

    roc: bytes = b""
    confusion: bytes = b""
    reliability: bytes = b""
    probability: bytes = b""
    mistakes: Sequence[Sample] = ()
    """Worst first."""
    overlays: Sequence[Sample] = ()
    explanations: Sequence[Sample] = ()
    segmentation: Mapping[str, float] = field(default_factory=dict)
    """Mask quality where true masks exist: dice, iou ..."""
    synthetic: bytes = b""
    """A grid of LeuGAN's cells."""
    synthetic_count: int | None = None
    synthetic_quality: Mapping[str, float] = field(default_factory=dict)
    """Named SPACE_FIGURE, as :func:`cotray.synthesis.quality.quality` names them."""
    synthetic_note: str = ""
    """What became of them, where it is worth a sentence."""
    synthetic_over_time: bytes = b""
    """What LeuGAN drew from the same latents, epoch by epoch."""
    synthetic_pairs: bytes = b""
    """The synthetic cells that are nearest to training cells, and those."""
    synthetic_distances: bytes = b""
    """Distances to the nearest training cell, of synthetic and of training cells."""
    histories: Mapping[str, bytes] = field(default_factory=dict)
    """Model -> training curves."""
    selection: bytes = b""
    features_kept: int | None = None
    features_total: int | None = None

    seconds: Mapping[str, float] = field(default_factory=dict)
    """Stage -> wall time."""
    environment: Mapping[str, str] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Stage, split or bundle -> digest."""
    config_yaml: str = ""
