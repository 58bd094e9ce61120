"""`cotray datasets audit`: ingest, then the audit of what was ingested; nothing else is run."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from cotray import manifest
from cotray.config import Config
from cotray.evaluation.audit_report import render_audit
from cotray.runs import Run, StageRecord, StageResult, fingerprint, now
from cotray.stages.auditing import audit_images, metrics_of
from cotray.stages.base import Stage, StageRun, Voice
from cotray.stages.pipeline import Request, fingerprints, is_complete, run_pipeline, run_stage
from cotray.tracking import Tracker


@dataclass(frozen=True)
class AuditRequest:
    """What is asked of `cotray datasets audit`."""

    out: str
    """Folder or URI: a run with its ingest, and the audit beside it."""
    config: Config
    force: bool = False
    voice: Voice = field(default_factory=Voice)
    verbose: bool = False


def run_audit(request: AuditRequest) -> StageRecord:
    """Ingest, then audit; what is done already is skipped. Raises CotrayError."""
    config = request.config
    asked = Request(request.out, config, until="ingest", voice=request.voice, verbose=request.verbose)
    run_pipeline(asked)
    run, above = Run(request.out), fingerprints(config)["ingest"]
    print_ = fingerprint(STAGE.name, STAGE.version, STAGE.determinants(config), [above])
    if is_complete(run, STAGE.name, {STAGE.name: print_}) and not request.force:
        return run.need(STAGE.name)
    if request.force:
        run.forget([STAGE.name])
    return run_stage(STAGE, asked, run, print_, Tracker())


def run(config: Config, at: StageRun) -> StageResult:
    """Write the audit of an ingested dataset: index.html and audit.json."""
    found = audit_images(config, at)
    images = at.run.stage("ingest").read_parquet("manifest.parquet")
    page = render_audit(found, config.dataset.name, _split_rows(images), now())
    at.folder.write_bytes("index.html", page.encode())
    counts = {
        "images": found.leaks.images,
        "exact_groups": found.leaks.exact_groups,
        "near_pairs": found.leaks.near_pairs,
        "clusters": len(found.leaks.clusters),
        "clusters_with_both_labels": found.leaks.count("conflict"),
    }
    files = {"report": "index.html", "audit": "audit.json"}
    return StageResult(counts, metrics_of(found), files, found.findings())


def _split_rows(images: pa.Table) -> list[dict[str, str | int]]:
    """Images and groups by side and class."""
    rows: list[dict[str, str | int]] = []
    for side in ("train", "val", "test", "unlabelled"):
        inside = manifest.where(images, split=side)
        for name, count in manifest.count(inside, "class_name").items():
            groups = len(set(manifest.where(inside, class_name=name)["group"].to_pylist()))
            rows.append({"split": side, "class": name, "images": count, "groups": groups})
    return rows


STAGE = Stage(
    name="audit",
    summary="copies in the dataset, and what gives the class away",
    version=1,
    sections=("evaluate", "roi"),
    needs=("ingest",),
    run=run,
)
