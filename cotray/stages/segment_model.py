"""Which LeuSAM `cotray segment` uses, and what it says of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cotray.config import Config, load_config, merge, to_yaml, validate
from cotray.errors import ConfigError, InvalidValueError, MissingStageError
from cotray.imaging.instances import Labels, label_image, part_instances, shows_one_cell
from cotray.imaging.masks import Mask, mask_box
from cotray.imaging.roi import find_cells
from cotray.predictor import build_segmenter
from cotray.preparation import carried, prepare
from cotray.runs import Run
from cotray.segmentation.predictor import CellSegmenter
from cotray.segmentation.shipped import load_shipped
from cotray.stages.weights import parse_weights

Box = tuple[int, int, int, int]
Point = tuple[int, int]
Masks = tuple[NDArray[np.bool_], NDArray[np.float32]]
ON_THE_CELL = 1
"""SAM's label of a point that lies on what is wanted."""
JOINED = 1.5
"""A box longer than this many usual ones holds several cells that touch; a point is for one of them."""
LONE_POINT = 0.25
"""Side of the box around a point in an image without any stain, as a share of its shorter side."""


@dataclass(frozen=True)
class Model:
    """A trained LeuSAM with the settings it was trained with."""

    config: Config
    weights: Mapping[str, Tensor]
    name: str
    """For people and for comparisons: where it came from, and a hash."""


@dataclass(frozen=True)
class Ask:
    """What is wanted of an image."""

    single: bool | None = None
    """True: one cell per image; False: many; None: as the image looks."""
    boxes: tuple[Box, ...] = ()
    """Box prompts (x0, y0, x1, y1), instead of finding the cells."""
    points: tuple[Point, ...] = ()
    """Points (x, y), each in one cell."""

    def __str__(self) -> str:
        """As options of the command; empty where nothing is asked."""
        kind = [] if self.single is None else ["--single" if self.single else "--fields"]
        boxes = [f"--box {','.join(map(str, box))}" for box in self.boxes]
        return " ".join(kind + boxes + [f"--point {x},{y}" for x, y in self.points])


@dataclass(frozen=True)
class Found:
    """The cells of one image. H W pixels."""

    labels: Labels
    """(H, W) uint16: 0 background, k the k-th cell."""
    masks: list[Mask] = field(default_factory=list)
    """(H, W) bool each, disjoint."""
    scores: list[float] = field(default_factory=list)
    """IoU that LeuSAM predicts for each."""
    single: bool = False
    """Whether the image was taken to show one cell."""

    @property
    def boxes(self) -> list[Box]:
        """The tightest box of each mask."""
        return [box for box in map(mask_box, self.masks) if box is not None]


def find_model(bundle: str | None, sets: Sequence[str] = ()) -> Model:
    """The shipped LeuSAM, or that of a run (its segment stage done) or of a bundle.

    Raises WeightsError, BundleError, MissingStageError, ConfigError (``sets``).
    """
    model = _shipped() if bundle is None else _of_run(bundle) if Run.exists(bundle) else _of_bundle(bundle)
    if not sets:
        return model
    return Model(load_config(yaml_text=to_yaml(model.config), overrides=sets), model.weights, model.name)


def _shipped() -> Model:
    shipped = load_shipped()
    tree = {"segment": shipped.segment.model_dump(), "enhance": shipped.enhance.model_dump()}
    config = validate(merge(Config().model_dump(mode="json"), tree))
    return Model(config, shipped.weights, f"shipped {shipped.digest[:12]}")


def _of_run(uri: str) -> Model:
    run = Run.open(uri)
    try:
        record = run.need("segment")
    except MissingStageError as error:
        raise MissingStageError(error.what, where=uri, cure="Finish it with `cotray run`.") from error
    file = record.result.artifacts.get("weights")
    nets = parse_weights(run.stage("segment").read_bytes(file), f"{uri}/segment/{file}") if file else {}
    config = carried(run.config(), run.stage("ingest"))
    return Model(config, next(iter(nets.values()), {}), f"run {record.fingerprint[:12]}")


def _of_bundle(uri: str) -> Model:
    from cotray.stages.registry import resolve_bundle

    bundle = resolve_bundle(uri)
    return Model(bundle.config, bundle.tensors["leusam"], f"bundle {bundle.version}")


class ImageSegmenter:
    """Holds LeuSAM; RGB in, cells out."""

    def __init__(self, model: Model, ask: Ask, device: str = "cpu") -> None:
        self.config, self.ask = model.config, ask
        self.segmenter = build_segmenter(model.config, model.weights, device)
        if ask.points and not isinstance(self.segmenter, CellSegmenter):
            raise ConfigError(
                f"Points are for LeuSAM; this model is a {self.config.segment.model}.",
                where="--point",
                cure="Give boxes with --box, or a model that is a LeuSAM.",
            )

    def __call__(self, rgb: NDArray[np.uint8]) -> Found:
        """Cells of (H, W, 3) uint8 RGB as decoded. Raises InvalidValueError for a prompt outside of it."""
        seen = prepare(rgb, self.config)
        asked = self.ask.boxes or self.ask.points
        single, (masks, scores) = (False, self._prompted(seen)) if asked else self._searched(seen)
        parted, kept = part_instances(list(masks), scores.tolist())
        labels = label_image(parted, (rgb.shape[0], rgb.shape[1]))
        return Found(labels, parted, [float(scores[i]) for i in kept], single)

    def _searched(self, seen: NDArray[np.uint8]) -> tuple[bool, Masks]:
        """(whether one cell, masks and scores) of the cells that the region-of-interest step finds."""
        roi, single = self.config.roi, self.ask.single
        single = shows_one_cell(seen, roi) if single is None else single
        boxes = [region.box for region in find_cells(seen, roi, single=single)]
        return single, self.segmenter.segment(seen, boxes)

    def _prompted(self, seen: NDArray[np.uint8]) -> Masks:
        """Masks and scores of the cells that the user points at."""
        boxes = [_inside(box, seen) for box in self.ask.boxes]
        if not self.ask.points:
            return self.segmenter.segment(seen, boxes)
        assert isinstance(self.segmenter, CellSegmenter)  # see __init__
        points: list[list[tuple[int, int, int]]] = [[] for _ in boxes]
        points += [[(x, y, ON_THE_CELL)] for x, y in self.ask.points]
        return self.segmenter.segment(
            seen, boxes + [self._around(point, seen) for point in self.ask.points], points=points
        )

    def _around(self, point: Point, seen: NDArray[np.uint8]) -> Box:
        """The box of the cell found at a point; where there is none, one of the usual size around it."""
        x, y = point
        height, width = seen.shape[:2]
        if not (0 <= x < width and 0 <= y < height):
            raise _outside(f"The point {x},{y}", seen)
        boxes = [region.box for region in find_cells(seen, self.config.roi, single=False)]
        boxes = sorted(boxes, key=lambda box: max(box[2] - box[0], box[3] - box[1]))
        sides = [max(box[2] - box[0], box[3] - box[1]) for box in boxes]
        usual = sides[(len(sides) - 1) // 2] if sides else int(LONE_POINT * min(height, width))
        for box, side in zip(boxes, sides, strict=True):
            if side <= JOINED * usual and box[0] <= x < box[2] and box[1] <= y < box[3]:
                return box
        half = usual // 2
        return _inside((x - half, y - half, x + half + 1, y + half + 1), seen)


def _inside(box: Box, seen: NDArray[np.uint8]) -> Box:
    """The part of a box that is inside the image."""
    height, width = seen.shape[:2]
    x0, y0, x1, y1 = max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])
    if x0 >= x1 or y0 >= y1:
        raise _outside(f"The box {','.join(map(str, box))}", seen)
    return x0, y0, x1, y1


def _outside(what: str, seen: NDArray[np.uint8]) -> InvalidValueError:
    return InvalidValueError(
        f"{what} is outside of the image, which is {seen.shape[1]} x {seen.shape[0]}.",
        cure="Count pixels from the upper left corner: x to the right, y downwards.",
    )
