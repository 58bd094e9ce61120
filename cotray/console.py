"""What the command line prints: progress, summaries, tables. No logic of the method."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.table import Table

from cotray.config import Config
from cotray.errors import CotrayError, DataError, DatasetNotFoundError
from cotray.runs import Run, StageRecord
from cotray.stages.base import Voice

if TYPE_CHECKING:
    from cotray.predictor import Answer
    from cotray.stages.tune_results import Outcome

out = RichConsole(highlight=False, width=None if sys.stdout.isatty() else 140)
SHOWN = 20
"""Selected features that are named on the screen."""
IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


class Console(Voice):
    """Lines with the time passed; long steps show a line every two seconds, with the time left."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self._shown = 0.0
        self._begun: dict[str, tuple[float, int]] = {}

    def seconds(self) -> float:
        """Seconds since this voice began."""
        return time.perf_counter() - self.started

    def say(self, text: str) -> None:
        """One line for people."""
        out.print(f"[dim]{clock(self.seconds())}[/dim] {escape(text)}", soft_wrap=True)

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Work done so far on a long step."""
        begun, first = self._begun.setdefault(what, (time.perf_counter(), done - 1))
        if time.perf_counter() - self._shown < 2.0 and done < total:
            return
        self._shown = time.perf_counter()
        rate = (self._shown - begun) / max(1, done - first - 1)
        known = first + 1 < done < total  # the first report begins the clock
        left = f"  {clock(rate * (total - done))} left" if known else ""
        self.say(f"  {what} {done}/{total}  {detail}{left}")


def clock(seconds: float) -> str:
    """m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def print_summary(place: str, records: Mapping[str, StageRecord], seconds: float) -> None:
    """What a run came to and where to look."""
    ingest, evaluated = records.get("ingest"), records.get("evaluate")
    out.print()
    place = escape(place)
    if ingest:
        c = ingest.result.counts
        out.print(f"images     {c['in']} in = {c['used']} used + {c['quarantined']} quarantined")
    if evaluated:
        figures = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("held-out", "value", "interval"):
            figures.add_column(heading)
        m = evaluated.result.metrics
        for name in ("accuracy", "balanced_accuracy", "f1", "auroc"):
            if name in m:
                low, high = m.get(f"{name}_low"), m.get(f"{name}_high")
                figures.add_row(name, f"{m[name]:.3f}", f"{low:.3f} - {high:.3f}" if low is not None else "")
        out.print(figures)
        for note in evaluated.result.notes:
            out.print(escape(note), soft_wrap=True)
        out.print(f"report     {place}/evaluate/index.html", soft_wrap=True)
        out.print(f"bundle     {place}/evaluate/bundle", soft_wrap=True)
    out.print(f"time       {clock(seconds)}   more: cotray status {place}", soft_wrap=True)


def print_selection(place: str, run: Run, records: Mapping[str, StageRecord], seconds: float) -> None:
    """What a selection from a table came to and where to look."""
    record = records["select"]
    found = [
        row for row in run.stage("select").read_parquet("features.parquet").to_pylist() if row["selected"]
    ]
    steady = any(row["frequency"] == row["frequency"] for row in found)
    out.print()
    chosen = _table("feature", "score", *(("in halves",) if steady else ()))
    for row in sorted(found, key=lambda row: (-row["frequency"] if steady else 0.0, -row["score"]))[:SHOWN]:
        often = (f"{row['frequency']:.0%}",) if steady else ()
        chosen.add_row(escape(row["feature"]), f"{row['score']:.4g}", *often)
    out.print(chosen)
    if len(found) > SHOWN:
        out.print(f"... and {len(found) - SHOWN} more, in selected.txt")
    counts, metrics = record.result.counts, record.result.metrics
    out.print(
        f"selected   {counts['selected']} of {counts['features']} features, "
        f"fitness {metrics['fitness']:.4f}, {counts['evaluations']} evaluations "
        f"in {clock(metrics['search_seconds'])}"
    )
    for note in record.result.notes:
        out.print(escape(note), soft_wrap=True)
    if "compare" in records:
        print_comparison(run.stage("compare").read_json("compare.json"))
    where = escape(place)
    out.print(f"results    {where}/select: selected.txt, mask.npy, features.parquet, *.png", soft_wrap=True)
    if "compare" in records:
        out.print(f"compared   {where}/compare: compare.json, convergence.png", soft_wrap=True)
    out.print(f"time       {clock(seconds)}   more: cotray status {where}", soft_wrap=True)


def print_comparison(rows: Iterable[Mapping[str, Any]]) -> None:
    """Optimizers side by side."""
    table = _table("optimizer", "fitness", "features", "outer error", "evaluations", "seconds")
    for row in rows:
        outer = f"{row['outer_error']:.3f}" if "outer_error" in row else ""
        worth = f"{row['fitness']:.4f}", str(row["features"]), outer
        table.add_row(row["optimizer"], *worth, str(row["evaluations"]), f"{row['seconds']:.1f}")
    out.print(table)


def print_tuning(outcome: Outcome, seconds: float) -> None:
    """What a tuning came to and where to look."""
    from cotray.evaluation.tune_report import show

    out.print()
    shown = _table("setting", "given", "best", "importance")
    for key in sorted(outcome.given, key=lambda key: -outcome.importance.get(key, 0.0)):
        weight = f"{outcome.importance[key]:.2f}" if key in outcome.importance else ""
        values = (escape(show(params[key])) for params in (outcome.given, outcome.best.params))
        shown.add_row(key, *values, weight)
    out.print(shown)
    figures = outcome.best.figures
    out.print(f"trials     {outcome.states}")
    out.print(f"best       trial {outcome.best.number}: error {figures['error']:.3f} outside of its folds")
    if outcome.held:
        held = _table("on groups no trial saw", "error", "spread", "features", "all features", "best filter")
        for name, side in (("settings given", outcome.held.given), ("best settings", outcome.held.best)):
            errors = (f"{value:.3f}" for value in (side.all_error, side.filter_error))
            held.add_row(name, f"{side.error:.3f}", f"{side.spread:.3f}", f"{side.features:.1f}", *errors)
        out.print(held)
    out.print(escape(outcome.verdict), soft_wrap=True)
    where = escape(outcome.folder.uri)
    out.print(f"settings   {where}/best.yaml, for --config of cotray select and cotray run", soft_wrap=True)
    out.print(f"report     {where}/report.html", soft_wrap=True)
    out.print(f"time       {clock(seconds)}", soft_wrap=True)


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def print_status(run: Run) -> None:
    """Stages of a run: done or not, seconds, counts, MLflow ids, places."""
    from cotray.cli import STAGE_SUMMARIES

    table = Table(title=escape(run.folder.uri), title_justify="left", box=None, header_style="dim")
    for heading in ("stage", "state", "time", "finished", "what", "where"):
        table.add_column(heading, overflow="fold")
    for name in run.note().get("stages", STAGE_SUMMARIES):
        record = run.record(name)
        if record is None:
            begun = run.stage(name).exists("started.json")
            table.add_row(name, "[yellow]begun[/yellow]" if begun else "[dim]not yet[/dim]", "", "", "", "")
            continue
        known = {**record.result.counts, **record.result.metrics}
        what = ", ".join(f"{k} {round(known[k], 3)}" for k in TOLD.get(name, TOLD["select"]) if k in known)
        found = record.result.artifacts
        where = f"{name}/{next((found[key] for key in PLACES if key in found), '')}"
        finished = record.finished.replace("T", " ").removesuffix("Z")
        table.add_row(name, "[green]done[/green]", clock(record.seconds), finished, what, where)
    out.print(table)
    out.print(f"mlflow run {run.note().get('mlflow_run_id') or 'none'}")


PLACES = ("report", "bundle", "manifest", "weights", "mask")
"""Which of a stage's artifacts `cotray status` names: the first of these it has."""
TOLD = {
    "ingest": ("in", "used", "quarantined", "groups"),
    "segment": ("cells", "images_without_cell", "test_mask_iou"),
    "synthesize": (
        "synthetic_cells",
        "pixels_pca_kernel",
        "pixels_pca_nearest_ratio",
        "pixels_pca_copy_alarm",
    ),
    "train_backbone": ("epochs", "val_balanced_accuracy"),
    "extract": ("cells", "features"),
    "select": ("selected", "features", "evaluations", "fitness"),
    "classify": ("train_cells", "val_cells", "threshold", "temperature"),
    "evaluate": ("test_images", "balanced_accuracy", "auroc", "set_coverage", "refer_rate"),
}
"""Stage -> the figures that `cotray status` tells."""


def write_phantom(folder: Path, layout: str, subjects: int, per_subject: int, seed: int) -> None:
    """Draw a phantom data set into a new folder."""
    from cotray.data.phantom import phantom_files, phantom_index

    if folder.exists() and any(folder.iterdir()):
        raise DataError("This folder is not empty.", where=folder, cure="Name a new one.")
    specs = phantom_index(layout, subjects, per_subject, seed)
    voice = Console()
    for number, (path, data) in enumerate(phantom_files(specs), 1):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        voice.progress("phantom images", number, len(specs))
    out.print(f"{len(specs)} phantom images in {escape(str(folder))}", soft_wrap=True)


def predict_images(images: Iterable[str], bundle: str, *, as_json: bool, overlay: Path | None) -> int:
    """Answer each image; returns how many could not be answered."""
    from cotray.predictor import Predictor
    from cotray.stages.registry import resolve_bundle

    paths = list(expand(images))
    predictor = Predictor(resolve_bundle(bundle))
    failed = 0
    for path in paths:
        try:
            data = path.read_bytes()
            answer = predictor.predict(data)
        except (CotrayError, OSError) as error:
            failed += 1
            print(f"cotray: {path}: {error}", file=sys.stderr)
            continue
        print(answer_line(path, answer, as_json))
        if overlay is not None:
            write_overlay(overlay / f"{path.stem}.png", data, answer, predictor.config)
    return failed


def answer_line(path: Path, answer: Answer, as_json: bool) -> str:
    """One line per image, for people or machines."""
    if as_json:
        return json.dumps({"image": str(path), **answer.as_dict()})
    shown = "  -  " if answer.probability is None else f"{answer.probability:.3f}"
    label = f"{answer.label} (refer)" if answer.refer else answer.label
    return f"{path}\t{label}\t{shown}\tbox {answer.box}\tmodel {answer.model_version}"


def expand(images: Iterable[str]) -> Iterable[Path]:
    """Files as they are, folders as the images below them. Raises DatasetNotFoundError."""
    for name in images:
        path = Path(name)
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGES)
        elif path.exists():
            yield path
        else:
            raise DatasetNotFoundError("There is no such image.", where=name, cure="Check the path.")


def write_overlay(target: Path, data: bytes, answer: Answer, config: Config) -> None:
    """The image with each cell's box and probability drawn in."""
    from cotray.data.decode import encode_png
    from cotray.evaluation.figures import overlay
    from cotray.predictor import decode

    rgb = decode(data, config)
    boxes = [tuple(cell["box"]) for cell in answer.cells]
    texts = [f"{cell['probability']:.2f}" for cell in answer.cells]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(encode_png(overlay(rgb, [], boxes, texts)))
