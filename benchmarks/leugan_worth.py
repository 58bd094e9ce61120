"""Do LeuGAN's cells help a classifier where classes are unequal? Judged on test groups nobody learned from.

Each seed divides the groups, lets LeuGAN learn the smaller class of the training side and trains the backbone
once for each arm, all from the same first weights, for the same number of steps of the same size; the last
epoch counts (no cells are left for a validation side). Test cells are real, all of them, untouched.

- ALL-IDB2: of the blasts' training groups a quarter is kept (a made imbalance).
- Taleqani: Benign is the smaller class as it is.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import ttest_rel
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from benchmarks.leugan_data import Cells, halves, thinned
from benchmarks.selection_tables import markdown
from cotray.config import BackboneConfig, Config
from cotray.config.load import merge
from cotray.features.learner import BackboneLearner
from cotray.fitting.job import Job
from cotray.fitting.loop import fit_here
from cotray.imaging.resize import resize_square
from cotray.synthesis.quality import cell_quality
from cotray.synthesis.sample import synthesize
from cotray.synthesis.training import leugan_job, load_generator

MINOR = {"all-idb2": 1, "taleqani": 0}
"""Data set -> label of the class that is the smaller one, or is made so."""
KEPT = {"all-idb2": 0.25, "taleqani": 1.0}
"""Share of that class' training groups that is kept."""


FILTERS = (16, 32, 32, 64, 64)
"""Of the small CoTCoNet's SMod."""


@dataclass(frozen=True)
class Budget:
    """Of the classifier, the same for all arms."""

    steps: int = 150
    batch: int = 16
    lr: float = 1e-3


@dataclass(frozen=True)
class Arm:
    """One way of dealing with unequal classes."""

    classes: str = "none"
    augment: bool = True
    synthetic: bool = False


ARMS: dict[str, Arm] = {
    "nothing": Arm(augment=False),
    "class weights": Arm("weight", augment=False),
    "class weights + augmentation": Arm("weight"),
    "oversampling + augmentation": Arm("sample"),
    "LeuGAN": Arm(augment=False, synthetic=True),
    "LeuGAN + class weights": Arm("weight", augment=False, synthetic=True),
    "LeuGAN + class weights + augmentation": Arm("weight", synthetic=True),
}
PAIRS = (
    ("LeuGAN", "nothing"),
    ("LeuGAN", "class weights"),
    ("LeuGAN + class weights", "class weights"),
    ("LeuGAN", "oversampling + augmentation"),
    ("LeuGAN + class weights + augmentation", "class weights + augmentation"),
    ("LeuGAN + class weights + augmentation", "oversampling + augmentation"),
)
"""Arms whose difference the question is about."""


def judge(
    name: str, cells: Cells, seed: int, arms: Sequence[str], config: Config, budget: Budget
) -> Iterator[dict[str, Any]]:
    """A row for each arm; LeuGAN learns once for all."""
    train, test = halves(cells, seed)
    train = thinned(train, MINOR[name], KEPT[name], seed)
    drawn, figures = None, dict[str, float]()
    for arm in arms:
        if ARMS[arm].synthetic and drawn is None:
            drawn, figures = _drawn(train, MINOR[name], seed, config)
        began = time.process_time()
        scores = _scores(train, test, ARMS[arm], drawn, seed, config, budget)
        facts = {"train": np.bincount(train.label_N, minlength=2).tolist(), "test": len(test)}
        quality = figures if ARMS[arm].synthetic else {}
        yield {"key": [name, seed, arm], **facts, **scores, **quality, "cpu_s": time.process_time() - began}


def _drawn(train: Cells, label: int, seed: int, config: Config) -> tuple[Cells, dict[str, float]]:
    """As many cells of the smaller class as are lacking, and how good they are."""
    mine = train.take(train.label_N == label)
    lacking = len(train) - 2 * len(mine)
    weights, _ = fit_here(leugan_job(config.gan, mine.image_NSS3, seed))
    images = synthesize(load_generator(config.gan, weights), lacking, seed + 100)
    made = Cells(images, np.full(lacking, label), np.full(lacking, "leugan"))
    return made, {"drawn": lacking, **cell_quality(_like(mine, images), images, seed)}


def _like(cells: Cells, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    step = cells.image_NSS3.shape[1] // images.shape[1]
    return np.ascontiguousarray(cells.image_NSS3[:, ::step, ::step]) if step > 1 else cells.image_NSS3


def _scores(
    train: Cells, test: Cells, arm: Arm, drawn: Cells | None, seed: int, config: Config, budget: Budget
) -> dict[str, float]:
    image, label = train.image_NSS3, train.label_N
    if arm.synthetic and drawn is not None:
        image = np.concatenate([image, resize_square(drawn.image_NSS3, image.shape[1])])
        label = np.concatenate([label, drawn.label_N])
    learner = _trained(image, label, arm, seed, config, budget)
    prob = 1 / (1 + np.exp(-learner(test.image_NSS3)))
    return {
        "balanced_accuracy": float(balanced_accuracy_score(test.label_N, prob >= 0.5)),
        "auroc": float(roc_auc_score(test.label_N, prob)),
    }


def _small(config: Config, arm: Arm, budget: Budget) -> BackboneConfig:
    """CoTCoNet at a size that a core trains in seconds."""
    values = {
        "name": "cotconet",
        "image_size": 64,
        "layers": 1,
        "augment": {} if arm.augment else {"flips": False, "stain": 0.0},
        "smod": {"filters": FILTERS},
        "train": {"batch_size": budget.batch, "epochs": 10_000, "max_steps": budget.steps, "lr": budget.lr,
                  "classes": arm.classes},
    }  # fmt: skip
    return BackboneConfig.model_validate(merge(config.backbone.model_dump(), values))


def _trained(
    image: NDArray[np.uint8], label: NDArray[np.int64], arm: Arm, seed: int, config: Config, budget: Budget
) -> Any:
    """A small CoTCoNet as a function from cells to logits."""
    backbone = _small(config, arm, budget)
    counts = np.bincount(label, minlength=2)
    weight = tuple(len(label) / (2 * counts)) if arm.classes == "weight" else (1.0, 1.0)
    build = functools.partial(BackboneLearner, backbone, seed, weight)
    weights, _ = fit_here(Job("backbone", build, {"image": image, "label": label}, {}, backbone.train, seed))
    learner = build()
    learner.load_weights(weights)
    learner.set_train(False)

    def answer(cells_NSS3: NDArray[np.uint8]) -> NDArray[np.float64]:
        parts = torch.from_numpy(cells_NSS3).split(64)
        nothing = torch.zeros(1, dtype=torch.int64)
        found = [learner.predict_step({"image": part, "label": nothing})["logit"] for part in parts]
        return np.asarray(torch.cat(found).double().numpy())

    return answer


def worth_tables(rows: list[dict[str, Any]]) -> str:
    """Each arm's mean and deviation, and paired differences between arms."""
    return "\n\n".join([_arms(rows), _pairs(rows)])


def _values(rows: list[dict[str, Any]], name: str, arm: str, figure: str) -> dict[int, float]:
    return {row["key"][1]: row[figure] for row in rows if row["key"][::2] == [name, arm]}


def _arms(rows: list[dict[str, Any]]) -> str:
    lines = [["data set", "arm", "seeds", "balanced accuracy", "AUROC"]]
    for name in dict.fromkeys(row["key"][0] for row in rows):
        for arm in ARMS:
            sides = [list(_values(rows, name, arm, key).values()) for key in ("balanced_accuracy", "auroc")]
            if sides[0]:
                shown = [f"{np.mean(v):.3f} ± {np.std(v, ddof=min(1, len(v) - 1)):.3f}" for v in sides]
                lines.append([name, arm, str(len(sides[0])), *shown])
    return markdown(lines)


def _pairs(rows: list[dict[str, Any]]) -> str:
    lines = [["data set", "difference", "balanced accuracy", "p", "AUROC", "p"]]
    for name in dict.fromkeys(row["key"][0] for row in rows):
        for one, other in PAIRS:
            cells = [f"{one} - {other}"]
            for figure in ("balanced_accuracy", "auroc"):
                a, b = (_values(rows, name, arm, figure) for arm in (one, other))
                both = sorted(a.keys() & b.keys())
                if len(both) > 1:
                    x, y = np.array([a[s] for s in both]), np.array([b[s] for s in both])
                    p = ttest_rel(x, y).pvalue
                    cells += [f"{(x - y).mean():+.3f} ± {(x - y).std(ddof=1):.3f}", f"{p:.2f}"]
            if len(cells) == 5:
                lines.append([name, *cells])
    return markdown(lines)
