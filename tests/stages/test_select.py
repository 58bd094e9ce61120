"""The select stage on features drawn here: who judges the masks, and what is told of it. No Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cotray import manifest
from cotray.config import load_config
from cotray.runs import Run, StageRecord, StageResult
from cotray.stages import select
from cotray.stages.base import StageRun, Voice
from cotray.stages.weights import array_bytes

KNOWN, TELLS = 3, 7
"""A feature that training cells are told by, and no others; one that tells all."""


class Heard(Voice):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def extracted(home: Path, val_classes: tuple[int, ...] = (0, 1)) -> Run:
    """A run whose extract stage is done: 80 training cells, 40 for validation, 20 to be tested."""
    rng = np.random.default_rng(0)
    label, split = np.arange(140) % 2, np.repeat(["train", "val", "test"], [80, 40, 20])
    label[(split == "val") & ~np.isin(label, val_classes)] = val_classes[0]
    feat = rng.normal(size=(140, 12)).astype(np.float32)
    feat[:, TELLS] += 5 * label
    feat[split == "train", KNOWN] = 9 * label[split == "train"]
    rows: list[dict[str, object]] = [
        {"id": f"{i}#0", "image_id": f"{i}", "source": "real", "label": int(label[i]), "group": f"g{i // 2}"}
        | {"split": str(split[i]), "status": "used"}
        for i in range(140)
    ]
    run = Run(str(home))
    run.stage("extract").write_parquet("manifest.parquet", manifest.light(manifest.table(rows)))
    run.stage("extract").write_bytes("features.npy", array_bytes(feat))
    run.complete(StageRecord("extract", "print", 0.0, "now", StageResult()))
    return run


def selected(run: Run, *more: str) -> tuple[StageResult, np.ndarray[tuple[int], np.dtype[np.bool_]], Heard]:
    quick = ("sca.agents=6", "sca.iterations=6", "abhc.steps=4", "select.evaluator=serial")
    heard = Heard()
    at = StageRun("select", run, "print", voice=heard)
    result = select.run(load_config(overrides=[*quick, *more]), at)
    return result, np.load(Path(run.folder.uri.removeprefix("file://")) / "select" / "mask.npy"), heard


def test_validation_cells_judge_what_training_cells_teach(tmp_path: Path) -> None:
    result, mask, _ = selected(extracted(tmp_path))
    assert mask[TELLS] and not mask[KNOWN]
    assert result.metrics["asked_error"] <= result.metrics["asked_all_error"]
    assert "outer_error" not in result.metrics and "gap" not in result.metrics
    assert "on the validation samples that chose the mask (too good for that)" in result.notes[0]
    assert result.counts["selected"] == mask.sum()


def test_or_training_cells_judge_and_validation_cells_tell_the_gap(tmp_path: Path) -> None:
    result, mask, _ = selected(extracted(tmp_path), "select.ask=training")
    assert mask[KNOWN], "what is known by heart has no error among training cells"
    assert result.metrics["inner_error"] == 0 and "asked_error" not in result.metrics
    assert result.metrics["gap"] == pytest.approx(result.metrics["outer_error"])


def test_without_validation_cells_of_a_class_training_cells_judge(tmp_path: Path) -> None:
    result, mask, heard = selected(extracted(tmp_path, val_classes=(1,)))
    assert heard.said[0] == "no validation cell is of class 0: training cells judge the masks"
    assert mask[KNOWN] and "gap" in result.metrics


def test_members_and_the_paper_preset(tmp_path: Path) -> None:
    result, mask, _ = selected(extracted(tmp_path), "select.members=2", "select.rule=consensus")
    assert mask[TELLS] and 0 <= result.metrics["jaccard"] <= 1
    assert load_config("paper").select.ask == "training"
