"""Phantom smears: images drawn by a program, with exact masks, boxes, labels and subjects.

The classes differ in the nucleus' morphology: chromatin, nucleoli, lobes, contour, and a little in its
share of the cell. Background, stain, light and magnification are drawn alike for both, so that colour
hardly tells them apart. A phantom has no medical meaning: it is for demonstrations, tests, and masks to
learn segmentation from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cotray.data.phantom_paint import (
    Mask,
    Rng,
    Style,
    draw_style,
    expose,
    paint_background,
    paint_leukocyte,
    paint_red_cells,
)
from cotray.errors import InvalidValueError, UnknownNameError, nearest

SIZES: dict[str, tuple[int, int]] = {"c-nmc": (450, 450), "all-idb2": (257, 257), "fields": (480, 640)}
"""Layout -> (height, width) of its images."""


@dataclass(frozen=True)
class PhantomSpec:
    """One image to draw; equal specs give equal pixels."""

    path: str
    subject: str
    label: int
    layout: str
    seed: int
    """Of this image; the subject's style comes from ``style_seed``."""
    style_seed: int

    @property
    def class_name(self) -> str:
        """The class in words."""
        return "malignant" if self.label else "normal"


@dataclass(frozen=True)
class PhantomImage:
    """A drawn image and the whole truth about it."""

    rgb: NDArray[np.uint8]
    """(H, W, 3)."""
    instances: NDArray[np.uint16]
    """(H, W): 0 background, i = cell i."""
    nuclei: Mask
    """(H, W): all nuclei."""
    boxes: list[tuple[int, int, int, int]]
    """(x0, y0, x1, y1) of cell i + 1."""
    labels: list[int]
    """Label of cell i + 1."""
    label: int
    subject: str
    path: str


def phantom_index(
    layout: str, subjects: int, per_subject: int, seed: int, malignant_share: float = 2 / 3
) -> list[PhantomSpec]:
    """What to draw: single-class subjects with names and paths as the layout publishes them.

    Subjects of both classes alternate, so that a part of the index holds both. Only ``c-nmc`` has a place
    for subjects in its paths; elsewhere they stand in the index alone.

    Raises UnknownNameError (layout), InvalidValueError (fewer than two subjects).
    """
    if layout not in SIZES:
        raise UnknownNameError(f"Unknown phantom layout '{layout}'.", cure=nearest(layout, SIZES))
    if subjects < 2 or per_subject < 1:
        raise InvalidValueError(
            f"A phantom cannot have {subjects} subjects with {per_subject} images each.",
            cure="Ask for at least two subjects with one image each.",
        )
    malignant = min(subjects - 1, max(1, round(subjects * malignant_share)))
    root = np.random.SeedSequence(entropy=seed, spawn_key=(list(SIZES).index(layout),))
    specs, number = [], 0
    for place, style in enumerate(root.spawn(subjects)):
        label = (place + 1) * malignant // subjects - place * malignant // subjects
        subject = _subject(layout, place, label)
        for image, child in enumerate(style.spawn(per_subject)):
            number += 1
            path = _path(layout, place, image, label, number)
            specs.append(PhantomSpec(path, subject, label, layout, _int(child), _int(style)))
    return specs


def _int(sequence: np.random.SeedSequence) -> int:
    return int(sequence.generate_state(1, np.uint64)[0])


def _subject(layout: str, place: int, label: int) -> str:
    if layout == "c-nmc":
        return f"{place + 1}" if label else f"H{place + 1}"
    return f"phantom-{place:03d}"


def _path(layout: str, place: int, image: int, label: int, number: int) -> str:
    if layout == "c-nmc":
        kind, name = "all" if label else "hem", _subject(layout, place, label)
        return f"C-NMC_training_data/fold_{place % 3}/{kind}/UID_{name}_{image + 1}_1_{kind}.bmp"
    if layout == "all-idb2":
        return f"img/Im{number:04d}_{label}.tif"
    return f"{'malignant' if label else 'normal'}/field-{number:04d}.png"


def draw_phantom(spec: PhantomSpec) -> PhantomImage:
    """Draw one image; deterministic.

    One core draws about 100 images of ``all-idb2`` a second, 65 of ``c-nmc``, 20 fields.
    """
    style = draw_style(np.random.default_rng(spec.style_seed))
    rng = np.random.default_rng(spec.seed)
    if spec.layout == "fields":
        return _field(spec, style, rng)
    picture, instances, nuclei, labels = _smear((257, 257), [(128.0, 128.0)], [spec.label], 9, style, rng)
    rgb = expose(picture, style, rng)
    if spec.layout == "c-nmc":
        rgb, instances, nuclei = _on_black(rgb, instances, nuclei)
    return PhantomImage(
        rgb, instances, nuclei, _boxes(instances), labels, spec.label, spec.subject, spec.path
    )


def _field(spec: PhantomSpec, style: Style, rng: Rng) -> PhantomImage:
    height, width = SIZES["fields"]
    places: list[tuple[float, float]] = []
    for _ in range(60):
        place = (float(rng.uniform(70, width - 70)), float(rng.uniform(70, height - 70)))
        if all(np.hypot(place[0] - x, place[1] - y) > 110 for x, y in places) and len(places) < 5:
            places.append(place)
    places = places[: int(rng.integers(1, len(places) + 1))]
    blasts = [int(spec.label and (i == 0 or rng.random() < 0.8)) for i in range(len(places))]
    picture, instances, nuclei, labels = _smear((height, width), places, blasts, 45, style, rng)
    rgb = expose(picture, style, rng)
    return PhantomImage(
        rgb, instances, nuclei, _boxes(instances), labels, spec.label, spec.subject, spec.path
    )


def _smear(
    shape: tuple[int, int],
    places: Sequence[tuple[float, float]],
    labels: list[int],
    red_cells: int,
    style: Style,
    rng: Rng,
) -> tuple[NDArray[np.float32], NDArray[np.uint16], Mask, list[int]]:
    picture = paint_background(shape, style, rng)
    paint_red_cells(picture, int(rng.poisson(red_cells)), style, rng)
    instances, nuclei = np.zeros(shape, np.uint16), np.zeros(shape, bool)
    for number, (place, label) in enumerate(zip(places, labels, strict=True), 1):
        shift = rng.uniform(-12, 12, 2)
        centre = (place[0] + float(shift[0]), place[1] + float(shift[1]))
        cell, nucleus = paint_leukocyte(picture, centre, label, style, rng)
        instances[cell] = number
        nuclei[cell] = nucleus[cell]  # a later cell hides what lies below it
    return picture, instances, nuclei, labels


def _on_black(
    rgb: NDArray[np.uint8], instances: NDArray[np.uint16], nuclei: Mask
) -> tuple[NDArray[np.uint8], NDArray[np.uint16], Mask]:
    """C-NMC's look: 450 x 450, the cell enlarged on black."""
    height, width = SIZES["c-nmc"]
    big = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_CUBIC)
    cell = cv2.resize(instances, (width, height), interpolation=cv2.INTER_NEAREST)
    core = cv2.resize(nuclei.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    big[cell == 0] = 0
    return big, cell.astype(np.uint16), core.astype(bool)


def _boxes(instances: NDArray[np.uint16]) -> list[tuple[int, int, int, int]]:
    boxes = []
    for number in range(1, int(instances.max()) + 1):
        ys, xs = np.nonzero(instances == number)
        if len(ys):
            boxes.append((int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1))
    return boxes


def phantom_files(specs: Sequence[PhantomSpec]) -> Iterator[tuple[str, bytes]]:
    """(path, encoded image) of each spec, in the layout's file format."""
    for spec in specs:
        rgb = draw_phantom(spec).rgb
        suffix = f".{spec.path.rpartition('.')[2]}"
        yield spec.path, cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def mask_files(specs: Sequence[PhantomSpec]) -> Iterator[tuple[str, bytes]]:
    """(masks/STEM.png, encoded mask) of each spec: 0 background, 128 cytoplasm, 255 nucleus."""
    for spec in specs:
        drawn = draw_phantom(spec)
        mask = np.where(drawn.instances > 0, 128, 0).astype(np.uint8)
        mask[drawn.nuclei] = 255
        stem = spec.path.rpartition("/")[2].rpartition(".")[0]
        yield f"masks/{stem}.png", cv2.imencode(".png", mask)[1].tobytes()
