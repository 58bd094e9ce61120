"""The operating point is that of images, not of cells."""

from __future__ import annotations

import numpy as np

from cotray import manifest
from cotray.config import load_config
from cotray.stages.classify import hdlc_job
from cotray.stages.trust import images_of, threshold_of


def cells(images: dict[str, int], per_image: int) -> object:
    rows = [
        {"id": f"{name}#{n}", "image_id": name, "label": label}
        for name, label in images.items()
        for n in range(per_image)
    ]
    return manifest.table(rows)


def test_the_threshold_is_chosen_on_aggregated_images() -> None:
    images = {f"n{i}": 0 for i in range(40)} | {f"m{i}": 1 for i in range(40)}
    # One sick cell of four: cells of 0.9 and 0.1, images of mean 0.3 against 0.1.
    probability = np.concatenate([np.full(160, 0.1), np.tile([0.9, 0.1, 0.1, 0.1], 40)])
    chosen = threshold_of(images_of(load_config("tiny"), cells(images, 4), probability))
    assert 0.1 < chosen < 0.3


def test_one_class_keeps_one_half() -> None:
    rows = cells({"a": 1, "b": 1}, 2)
    assert threshold_of(images_of(load_config("tiny"), rows, np.full(4, 0.9))) == 0.5


def test_a_constant_feature_is_silenced() -> None:
    feature = np.full((3000, 2), 0.1, np.float32)
    feature[:, 1] = np.random.default_rng(0).normal(size=3000)
    data = {"feature": feature, "label": np.arange(3000) % 2}
    hdlc = hdlc_job(load_config("tiny"), data, data).build().nets["hdlc"]
    assert hdlc.scale[0] == 0
    assert 0.9 < float(hdlc.scale[1]) < 1.1
