"""The report of an audit alone: one self-contained HTML page, without scripts and without a network address.

The same section stands in every evaluation's report.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Template

from cotray import __version__
from cotray.evaluation import audit_wording as words
from cotray.evaluation.audit_figures import giveaway_figure, probes_figure
from cotray.evaluation.leaks import Cluster, LeakAudit
from cotray.evaluation.page import make_environment
from cotray.evaluation.shortcuts import PROBES, ShortcutAudit
from cotray.imaging.regions import Fractions

SHOWN = 8
"""Clusters that are shown with pictures at most."""


@dataclass(frozen=True)
class Audit:
    """Leaks and shortcuts of a dataset under one split."""

    leaks: LeakAudit
    shortcuts: ShortcutAudit | None
    """None where a side lacks a class."""
    labelled: int = 0
    """Labelled images, of which the shortcut audit looked at some."""
    split_mode: str = "disjoint"
    masked: Sequence[Fractions] = ()
    """Regions that were blanked before anything was looked at (ingest.mask_regions)."""
    strips: Sequence[bytes] = ()
    """A picture (PNG) of each of the first clusters."""
    confidence: float = 0.95
    notes: Sequence[str] = ()

    @property
    def shown(self) -> list[tuple[bytes, Cluster, str]]:
        """(picture, cluster, what it spans) of the most suspicious clusters."""
        pairs = zip(self.strips, self.leaks.clusters, strict=False)
        return [(png, cluster, words.cluster_text(cluster)) for png, cluster in pairs]

    @property
    def looked(self) -> int:
        """Images that the shortcut audit looked at."""
        return self.shortcuts.train + self.shortcuts.test if self.shortcuts else 0

    def warnings(self) -> list[str]:
        """What must be known before any figure."""
        return words.warnings_of(self.leaks, self.shortcuts)

    def findings(self) -> list[str]:
        """All findings as sentences."""
        told = words.leak_findings(self.leaks, self.split_mode)
        return told + (words.shortcut_findings(self.shortcuts, self.masked) if self.shortcuts else [])


@functools.cache
def _template() -> Template:
    return make_environment().get_template("audit.html")


def render_audit(
    audit: Audit, dataset: str, split_rows: Sequence[Mapping[str, str | int]] = (), created: str = ""
) -> str:
    """The page of an audit alone, as HTML text; write it as UTF-8."""
    return _template().render(
        audit=section(audit),
        dataset=dataset,
        verdict=words.headline(audit.leaks, audit.shortcuts),
        warnings=audit.warnings(),
        split_rows=split_rows,
        split_mode=audit.split_mode,
        created=created,
        version=__version__,
    )


def section(audit: Audit) -> dict[str, Any]:
    """What ``audit_section.html`` shows."""
    shortcuts = audit.shortcuts
    return {
        "leaks": words.leak_findings(audit.leaks, audit.split_mode),
        "spans": _spans(audit.leaks),
        "by_bits": list(enumerate(audit.leaks.near_by_bits)),
        "shown": audit.shown,
        "more": max(0, len(audit.leaks.clusters) - len(audit.shown)),
        "shortcuts": words.shortcut_findings(shortcuts, audit.masked) if shortcuts else [],
        "probes": _probes(audit) if shortcuts else [],
        "bars": probes_figure(shortcuts.probes) if shortcuts else b"",
        "map": giveaway_figure(shortcuts.grid_GG, shortcuts.regions) if shortcuts else b"",
        "labelled": audit.labelled,
        "looked": audit.looked,
        "masked": [", ".join(f"{value:g}" for value in region) for region in audit.masked],
        "notes": audit.notes,
    }


def _spans(leaks: LeakAudit) -> dict[str, int]:
    if not leaks.clusters:
        return {}
    return {
        "groups of exact copies": leaks.exact_groups,
        "pairs of near-duplicates": leaks.near_pairs,
        "clusters of either": len(leaks.clusters),
        "clusters with both labels": leaks.count("conflict"),
        "clusters over several classes": leaks.count("classes"),
        "clusters over several subjects": leaks.count("subjects"),
        "clusters over several published folds": leaks.count("folds"),
        "clusters over several sides of this split": leaks.count("leaks"),
    }


def _probes(audit: Audit) -> list[tuple[str, str, str]]:
    """(what, verdict, what to do) of each probe."""
    probes = audit.shortcuts.probes if audit.shortcuts else ()
    return [
        (PROBES[p.name], words.probe_verdict(p, audit.confidence), words.probe_cure(p, audit.masked))
        for p in probes
    ]


def as_json(audit: Audit) -> dict[str, Any]:
    """Everything in figures, for other programs."""
    leaks, shortcuts = audit.leaks, audit.shortcuts
    return {
        "split_mode": audit.split_mode,
        "mask_regions": [list(region) for region in audit.masked],
        "findings": audit.findings(),
        "warnings": audit.warnings(),
        "leaks": {
            "images": leaks.images,
            "max_bits": leaks.max_bits,
            "exact_groups": leaks.exact_groups,
            "exact_images": leaks.exact_images,
            "near_pairs": leaks.near_pairs,
            "near_pairs_by_bits": list(leaks.near_by_bits),
            "clusters": [_cluster(cluster) for cluster in leaks.clusters],
        },
        "shortcuts": _shortcuts(audit) if shortcuts else None,
    }


def _cluster(cluster: Cluster) -> dict[str, Any]:
    return {
        "images": cluster.ids,
        "pictures": cluster.pictures,
        "classes": cluster.classes,
        "conflict": cluster.conflict,
        "subjects": cluster.subjects,
        "folds": cluster.folds,
        "sides": cluster.sides,
    }


def _shortcuts(audit: Audit) -> Mapping[str, Any]:
    assert audit.shortcuts is not None
    found = audit.shortcuts
    return {
        "labelled": audit.labelled,
        "train": found.train,
        "test": found.test,
        "test_groups": found.test_groups,
        "probes": {
            probe.name: {
                "auroc": probe.auroc,
                "interval": list(probe.interval) if probe.interval else None,
                "balanced_accuracy": probe.balanced_accuracy,
                "above_chance": probe.above_chance,
                "gives_the_class_away": probe.gives_away,
                "same_in_every_image": probe.constant,
                "blank": list(probe.region) if probe.region and probe.telling else None,
            }
            for probe in found.probes
        },
        "auroc_by_grid_cell": [[round(float(value), 4) for value in row] for row in found.grid_GG],
        "blank": [list(region) for region in found.regions],
    }
