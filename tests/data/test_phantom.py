"""The phantom: exact truth, reproducible, and told apart by nuclei rather than by colour."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cotray.config import DatasetConfig
from cotray.data.catalog import DATASETS
from cotray.data.decode import decode_image
from cotray.data.phantom import (
    SIZES,
    PhantomImage,
    PhantomSpec,
    draw_phantom,
    mask_files,
    phantom_files,
    phantom_index,
)
from cotray.errors import InvalidValueError, UnknownNameError
from cotray.evaluation.floor import ColourFloor, colour_histogram
from cotray.imaging.masks import mask_box

Features = NDArray[np.float64]
Auroc = Callable[[Features], float]


@pytest.fixture(scope="module")
def sample() -> list[PhantomImage]:
    """480 images of 160 subjects, half of them malignant."""
    return [draw_phantom(spec) for spec in phantom_index("all-idb2", 160, 3, 0, malignant_share=0.5)]


def out_of_fold(
    sample: list[PhantomImage], features: Features, fit: Callable[[Features, NDArray[np.int64]], Auroc]
) -> float:
    """AUROC of predictions for subjects that were not learned from."""
    labels = np.array([drawn.label for drawn in sample])
    subjects = np.array([drawn.subject for drawn in sample])
    scores = np.zeros(len(sample))
    folds = StratifiedGroupKFold(4, shuffle=True, random_state=0)
    for train, test in folds.split(features, labels, subjects):
        scores[test] = fit(features[train], labels[train])(features[test])
    return float(roc_auc_score(labels, scores))


def forest(x: Features, y: NDArray[np.int64]) -> Callable[[Features], Features]:
    model = RandomForestClassifier(100, random_state=0).fit(x, y)
    return lambda unseen: model.predict_proba(unseen)[:, 1]


def floor(x: Features, y: NDArray[np.int64]) -> Callable[[Features], Features]:
    return ColourFloor(150).fit(x, y).predict_proba


def linear(x: Features, y: NDArray[np.int64]) -> Callable[[Features], Features]:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    return lambda unseen: model.predict_proba(unseen)[:, 1]


def background_features(drawn: PhantomImage) -> Features:
    """Colours and texture of what lies clearly outside of cells."""
    outside = cv2.dilate((drawn.instances > 0).astype(np.uint8), np.ones((13, 13))) == 0
    grey = cv2.cvtColor(drawn.rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    texture = [(grey - cv2.GaussianBlur(grey, (0, 0), grain))[outside].std() for grain in (1, 2, 4, 8)]
    return np.concatenate([colour_histogram(drawn.rgb[outside][None]), texture])


def nuclear_features(drawn: PhantomImage) -> Features:
    """Share of nucleus in the cell, and log variance of its green light in three bands of grain."""
    nuclei = drawn.nuclei.astype(np.float32)
    green = drawn.rgb[..., 1] * nuclei

    def smooth(grain: float) -> NDArray[np.float32]:
        inside = cv2.GaussianBlur(nuclei, (0, 0), grain)
        return np.asarray(cv2.GaussianBlur(green, (0, 0), grain) / (inside + 1e-3), np.float32)

    inner = cv2.erode(drawn.nuclei.astype(np.uint8), np.ones((7, 7))) > 0
    planes = [drawn.rgb[..., 1], smooth(1.0), smooth(2.5), smooth(6.0)]
    bands = [np.log((a - b)[inner].var()) for a, b in itertools.pairwise(planes)]
    return np.array([drawn.nuclei.sum() / (drawn.instances > 0).sum(), *bands])


def test_background_does_not_tell_the_classes_apart(sample: list[PhantomImage]) -> None:
    features = np.array([background_features(drawn) for drawn in sample])
    assert 0.35 < out_of_fold(sample, features, forest) < 0.65


def test_colour_of_the_whole_image_hardly_tells_the_classes_apart(sample: list[PhantomImage]) -> None:
    features = np.array([colour_histogram(drawn.rgb) for drawn in sample])
    assert 0.35 < out_of_fold(sample, features, floor) < 0.65


def test_nuclei_tell_the_classes_apart(sample: list[PhantomImage]) -> None:
    features = np.array([nuclear_features(drawn) for drawn in sample])
    assert 0.88 < out_of_fold(sample, features, linear) < 0.995


def test_colours_of_cells_alone_tell_less_than_nuclei(sample: list[PhantomImage]) -> None:
    features = np.array([colour_histogram(drawn.rgb[drawn.instances > 0][None]) for drawn in sample])
    assert out_of_fold(sample, features, forest) < 0.78


def test_subjects_differ_in_stain_and_light(sample: list[PhantomImage]) -> None:
    means = np.array([drawn.rgb[drawn.nuclei].mean(axis=0) for drawn in sample]).reshape(160, 3, 3)
    between, within = means.mean(axis=1).std(axis=0), means.std(axis=1).mean(axis=0)
    assert np.all(between > within) and np.all(between > 6)


@pytest.mark.parametrize("layout", SIZES)
def test_equal_specs_give_equal_bytes_in_any_order(layout: str) -> None:
    specs = phantom_index(layout, 3, 2, seed=5)
    forward = dict(phantom_files(specs))
    backward = dict(phantom_files(phantom_index(layout, 3, 2, seed=5)[::-1]))
    assert forward == backward and len(set(forward.values())) == len(specs)
    assert forward != dict(phantom_files(phantom_index(layout, 3, 2, seed=6)))


@pytest.mark.parametrize("layout", SIZES)
def test_truth_is_consistent(layout: str) -> None:
    for spec in phantom_index(layout, 4, 3, seed=1):
        drawn = draw_phantom(spec)
        assert drawn.rgb.shape == (*SIZES[layout], 3) and drawn.rgb.dtype == np.uint8
        numbers = range(1, int(drawn.instances.max()) + 1)
        assert drawn.boxes == [mask_box(drawn.instances == number) for number in numbers]
        assert len(drawn.labels) == len(drawn.boxes) and max(drawn.labels) == drawn.label == spec.label
        assert not (drawn.nuclei & (drawn.instances == 0)).any()
        for number in numbers:
            own = drawn.instances == number
            assert 0.25 < drawn.nuclei[own].mean() < 0.95


def edge(mask: NDArray[np.bool_], pixels: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Thin rings just inside and just outside of a mask, leaving out the blurred edge."""
    grown = [cv2.dilate(mask.astype(np.uint8), np.ones((k, k))) > 0 for k in (5, 5 + 2 * pixels)]
    shrunk = [cv2.erode(mask.astype(np.uint8), np.ones((k, k))) > 0 for k in (5, 5 + 2 * pixels)]
    return shrunk[0] & ~shrunk[1], grown[1] & ~grown[0]


def test_masks_end_where_the_paint_ends(sample: list[PhantomImage]) -> None:
    """Redness falls by step at the cell's edge, darkness at the nucleus', in (nearly) every image."""
    steps = []
    for drawn in sample[:60]:
        red = drawn.rgb[..., 0].astype(float)
        inside, outside = edge(drawn.instances > 0, 2)
        core, around = edge(drawn.nuclei, 2)
        around &= drawn.instances > 0
        steps.append((red[outside].mean() - red[inside].mean(), red[around].mean() - red[core].mean()))
    assert np.mean(np.array(steps) > 8, axis=0).min() > 0.9


def test_cnmc_is_black_outside_the_cell_only() -> None:
    for spec in phantom_index("c-nmc", 4, 2, seed=2):
        drawn = draw_phantom(spec)
        assert not drawn.rgb[drawn.instances == 0].any()
        assert (drawn.rgb[drawn.instances > 0].max(axis=1) > 16).mean() > 0.99


@pytest.mark.parametrize(
    ("layout", "parser", "named"),
    [("c-nmc", "c-nmc", True), ("all-idb2", "all-idb2", False), ("fields", "folder", False)],
)
def test_layouts_read_back(layout: str, parser: str, named: bool) -> None:
    specs = phantom_index(layout, 6, 4, seed=0)
    config = DatasetConfig(name=parser)
    parsed = DATASETS[parser].parse([spec.path for spec in specs], lambda path: "", config)
    truth = {spec.path: (spec.label, spec.subject if named else None) for spec in specs}
    assert {r.path: (r.label, r.subject) for r in parsed.records} == truth
    assert not parsed.rejected


def test_files_are_images_and_masks_of_the_same_cells() -> None:
    specs = phantom_index("all-idb2", 2, 1, seed=3)
    files, masks = dict(phantom_files(specs)), dict(mask_files(specs))
    parsed = DATASETS["all-idb2"].parse([*files, *masks], lambda path: "", DatasetConfig())
    for spec, record in zip(specs, parsed.records, strict=True):
        drawn = draw_phantom(spec)
        assert np.array_equal(decode_image(files[spec.path], max_pixels=10**6, min_side=16), drawn.rgb)
        painted = decode_image(masks[str(record.mask_path)], max_pixels=10**6, min_side=16)[..., 0]
        assert np.array_equal(painted == 255, drawn.nuclei)
        assert np.array_equal(painted > 0, drawn.instances > 0)


@pytest.mark.parametrize(("subjects", "share", "malignant"), [(24, 2 / 3, 16), (5, 0.5, 2), (2, 0.99, 1)])
def test_classes_have_their_share_and_alternate(subjects: int, share: float, malignant: int) -> None:
    specs = phantom_index("all-idb2", subjects, 3, 0, malignant_share=share)
    label_of = {spec.subject: spec.label for spec in specs}
    assert len(label_of) == subjects and sum(label_of.values()) == malignant
    assert len(specs) == 3 * subjects == len({spec.path for spec in specs})
    first_half = list(label_of.values())[: subjects // 2 + 1]
    assert abs(sum(first_half) - malignant / 2) <= 1


def test_seeds_are_all_different() -> None:
    specs: list[PhantomSpec] = [spec for layout in SIZES for spec in phantom_index(layout, 10, 5, 0)]
    assert len({spec.seed for spec in specs} | {spec.style_seed for spec in specs}) == 3 * (50 + 10)


def test_unknown_layout_and_too_few_subjects() -> None:
    with pytest.raises(UnknownNameError, match="all-idb2"):
        phantom_index("all-idb", 4, 1, 0)
    with pytest.raises(InvalidValueError, match="two subjects"):
        phantom_index("fields", 1, 1, 0)
