"""The LeuSAM that comes with cotray: there, small, whole, and good at what it was made for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cotray.config import Config, EnhanceConfig, RoiConfig, SegmentConfig
from cotray.data.decode import decode_image
from cotray.data.phantom import draw_phantom, phantom_index
from cotray.errors import WeightsError
from cotray.imaging.masks import iou
from cotray.imaging.roi import find_cells
from cotray.segmentation.leusam import build_leusam
from cotray.segmentation.predictor import CellSegmenter
from cotray.segmentation.shipped import Shipped, differing, digest, fits, load_shipped, pack, shipped_path

SMALL = SegmentConfig(image_size=64, embed_dim=16, depth=1, heads=2, prompt_dim=16)
SEED = 404
"""Of the drawings here: training used none of them."""


@cache
def shipped() -> Shipped:
    return load_shipped()


@cache
def segmenter() -> CellSegmenter:
    net = build_leusam(shipped().segment)
    net.load_state_dict(shipped().weights)
    return CellSegmenter(net, shipped().segment)


def segment(rgb: NDArray[np.uint8], *, single: bool) -> list[NDArray[np.bool_]]:
    """Masks of what the region-of-interest step finds."""
    boxes = [region.box for region in find_cells(rgb, RoiConfig(), single=single)]
    return list(segmenter().segment(rgb, boxes)[0])


# ---- the file ------------------------------------------------------------------------------------------


def test_the_file_is_there_small_and_says_how_it_was_made() -> None:
    assert shipped_path().stat().st_size < 10_000_000
    assert "benchmarks.shipped_weights" in shipped().made["command"]
    assert "phantom" in shipped().made["data"]
    assert shipped().segment.variant == "tiny" and shipped().segment.model == "leusam"
    assert all(
        value.dtype == torch.float32 and value.isfinite().all() for value in shipped().weights.values()
    )


def test_the_network_is_the_one_that_the_default_settings_describe() -> None:
    assert fits(SegmentConfig(), shipped())
    assert fits(SegmentConfig(phantom_cells=3, jitter=0.2, cell_size=64), shipped()), "no part of the network"
    for other in (
        {"embed_dim": 48},
        {"image_size": 128},
        {"context": 2.0},
        {"variant": "vit_b"},
        {"detail": 0},
    ):
        assert not fits(SegmentConfig.model_validate(other), shipped()), other
        assert set(differing(SegmentConfig.model_validate(other), shipped())) == set(other)


def test_what_is_packed_is_what_is_read(tmp_path: Path) -> None:
    net = build_leusam(SMALL)
    enhance = EnhanceConfig(method="none")
    path = tmp_path / "small.safetensors"
    path.write_bytes(pack(SMALL, enhance, net.state_dict(), {"seconds": 3}))
    read = load_shipped(path)
    assert (read.segment, read.enhance, read.made) == (SMALL, enhance, {"seconds": 3})
    assert list(read.weights) and set(read.weights) == set(net.state_dict())
    for name, value in net.state_dict().items():
        half = 0 if "gaussian" in name else 2.0**-10  # of the value; positions stay whole
        assert torch.allclose(read.weights[name], value, rtol=half, atol=half * 1e-4), name
    assert read.digest == digest({**read.weights, **stored(path)})


def stored(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(path))


def damaged(kind: str) -> bytes:
    data = bytearray(pack(SMALL, EnhanceConfig(), build_leusam(SMALL).state_dict(), {}))
    if kind == "a flipped bit":
        data[-5] ^= 4
    if kind == "other settings":
        place = data.index(b'\\"image_size\\":64')
        data[place : place + 17] = b'\\"imige_size\\":64'
    return {"truncated": bytes(data[:-9]), "no file of weights": b"weights", "empty": b""}.get(
        kind, bytes(data)
    )


@pytest.mark.parametrize(
    "kind", ["a flipped bit", "other settings", "truncated", "no file of weights", "empty"]
)
def test_damage_is_told(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(damaged(kind))
    with pytest.raises(WeightsError, match=r"weights\.safetensors"):
        load_shipped(path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="absent"):
        load_shipped(tmp_path / "absent")


# ---- what it can do ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "least"), [("all-idb2", 0.9), ("fields", 0.85), ("c-nmc", 0.9)])
def test_drawn_cells_that_it_has_not_seen_are_segmented(layout: str, least: float) -> None:
    agreement = []
    for spec in phantom_index(layout, 5 if layout == "fields" else 12, 1, SEED):
        drawn = draw_phantom(spec)
        masks = segment(drawn.rgb, single=layout != "fields")
        for number in range(1, len(drawn.boxes) + 1):
            true = drawn.instances == number
            agreement.append(max((iou(mask, true) for mask in masks), default=0.0))
    assert len(agreement) >= 12
    assert np.mean(agreement) > least


def test_its_own_opinion_of_a_mask_tells_good_boxes_from_bad() -> None:
    good, bad = [], []
    for spec in phantom_index("all-idb2", 8, 1, SEED):
        drawn = draw_phantom(spec)
        boxes = [drawn.boxes[0], (2, 2, 60, 60)]
        _, scores = segmenter().segment(drawn.rgb, boxes)
        good.append(scores[0])
        bad.append(scores[1])
    assert np.mean(good) > 0.85 and np.mean(bad) < np.mean(good) - 0.05


@pytest.mark.data
@pytest.mark.parametrize(("name", "pattern"), [("jtsc", "*.bmp"), ("taleqani", "Original/Pre/*.jpg")])
def test_masks_of_real_images_are_cells_and_not_boxes(
    name: str, pattern: str, shared_data: Callable[[str], Path]
) -> None:
    """Not all and not nothing of a box; purple inside, as white blood cells are."""
    files = sorted(p for p in shared_data(name).rglob(pattern) if "mask" not in str(p))
    shares, purple = [], []
    for path in files[:: len(files) // 10][:10]:
        rgb = decode_image(path.read_bytes(), max_pixels=10**7, min_side=16)
        boxes = [region.box for region in find_cells(rgb, RoiConfig(), single=name == "jtsc")][:3]
        for box, mask in zip(boxes, segmenter().segment(rgb, boxes)[0], strict=True):
            shares.append(mask.sum() / ((box[2] - box[0]) * (box[3] - box[1])))
            green = rgb[..., 1].astype(float)
            purple.append(bool(mask.any() and green[mask].mean() < green[~mask].mean()))
    assert len(shares) >= 10
    assert 0.4 < np.median(shares) < 0.98
    assert np.mean(purple) >= 0.9


def test_the_config_tree_takes_the_shipped_settings() -> None:
    tree = {"segment": shipped().segment.model_dump(), "enhance": shipped().enhance.model_dump()}
    assert Config.model_validate(tree).segment == shipped().segment
