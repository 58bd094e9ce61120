"""One config tree: sections by room, presets, YAML and dotted overrides."""

from cotray.config.data import DatasetConfig, EnhanceConfig, IngestConfig, RoiConfig, SplitConfig
from cotray.config.load import describe, load_config, merge, parse_override, to_yaml, validate
from cotray.config.models import (
    AugmentConfig,
    BackboneConfig,
    GanConfig,
    GrafrConfig,
    HdlcConfig,
    SegmentConfig,
    SmodConfig,
    TrainConfig,
)
from cotray.config.presets import PRESETS
from cotray.config.search import AbhcConfig, FitnessConfig, ScaConfig, SelectConfig, TuneConfig
from cotray.config.tree import ComputeConfig, Config, EvaluateConfig, TrackingConfig

__all__ = [
    "PRESETS",
    "AbhcConfig",
    "AugmentConfig",
    "BackboneConfig",
    "ComputeConfig",
    "Config",
    "DatasetConfig",
    "EnhanceConfig",
    "EvaluateConfig",
    "FitnessConfig",
    "GanConfig",
    "GrafrConfig",
    "HdlcConfig",
    "IngestConfig",
    "RoiConfig",
    "ScaConfig",
    "SegmentConfig",
    "SelectConfig",
    "SmodConfig",
    "SplitConfig",
    "TrackingConfig",
    "TrainConfig",
    "TuneConfig",
    "describe",
    "load_config",
    "merge",
    "parse_override",
    "to_yaml",
    "validate",
]
