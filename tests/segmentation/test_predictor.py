from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cotray.config import Config, SegmentConfig
from cotray.imaging.masks import clean_mask, mask_box
from cotray.predictor import build_segmenter
from cotray.segmentation.leusam import Embedded, LeuSam, Points, build_leusam
from cotray.segmentation.predictor import CellSegmenter

TINY = SegmentConfig(image_size=64, embed_dim=16, depth=1, heads=2, prompt_dim=16)
WHOLE = TINY.model_copy(update={"window": "image"})
BOXES = [(10, 10, 40, 40), (60, 5, 100, 30), (-10, 50, 20, 90), (110, 60, 140, 95), (30, 30, 34, 33)]


def model(cfg: SegmentConfig = TINY) -> LeuSam:
    torch.manual_seed(0)
    return build_leusam(cfg)


def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)


class SquareModel(LeuSam):
    """Says that the cell fills its box: what a perfect model would say of a square cell."""

    def decode(
        self, seen: Embedded, box_B4: torch.Tensor, points: Points | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        _, quality = super().decode(seen, box_B4, points)
        place = torch.arange(16) * 4 + 2.0
        wide = (place > box_B4[:, :1]) & (place < box_B4[:, 2:3])
        high = (place > box_B4[:, 1:2]) & (place < box_B4[:, 3:])
        return (high[:, :, None] & wide[:, None]) * 2.0 - 1, quality + 5


def square_model(cfg: SegmentConfig) -> SquareModel:
    plain = model(cfg)
    parts = (plain.image_encoder, plain.prompt_encoder, plain.mask_decoder, plain.detail)
    return SquareModel(*parts, frozen=False)


@pytest.mark.parametrize("cfg", [TINY, WHOLE])
def test_masks_lie_in_their_boxes_in_pixels_of_the_image(cfg: SegmentConfig) -> None:
    masks, scores = CellSegmenter(square_model(cfg), cfg, batch=2).segment(picture(), BOXES)
    assert masks.shape == (5, 80, 120) and masks.dtype == bool
    assert scores.tolist() == [1.0] * 5, "predicted IoU stays in 0..1"
    assert scores.dtype == np.float32
    half = 4  # of a logit, in pixels of the image
    assert mask_box(masks[0]) == pytest.approx((10, 10, 40, 40), abs=half)
    assert mask_box(masks[1]) == pytest.approx((60, 5, 100, 30), abs=half)
    assert mask_box(masks[2]) == pytest.approx((0, 50, 20, 80), abs=half), "cut at the image's edge"


@pytest.mark.parametrize("cfg", [TINY, WHOLE])
def test_each_mask_is_one_piece_without_holes(cfg: SegmentConfig) -> None:
    masks, _ = CellSegmenter(model(cfg), cfg).segment(picture(), BOXES)
    assert masks.any()
    assert all(np.array_equal(mask, clean_mask(mask)) for mask in masks)


@pytest.mark.parametrize("cfg", [TINY, WHOLE])
def test_no_boxes_give_empty_arrays(cfg: SegmentConfig) -> None:
    masks, scores = CellSegmenter(model(cfg), cfg).segment(picture(), [])
    assert masks.shape == (0, 80, 120) and masks.dtype == bool
    assert scores.shape == (0,) and scores.dtype == np.float32


@pytest.mark.parametrize("cfg", [TINY, WHOLE])
def test_a_box_wholly_outside_gives_a_mask_that_may_be_empty_and_no_error(cfg: SegmentConfig) -> None:
    outside = [(300, 300, 340, 340), (-90, -90, -60, -60)]
    masks, scores = CellSegmenter(square_model(cfg), cfg).segment(picture(), outside)
    assert masks.shape == (2, 80, 120) and not masks.any()
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(("cfg", "embedded"), [(TINY, [2, 2, 1]), (WHOLE, [1])])
def test_a_whole_image_is_embedded_once_for_all_its_boxes(cfg: SegmentConfig, embedded: list[int]) -> None:
    net = model(cfg)
    calls: list[int] = []
    net.image_encoder.register_forward_hook(lambda _, given, __: calls.append(len(given[0])))
    CellSegmenter(net, cfg, batch=2).segment(picture(), BOXES)
    assert calls == embedded


class PointModel(SquareModel):
    """Says that the cell is where the first point lies, if that is said to be on it; else all of the box."""

    def decode(
        self, seen: Embedded, box_B4: torch.Tensor, points: Points | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if points is not None:
            place, label = points
            around = torch.cat([place[:, 0] - 6, place[:, 0] + 6], dim=1)
            box_B4 = torch.where(label[:, :1] == 1, around, box_B4)
        return super().decode(seen, box_B4, points)


@pytest.mark.parametrize("cfg", [TINY, WHOLE])
def test_points_are_in_pixels_of_the_image_and_each_boxs_own(cfg: SegmentConfig) -> None:
    plain = model(cfg)
    parts = (plain.image_encoder, plain.prompt_encoder, plain.mask_decoder, plain.detail)
    segmenter = CellSegmenter(PointModel(*parts, frozen=False), cfg, batch=2)
    points = [[(20, 30, 1)], [], [(8, 70, 0), (9, 71, 1)], [(125, 80, 1), (0, 0, 0)], [(32, 31, 0)]]
    masks, _ = segmenter.segment(picture(), BOXES, points)
    without, _ = segmenter.segment(picture(), BOXES)
    same = [np.array_equal(a, b) for a, b in zip(masks, without, strict=True)]
    assert same == [False, True, True, False, True], "a first point that lies on the cell, or none that does"
    found = mask_box(masks[0])
    assert found is not None
    assert ((found[0] + found[2]) / 2, (found[1] + found[3]) / 2) == pytest.approx((20, 30), abs=4)


def test_a_boxs_answer_does_not_hang_on_the_points_of_others() -> None:
    segmenter = CellSegmenter(model(), TINY)
    points = [[(20, 30, 1)], [(70, 20, 0), (80, 20, 1)], [], [(120, 70, 1)], []]
    masks, scores = segmenter.segment(picture(), BOXES, points)
    for row, box in enumerate(BOXES):
        alone, score = segmenter.segment(picture(), [box], [points[row]])
        assert np.count_nonzero(alone[0] ^ masks[row]) <= 2
        assert scores[row] == pytest.approx(score[0], abs=1e-5)
    moved, _ = segmenter.segment(picture(), BOXES, [[(38, 12, 1)], *points[1:]])
    assert (moved[0] != masks[0]).any() and not (moved[1:] != masks[1:]).any()


@pytest.mark.parametrize("cfg", [TINY, WHOLE])
def test_masks_do_not_depend_on_the_batch_size(cfg: SegmentConfig) -> None:
    net = model(cfg)
    masks, scores = CellSegmenter(net, cfg, batch=16).segment(picture(), BOXES)
    for batch in (1, 2):
        again, others = CellSegmenter(net, cfg, batch=batch).segment(picture(), BOXES)
        assert np.count_nonzero(again ^ masks) <= 2, "rounding may move a pixel that is on the edge"
        assert others == pytest.approx(scores, abs=1e-5)


def test_weights_of_before_the_fine_path_answer_as_they_did() -> None:
    before = TINY.model_copy(update={"detail": 0, "drawn_prompts": False})
    old = model(before)
    masks, scores = CellSegmenter(old, before).segment(picture(), BOXES)
    again, others = build_segmenter(Config(segment=TINY), old.state_dict()).segment(picture(), BOXES)
    assert np.array_equal(again, masks) and np.array_equal(others, scores)
