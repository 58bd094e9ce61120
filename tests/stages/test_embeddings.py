"""Frozen encoders: embeddings kept in the run, training from them, killed workers."""

from __future__ import annotations

import dataclasses
import functools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from discs import discs as draw_discs
from numpy.typing import NDArray
from small_sam import FROZEN, SIDE, TINY, MortalLearner, frozen_learner

from cotray.config import ComputeConfig, Config, SegmentConfig, TrainConfig
from cotray.fitting.job import Job
from cotray.predictor import build_segmenter
from cotray.runs import Run
from cotray.segmentation._torchvision import ensure_torchvision
from cotray.stages.base import StageRun, Voice
from cotray.stages.embeddings import cache_key, embed_windows
from cotray.stages.sam_checkpoint import require_checkpoint
from cotray.stages.segment_training import embedded, segmenter_job, whole_weights
from cotray.stages.training import fit

pytestmark = pytest.mark.usefixtures("ray_local")
COMPUTE = ComputeConfig(cpus_per_worker=1)


def discs(n: int, seed: int) -> dict[str, NDArray[np.generic]]:
    """Windows with a disc, its mask and its box."""
    return draw_discs(n, seed, TINY)


class Recorder(Voice):
    def __init__(self) -> None:
        self.parts: list[int] = []

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        if what == "embeddings":
            self.parts.append(done)


def stage(place: Path) -> StageRun:
    return StageRun("segment", Run(str(place)), "print", voice=Recorder())


def parts_made(at: StageRun) -> int:
    assert isinstance(at.voice, Recorder)
    return len(at.voice.parts)


def test_embeddings_are_the_encoders_made_once_and_read_by_row(tmp_path: Path) -> None:
    image = discs(40, 0)["image"]
    image[7] = image[3]  # equal windows share an embedding
    at = stage(tmp_path)
    stored = embed_windows(frozen_learner, image, COMPUTE, at)
    with torch.no_grad():
        wanted = frozen_learner().nets["leusam"].embed(torch.from_numpy(image)).embedding_BCTT
    index = np.array([39, 7, 3, 0, 18])
    got = pickle.loads(pickle.dumps(stored))[index]  # as Ray sends it
    assert len(stored) == 40 and got.dtype == np.float16 and got.shape == (5, 64, SIDE // 16, SIDE // 16)
    np.testing.assert_allclose(got, wanted[index].numpy(), atol=2e-3, rtol=2e-3)
    assert np.array_equal(got[1], got[2])
    files = sorted((tmp_path / "segment" / "embeddings").rglob("*.npy"))
    assert sum(len(np.load(file)) for file in files) == 39

    made, times = parts_made(at), [file.stat().st_mtime_ns for file in files]
    files[1].with_suffix(".parquet").unlink()  # a part that a kill left without its mark
    again = embed_windows(frozen_learner, image, COMPUTE, at)
    assert parts_made(at) == made + 1 and np.array_equal(again[index], got)
    kept = [file.stat().st_mtime_ns == before for file, before in zip(files, times, strict=True)]
    assert kept == [True, False, True]


def test_embeddings_are_filed_by_encoder_and_windows() -> None:
    learner, other = frozen_learner(), frozen_learner()
    key = cache_key(learner, ["a", "b"])
    assert key == cache_key(other, ["a", "b"]) != cache_key(other, ["a", "c"])
    with torch.no_grad():
        other.nets["leusam"].mask_decoder.iou_token.weight.add_(1)
        assert cache_key(other, ["a", "b"]) == key, "the decoder does not matter"
        other.nets["leusam"].image_encoder.pos_embed.add_(1)
    assert cache_key(other, ["a", "b"]) != key


def leusam_job(cfg: SegmentConfig, train: Any, valid: Any, marker: str = "") -> Job:
    build = functools.partial(MortalLearner, cfg, 7, marker)
    job = Job("leusam", build, train, valid, cfg.train, seed=5)
    frozen = cfg.variant != "tiny"
    return dataclasses.replace(job, finish=functools.partial(whole_weights, build)) if frozen else job


@pytest.mark.slow
def test_training_from_embeddings_moves_the_decoder_alone_and_keeps_all(tmp_path: Path) -> None:
    at, train, valid = stage(tmp_path), discs(24, 0), discs(8, 1)
    kept = [embedded(frozen_learner, windows, _config(), at) for windows in (train, valid)]
    assert "image" not in kept[0]
    fitted = fit(leusam_job(FROZEN, *kept), COMPUTE, at)
    before = frozen_learner().nets["leusam"].state_dict()
    after = fitted.weights["leusam"]
    assert set(after) == set(before)
    moved = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {"mask_decoder"}
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]


def _config() -> Config:
    return Config(segment=FROZEN, compute=COMPUTE)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("cfg", [TINY, FROZEN], ids=["tiny", "frozen"])
def test_a_killed_worker_changes_nothing(cfg: SegmentConfig, tmp_path: Path) -> None:
    train, valid = discs(24, 0), discs(8, 1)
    ends = []
    for name, marker in (("whole", ""), ("killed", str(tmp_path / "died"))):
        at = stage(tmp_path / name)
        arrays = [train, valid]
        if cfg.variant != "tiny":
            arrays = [embedded(frozen_learner, windows, _config(), at) for windows in arrays]
        ends.append(fit(leusam_job(cfg, *arrays, marker), COMPUTE, at))
    assert (tmp_path / "died").exists(), "the worker was meant to be killed"
    whole, killed = ends
    assert set(whole.weights["leusam"]) == set(killed.weights["leusam"])
    for name, value in whole.weights["leusam"].items():
        assert torch.equal(value, killed.weights["leusam"][name]), name
    losses = [[row["loss"] for row in end.history] for end in ends]
    assert losses[0] == losses[1] and len(losses[0]) == cfg.train.epochs


@pytest.mark.long
@pytest.mark.slow
def test_two_workers_train_leusam_with_points_and_three_masks(tmp_path: Path) -> None:
    cfg = TINY.model_copy(update={"points": 0.5, "masks": "best_of_three"})
    compute = ComputeConfig(train_workers=2, cpus_per_worker=1)
    fitted = fit(leusam_job(cfg, discs(24, 0), discs(8, 1)), compute, stage(tmp_path))
    assert len(fitted.history) == cfg.train.epochs, "a parameter out of the graph stops a worker for ever"
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]


@pytest.mark.long
@pytest.mark.slow
def test_the_true_vit_b_is_fine_tuned_from_its_file(tmp_path: Path) -> None:
    ensure_torchvision()
    from segment_anything import sam_model_registry

    sam = sam_model_registry["vit_b"]()
    path = tmp_path / "sam_vit_b.pth"
    torch.save(sam.state_dict(), path)
    cfg = SegmentConfig(variant="vit_b", checkpoint=str(path), image_size=SIDE, turned_copies=2)
    config = Config(segment=cfg.model_copy(update={"train": TrainConfig(epochs=1, batch_size=4)}))
    config = config.model_copy(update={"compute": COMPUTE})
    require_checkpoint(config)
    job = segmenter_job(config, discs(4, 0), discs(2, 1), stage(tmp_path))
    assert "image" not in job.train and len(job.train["embedding"]) == 8
    weights = fit(job, COMPUTE, stage(tmp_path)).weights["leusam"]
    before = sam.state_dict()
    assert set(weights) == set(before)
    for name, value in weights.items():
        if value.shape == before[name].shape and not name.startswith("mask_decoder."):
            assert torch.equal(value, before[name]), name
    token = "mask_decoder.mask_tokens.weight"
    assert not torch.equal(weights[token], before[token])
    portable_cfg = config.model_copy(update={"segment": cfg.model_copy(update={"checkpoint": None})})
    image = discs(1, 2)["image"][0]
    masks, scores = build_segmenter(portable_cfg, weights).segment(image, [(10, 10, 50, 50)])
    assert masks.shape == (1, SIDE, SIDE) and 0 <= scores[0] <= 1
