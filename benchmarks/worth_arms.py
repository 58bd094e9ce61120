"""What is compared by benchmarks.worth: the parts of the method, alone and together, on the same cells.

Every backbone gets as many steps of as many cells. An arm gives each cell's probability of malignant; an
image's is the mean of its cells'. N cells, M images, D features.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.worth_cells import CellSet
from cotray.classification.calibration import sigmoid
from cotray.config import Config, SplitConfig
from cotray.data.splits import make_split
from cotray.evaluation.aggregate import aggregate_cells
from cotray.evaluation.floor import ColourFloor, colour_histogram
from cotray.evaluation.metrics import steady_threshold
from cotray.features.grafr import GraFR
from cotray.features.learner import BackboneLearner
from cotray.fitting.best import best_epoch
from cotray.fitting.job import Job
from cotray.fitting.loop import fit_here
from cotray.imaging.resize import resize_square
from cotray.learning import Weights, derive_seed
from cotray.predictor import Embedder
from cotray.selection.problem import Table, ask
from cotray.selection.select import select_features
from cotray.stages.cells import class_weight
from cotray.stages.classify import hdlc_job
from cotray.synthesis.quality import cell_quality
from cotray.synthesis.sample import synthesize
from cotray.synthesis.training import leugan_job, load_generator

FOLDS = 5
Prob = NDArray[np.float64]


@dataclass
class Fold:
    """One fold of a data set: every group is tested by exactly one of FOLDS."""

    cells: CellSet
    config: Config
    number: int
    split_seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        split = SplitConfig(folds=FOLDS, fold=self.number)
        sides = make_split(self.cells.group_M.tolist(), self.cells.label_M.tolist(), split, self.split_seed)
        self.side_M = np.array(sides)
        self.side_N, self.label_N = self.side_M[self.cells.of_N], self.cells.label_M[self.cells.of_N]
        self.seed = derive_seed(self.number, 77)
        self.extra: NDArray[np.uint8] | None = None
        self._backbones: dict[str, Weights] = {}
        self._features: dict[str, NDArray[np.float32]] = {}
        self.notes: dict[str, float] = {}

    def cells_of(self, side: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        keep = self.side_N == side
        return self.cells.image_NSS3[keep], self.label_N[keep]

    # ---- parts -----------------------------------------------------------------------------------------

    def backbone(self, name: str) -> Weights:
        """A backbone trained end to end, once."""
        if name not in self._backbones:
            cfg = self.config.backbone.model_copy(update={"name": name.removesuffix("+gan")})
            image, label = self.cells_of("train")
            if name.endswith("+gan") and self.extra is not None:
                image = np.concatenate([image, self.extra])
                label = np.concatenate([label, np.full(len(self.extra), self.minority)])
            job = Job(
                "backbone",
                functools.partial(BackboneLearner, cfg, self.seed, class_weight(label)),
                {"image": resize_square(image, cfg.image_size), "label": label},
                self._valid(cfg.image_size),
                cfg.train,
                self.seed,
            )
            weights, history = fit_here(job, device=self.device)
            self._backbones[name] = weights
            best = history[best_epoch(history, cfg.train.smooth)]
            self.notes |= {f"{name} val_loss": best["val_loss"], f"{name} best epoch": best["epoch"]}
        return self._backbones[name]

    def _valid(self, side: int) -> dict[str, NDArray[np.generic]]:
        image, label = self.cells_of("val")
        return {"image": resize_square(image, side), "label": label}

    def features(self, name: str) -> NDArray[np.float32]:
        """(N, D) of every cell."""
        if name not in self._features:
            self._features[name] = self.embedder(name)(self.cells.image_NSS3)
        return self._features[name]

    def embedder(self, name: str) -> Embedder:
        backbone = self.config.backbone.model_copy(update={"name": name.removesuffix("+gan")})
        config = self.config.model_copy(update={"backbone": backbone})
        return Embedder(config, self.backbone(name)["backbone"], self.device)

    def reconstructed(self, name: str) -> NDArray[np.float32]:
        """Features through GraFR; only training cells are in its bank."""
        feat, train = self.features(name), self.side_N == "train"
        grafr = GraFR(self.config.grafr)
        inside = grafr.fit_transform(np.ascontiguousarray(feat[train]))
        out = np.empty((len(feat), inside.shape[1]), np.float32)
        out[train], out[~train] = inside, grafr.transform(np.ascontiguousarray(feat[~train]))
        return out

    @property
    def minority(self) -> int:
        return int(np.bincount(self.cells_of("train")[1], minlength=2).argmin())


# ---- arms ----------------------------------------------------------------------------------------------


def own(fold: Fold) -> str:
    """The backbone that the settings name."""
    return fold.config.backbone.name


def linear(fold: Fold, name: str) -> Prob:
    """The backbone's own linear head."""
    return head(fold, name, fold.features(name))


def head(fold: Fold, name: str, feat_ND: NDArray[np.float32]) -> Prob:
    """What the backbone's linear head says of features, which may be of cells of another set."""
    net = fold.embedder(name).net
    with torch.no_grad():
        logit_N1 = net.head(torch.from_numpy(feat_ND).to(fold.device))
    return np.asarray(sigmoid(logit_N1[:, 0].double().cpu().numpy()))


def hdlc(fold: Fold, feat_ND: NDArray[np.float32], select: bool) -> Prob:
    """HDLC on features, all of them or those that the search selects."""
    train, val = (fold.side_N == side for side in ("train", "val"))
    mask = np.ones(feat_ND.shape[1], bool)
    if select:
        whole = Table(feat_ND, fold.label_N, fold.cells.group_M[fold.cells.of_N])
        learned, asked = whole.rows(train), whole.rows(val)
        table = learned if fold.config.select.ask == "training" else ask(learned, asked)
        mask = select_features(table, fold.config, fold.seed).mask_D
    sides = [
        {"feature": np.ascontiguousarray(feat_ND[k][:, mask]), "label": fold.label_N[k]} for k in (train, val)
    ]
    job = hdlc_job(fold.config, sides[0], sides[1])
    weights, _ = fit_here(job, device=fold.device)
    learner = job.build()
    learner.load_weights(weights)
    learner.set_train(False)
    net, feat = learner.nets["hdlc"].to(fold.device), torch.from_numpy(np.ascontiguousarray(feat_ND[:, mask]))
    with torch.no_grad():
        logit = torch.cat([net(part.to(fold.device)).cpu() for part in feat.split(256)])
    return np.asarray(sigmoid(logit.double().numpy()))


def with_gan(fold: Fold) -> Prob:
    """The backbone alone with LeuGAN's cells of the smaller class among its training cells, whatever they
    look like."""
    if fold.extra is None:
        fold.extra = drawn(fold)
    return linear(fold, f"{own(fold)}+gan")


def drawn(fold: Fold) -> NDArray[np.uint8]:
    """Cells of the smaller class until the classes balance, at most as many as there are real ones."""
    image, label = fold.cells_of("train")
    counts, gan = np.bincount(label, minlength=2), fold.config.gan
    wanted = int(min(counts.max() - counts.min(), gan.max_ratio * counts.min()))
    side = image.shape[1]
    if not wanted:
        return np.zeros((0, side, side, 3), np.uint8)
    mine = image[label == fold.minority]
    weights, _ = fit_here(leugan_job(gan, mine, fold.seed), device=fold.device)
    made = synthesize(load_generator(gan, weights), wanted, fold.seed)
    real = resize_square(mine, gan.image_size)
    fold.notes |= {f"leugan {key}": value for key, value in cell_quality(real, made, seed=1).items()}
    return resize_square(made, side)


def cell_colours(fold: Fold) -> Prob:
    """The forest on colour histograms of cells: what colour says without the background."""
    return cell_forest(fold).predict_proba(histograms(fold.cells))


def cell_forest(fold: Fold) -> ColourFloor:
    """The forest that has learnt the training cells' histograms."""
    return forest(fold, histograms(fold.cells), fold.label_N, fold.side_N)


def histograms(cells: CellSet) -> NDArray[np.float32]:
    """(N, H) of every cell."""
    return np.stack([colour_histogram(image) for image in cells.image_NSS3])


def forest(
    fold: Fold, colour: NDArray[np.float32], label: NDArray[np.int64], side: NDArray[np.str_]
) -> ColourFloor:
    """A forest on histograms of the training side, of cells or of images."""
    train = side == "train"
    trees = ColourFloor(fold.config.evaluate.floor_trees, seed=fold.seed % 2**32)
    return trees.fit(colour[train], label[train])


CELL_ARMS: dict[str, Callable[[Fold], Prob]] = {
    "colour of the cells alone": cell_colours,
    "resnet18": lambda fold: linear(fold, "resnet18"),
    "backbone": lambda fold: linear(fold, own(fold)),
    "backbone, HDLC": lambda fold: hdlc(fold, fold.features(own(fold)), select=False),
    "+ GraFR": lambda fold: hdlc(fold, fold.reconstructed(own(fold)), select=False),
    "+ selection": lambda fold: hdlc(fold, fold.features(own(fold)), select=True),
    "+ both (the method)": lambda fold: hdlc(fold, fold.reconstructed(own(fold)), select=True),
    "backbone, LeuGAN": with_gan,
}
FLOOR = "colour alone"


def scores(fold: Fold, arm: str) -> dict[str, object]:
    """Test images' probabilities, the operating point from validation images, seconds of CPU."""
    begun = time.process_time()
    fold.notes = {}
    prob_M = floor(fold) if arm == FLOOR else images(fold, answer(fold, arm))
    val, test = fold.side_M == "val", fold.side_M == "test"
    return {
        "arm": arm,
        "fold": fold.number,
        "threshold": steady_threshold(fold.cells.label_M[val], prob_M[val]),
        "image": np.flatnonzero(test).tolist(),
        "prob": prob_M[test].round(6).tolist(),
        "val_image": np.flatnonzero(val).tolist(),
        "val_prob": prob_M[val].round(6).tolist(),
        "cpu": time.process_time() - begun,
        "notes": fold.notes,
    }


def answer(fold: Fold, arm: str) -> Prob:
    """An arm's, or that of the backbone of this name alone."""
    return CELL_ARMS[arm](fold) if arm in CELL_ARMS else linear(fold, arm)


def images(fold: Fold, prob_N: Prob) -> Prob:
    """An image's probability from its cells'."""
    return aggregate_cells(prob_N, fold.cells.of_N, len(fold.cells.label_M), fold.config.evaluate.aggregate)


def floor(fold: Fold) -> Prob:
    """The forest on colour histograms of whole images."""
    return image_forest(fold).predict_proba(fold.cells.colour_MH)


def image_forest(fold: Fold) -> ColourFloor:
    """The forest that has learnt the training images' histograms."""
    return forest(fold, fold.cells.colour_MH, fold.cells.label_M, fold.side_M)
