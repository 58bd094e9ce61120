"""Evaluate: held-out figures with intervals, the report, the finished bundle, its registration."""

from __future__ import annotations

import dataclasses
from typing import Any

import pyarrow as pa

from cotray import manifest
from cotray.bundle import Bundle, load_bundle, save_bundle
from cotray.config import Config, to_yaml
from cotray.data.decode import encode_png
from cotray.evaluation.report import ReportData, render_report
from cotray.evaluation.wording import WARNING
from cotray.predictor import Predictor
from cotray.runs import StageResult, environment, now
from cotray.stages import pictures
from cotray.stages.auditing import audit_images, metrics_of
from cotray.stages.base import Stage, StageRun
from cotray.stages.ingest import Item, dataset_folder, list_items, read_pixels
from cotray.stages.registry import register
from cotray.stages.scores import Held, Scores, score_floor, score_test
from cotray.stages.trust import trust_figures, trust_note
from cotray.tracking import MlflowTracker

SERVED_SAMPLES = 6
"""Raw test images that are also answered the way a server would, to show that both agree."""
SKEW_ALLOWED = 1e-3
EXPLAINED = 8
"""Cells whose heat maps the report shows."""
EARLIER = ("ingest", "segment", "synthesize", "train_backbone", "extract", "select", "classify")


def run(config: Config, at: StageRun) -> StageResult:
    """Score the test split, write the report and the finished bundle, register it.

    Raises MissingStageError, BundleError, TrackingError.
    """
    draft = load_bundle(at.input("classify").uri + "/bundle")
    at.say("scoring the held-out images, and what colour alone would say of them")
    held = score_test(config, at, draft)
    trusted = trust_figures(config, at, draft, held.cell_prob)
    floor = score_floor(config, at, held.images.id_N)
    audit = audit_images(config, at)
    split = at.run.stage("ingest").read_json("split.json")
    bundle = save_bundle(at.folder / "bundle", _with_facts(draft, held.images, split, trusted))
    raw = _raw_samples(config, held.images)
    skew = serving_skew(bundle, raw, held.images)
    _write_scores(at, held, floor)
    figures = pictures.score_figures(held.images, floor)
    histories, search = pictures.history_figures(at), pictures.search_figure(at)
    curves = {f"history-{name}": png for name, png in histories.items()}
    pictures.log_pictures(at, figures | curves | {"selection": search})
    notes = [*_notes(held, floor, skew), trust_note(trusted, draft), *_warnings(at)]
    data: dict[str, Any] = {
        **_report(config, at, held, floor, bundle),
        **_report_run(config, at),
        **_report_pictures(config, at, held, bundle),
        **figures,
        "audit": audit,
        "histories": histories,
        "selection": search,
        "notes": notes,
        "fingerprints": _prints(at, bundle, split),
    }
    page = render_report(ReportData(**data))
    at.folder.write_bytes("index.html", page.encode())
    at.tracker.artifact("report/index.html", page.encode())
    if isinstance(at.tracker, MlflowTracker):
        notes.append(register(at.tracker, config, at.folder / "bundle", bundle, next(iter(raw.values()))))
    return _result(held, floor, {"serving_skew": skew, **trusted, **metrics_of(audit)}, notes)


def _with_facts(bundle: Bundle, images: Scores, split: dict[str, Any], trusted: dict[str, float]) -> Bundle:
    facts = {
        "split": split["sha256"],
        "split_mode": split["mode"],
        "metrics": images.metrics,
        "intervals": {name: list(pair) for name, pair in images.intervals.items()},
        "trust": trusted,
        "test_images": len(images.id_N),
        "test_groups": len(set(images.group_N.tolist())),
    }
    return dataclasses.replace(bundle, facts=bundle.facts | facts)


# ---- as served -------------------------------------------------------------------------------------


def _raw_samples(config: Config, images: Scores) -> dict[str, bytes]:
    """Encoded raw files of a few test images, by id."""
    wanted = set(images.id_N[:: max(1, len(images.id_N) // SERVED_SAMPLES)][:SERVED_SAMPLES])
    return {item.path: _raw(config, item) for item in list_items(config)[0] if item.path in wanted}


def _raw(config: Config, item: Item) -> bytes:
    if config.dataset.name == "phantom":
        return encode_png(read_pixels(item, config)[0])
    return dataset_folder(config).read_bytes(item.path)


def serving_skew(bundle: Bundle, raw: dict[str, bytes], images: Scores) -> float:
    """Largest difference between a served answer and the staged one that was evaluated."""
    staged = dict(zip(images.id_N, images.prob_N.tolist(), strict=True))
    answers = Predictor(bundle).predict_many(list(raw.values()))
    gaps = [abs((a.probability or 0.0) - staged[name]) for name, a in zip(raw, answers, strict=True)]
    return max(gaps, default=0.0)


# ---- what is kept ----------------------------------------------------------------------------------


def _write_scores(at: StageRun, held: Held, floor: Scores) -> None:
    """Every test image's answer, beside the floor's: for other people's metrics."""
    colour = dict(zip(floor.id_N, floor.prob_N.tolist(), strict=True))
    images = held.images
    columns = {
        "id": images.id_N,
        "group": images.group_N.tolist(),
        "label": images.label_N,
        "probability": images.prob_N,
        "called_malignant": images.prob_N >= images.threshold,
        "probability_colour_alone": [colour[name] for name in images.id_N],
    }
    at.folder.write_parquet("scores.parquet", pa.table(columns))
    figures = {"cotray": _figures(images), "colour_alone": _figures(floor), "cells": held.cell_metrics}
    at.folder.write_json("metrics.json", figures)


def _figures(scores: Scores) -> dict[str, Any]:
    return {"metrics": scores.metrics, "intervals": {k: list(v) for k, v in scores.intervals.items()}}


def _notes(held: Held, floor: Scores, skew: float) -> list[str]:
    notes = [_sentence("held out", held.images), _sentence("colour alone", floor)]
    if held.without_cell:
        notes.append(f"{len(held.without_cell)} test images without a cell have no answer and are not scored")
    if skew > SKEW_ALLOWED:
        notes.append(f"WARNING: served answers differ from evaluated ones by up to {skew:.4f}")
    return notes


def _warnings(at: StageRun) -> list[str]:
    """What the stages before warned of."""
    notes = [note for name in EARLIER for note in at.run.need(name).result.notes]
    return [note for note in notes if note.startswith(WARNING)]


def _sentence(name: str, scores: Scores) -> str:
    shown = [
        f"{metric.replace('_', ' ')} {scores.metrics[metric]:.3f}" + _interval(scores.intervals.get(metric))
        for metric in ("balanced_accuracy", "auroc")
        if metric in scores.metrics
    ]
    groups = len(set(scores.group_N.tolist()))
    return f"{name}: {', '.join(shown)} on {len(scores.id_N)} images of {groups} groups"


def _interval(pair: tuple[float, float] | None) -> str:
    return f" ({pair[0]:.3f} to {pair[1]:.3f})" if pair else ""


def _result(held: Held, floor: Scores, more: dict[str, float], notes: list[str]) -> StageResult:
    images = held.images
    metrics = dict(images.metrics) | more
    for name, (low, high) in images.intervals.items():
        metrics |= {f"{name}_low": low, f"{name}_high": high}
    metrics |= {f"colour_alone_{name}": value for name, value in floor.metrics.items()}
    counts = {"test_images": len(images.id_N), "test_images_without_cell": len(held.without_cell)}
    files = {
        "report": "index.html",
        "bundle": "bundle",
        "scores": "scores.parquet",
        "metrics": "metrics.json",
        "audit": "audit.json",
    }
    return StageResult(counts, metrics, files, notes)


# ---- the report ------------------------------------------------------------------------------------


def _report(config: Config, at: StageRun, held: Held, floor: Scores, bundle: Bundle) -> dict[str, Any]:
    """What was asked, and the answer."""
    images = held.images
    return {
        "dataset": config.dataset.name,
        "metrics": images.metrics,
        "intervals": images.intervals,
        "confidence": config.evaluate.confidence,
        "headline": config.tracking.metric,
        "threshold": images.threshold,
        "run": at.run.folder.uri.rstrip("/").rpartition("/")[2],
        "created": now(),
        "model_version": bundle.version,
        "backbone": config.backbone.name,
        "group_unit": "subjects" if _has_subjects(at) else "blocks of neighbouring or near-duplicate files",
        "test_size": len(images.id_N),
        "test_groups": len(set(images.group_N.tolist())),
        "phantom": config.dataset.name == "phantom",
        "split_mode": config.split.mode,
        "floor_metrics": floor.metrics,
        "floor_intervals": floor.intervals,
        "without_cell": len(held.without_cell),
    }


def _has_subjects(at: StageRun) -> bool:
    rows = at.run.stage("ingest").read_parquet("manifest.parquet")
    return any(value is not None for value in rows["subject"].to_pylist())


def _report_run(config: Config, at: StageRun) -> dict[str, Any]:
    """How the run went: counts, times, settings."""
    ingest, segment = at.run.stage("ingest"), at.run.stage("segment")
    records = {name: at.run.need(name) for name in EARLIER}
    reasons = manifest.count(ingest.read_parquet("quarantine.parquet"), "reason")
    selected = records["select"].result.counts
    segmented = records["segment"].result.metrics
    images, cells = ingest.read_parquet("manifest.parquet"), segment.read_parquet("manifest.parquet")
    return {
        "found": records["ingest"].result.counts["in"],
        "used": records["ingest"].result.counts["used"],
        "quarantine": reasons,
        "split_rows": pictures.split_rows(images, cells),
        "segmentation": {k.removeprefix("test_"): v for k, v in segmented.items() if k.startswith("test_")},
        "synthetic_count": records["synthesize"].result.counts["synthetic_cells"],
        "synthetic_quality": records["synthesize"].result.metrics | records["extract"].result.metrics,
        "synthetic_note": pictures.as_sentence(records["synthesize"].result.notes[:1]),
        "features_kept": selected["selected"],
        "features_total": selected["features"],
        "seconds": {name: record.seconds for name, record in records.items()},
        "environment": environment(),
        "config_yaml": to_yaml(config),
    }


def _report_pictures(config: Config, at: StageRun, held: Held, bundle: Bundle) -> dict[str, Any]:
    wrong, shown = (
        pictures.pick_mistakes(held.images),
        pictures.pick_overlays(held.images, config.evaluate.overlays),
    )
    return {
        "mistakes": pictures.samples(at, held, wrong),
        "overlays": pictures.samples(at, held, shown),
        **pictures.synthetic_pictures(at),
        "explanations": pictures.explanations(at, bundle, held, shown[:EXPLAINED]),
    }


def _prints(at: StageRun, bundle: Bundle, split: dict[str, Any]) -> dict[str, str]:
    stages = {name: at.run.need(name).fingerprint for name in EARLIER}
    return {"bundle": bundle.version, "split": split["sha256"], **stages}


STAGE = Stage(
    name="evaluate",
    summary="held-out figures, report, registration in MLflow",
    version=4,
    sections=("evaluate",),
    needs=("classify",),
    run=run,
)
