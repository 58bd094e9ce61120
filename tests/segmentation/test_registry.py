"""Every segmenter by name, through the way the pipeline and the server take."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from cotray.config import Config, SegmentConfig, load_config
from cotray.errors import BundleError
from cotray.predictor import build_segmenter, cut_cells
from cotray.segmentation.registry import SEGMENTERS

SMALL = ["segment.image_size=64", "segment.embed_dim=16", "segment.depth=1", "segment.prompt_dim=16"]
NAMES = pytest.mark.parametrize("name", sorted(SEGMENTERS))


def config(name: str) -> Config:
    return load_config("tiny", overrides=[*SMALL, "segment.unet_width=4", f"segment.model={name}"])


def test_settings_and_registry_name_the_same() -> None:
    assert set(get_args(SegmentConfig.model_fields["model"].annotation)) == set(SEGMENTERS)


@NAMES
def test_what_is_learned_is_what_answers(name: str) -> None:
    cfg, kind = config(name), SEGMENTERS[name]
    state = {}
    if kind.build_learner is not None:
        learner = kind.build_learner(cfg.segment, 0)
        assert list(learner.nets) == [name], "the network bears the segmenter's name"
        state = learner.weights()[name]
    segmenter = build_segmenter(cfg, state)
    y, x = np.mgrid[:90, :90]
    cell = ((x - 45) ** 2 + (y - 45) ** 2 < 400)[..., None]
    rgb = np.where(cell, [110, 50, 150], [235, 215, 225]).astype(np.uint8)
    masks, scores = segmenter.segment(rgb, [(20, 20, 70, 70)])
    assert masks.shape == (1, 90, 90) and masks.dtype == bool
    assert scores.shape == (1,) and 0 <= scores[0] <= 1
    found = cut_cells(rgb, segmenter, cfg, single=True)
    assert len(found) <= 1 and all(one.image.shape == (96, 96, 3) for one in found)


def test_weights_of_another_segmenter_are_refused() -> None:
    build = SEGMENTERS["unet"].build_learner
    assert build is not None
    with pytest.raises(BundleError, match=r"LeuSAM weights do not fit"):
        build_segmenter(config("leusam"), build(config("unet").segment, 0).weights()["unet"])
