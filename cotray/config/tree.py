"""The whole config tree."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cotray.config.base import Section
from cotray.config.data import DatasetConfig, EnhanceConfig, IngestConfig, RoiConfig, SplitConfig
from cotray.config.models import (
    BackboneConfig,
    GanConfig,
    GrafrConfig,
    HdlcConfig,
    SegmentConfig,
)
from cotray.config.search import AbhcConfig, FitnessConfig, ScaConfig, SelectConfig, TuneConfig


class ComputeConfig(Section):
    """Workers and devices. Results do not depend on these, except for rounding across workers."""

    train_workers: int = Field(1, ge=1)
    """Ray Train workers (DDP when more than one)."""
    cpus_per_worker: int | None = Field(None, ge=1)
    """CPUs and torch threads of each training worker; None = all CPUs of a node over its workers."""
    gpu: Literal["auto", "yes", "no"] = "auto"
    """Use GPUs in training and extraction: `auto` when the cluster has one."""
    wait_for_nodes: bool = False
    """The cluster grows on demand: wait for nodes that training workers need, rather than refuse."""
    max_failures: int = Field(2, ge=0)
    """How often a dead training worker is replaced before the stage fails."""


class EvaluateConfig(Section):
    """Held-out figures and the report."""

    aggregate: Literal["noisy_or", "max", "mean"] = "mean"
    """How the probabilities of a field's cells become the field's."""
    bootstrap: int = Field(1000, ge=50)
    """Resamples over groups for the intervals."""
    confidence: float = Field(0.95, gt=0, lt=1)
    """Level of the intervals."""
    overlays: int = Field(12, ge=0)
    """Sample overlays in the report."""
    floor_trees: int = Field(300, ge=10)
    """Trees of the colour-histogram random forest that the report shows beside the result."""


class TrackingConfig(Section):
    """MLflow."""

    enabled: bool = True
    """False = no MLflow at all."""
    uri: str | None = None
    """Tracking URI; None = sqlite in the run's parent folder."""
    experiment: str = "cotray"
    """Experiment name."""
    model_name: str | None = None
    """Name in the model registry; None = `cotray-<dataset>`."""
    promote: Literal["auto", "never"] = "auto"
    """`auto`: alias `champion` moves when the honest metric is better on the same test split."""
    metric: Literal["balanced_accuracy", "auroc", "f1"] = "balanced_accuracy"
    """The honest metric: group-disjoint, held-out."""


class Config(Section):
    """Every setting of a run. `cotray config show` prints it with the help of each field."""

    preset: str = "tiny"
    """The preset this tree started from."""
    seed: int = Field(0, ge=0)
    """The one seed everything random is derived from."""
    dataset: DatasetConfig = DatasetConfig()
    """Which images."""
    ingest: IngestConfig = IngestConfig()
    """Reading and checking files."""
    enhance: EnhanceConfig = EnhanceConfig()
    """Contrast and sharpness."""
    split: SplitConfig = SplitConfig()
    """Train, validation, test."""
    roi: RoiConfig = RoiConfig()
    """Finding cells."""
    segment: SegmentConfig = SegmentConfig()
    """LeuSAM."""
    gan: GanConfig = GanConfig()
    """LeuGAN."""
    backbone: BackboneConfig = BackboneConfig()
    """GMod + SMod."""
    grafr: GrafrConfig = GrafrConfig()
    """Graph reconstruction."""
    sca: ScaConfig = ScaConfig()
    """Sine-cosine search."""
    abhc: AbhcConfig = AbhcConfig()
    """Adaptive beta-hill climbing."""
    fitness: FitnessConfig = FitnessConfig()
    """Worth of a mask."""
    select: SelectConfig = SelectConfig()
    """Running the search."""
    tune: TuneConfig = TuneConfig()
    """Tuning the search."""
    hdlc: HdlcConfig = HdlcConfig()
    """The classifier."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Figures and report."""
    compute: ComputeConfig = ComputeConfig()
    """Workers and devices."""
    tracking: TrackingConfig = TrackingConfig()
    """MLflow."""
