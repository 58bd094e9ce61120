from __future__ import annotations

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from pages import HOSTILE, PICTURE, Page
from PIL import Image

from cotray.data.decode import encode_png
from cotray.evaluation.figures import confusion_figure
from cotray.evaluation.report import Reference, ReportData, Sample, render_report

FIGURE = confusion_figure([0, 1, 1], [0, 1, 0])
BARE = ReportData(dataset="folder", metrics={"balanced_accuracy": 0.9})
RICH = ReportData(
    dataset="folder",
    metrics={"balanced_accuracy": 0.941, "auroc": 0.982, "brier": 0.06, "accuracy": 0.95},
    intervals={"balanced_accuracy": (0.902, 0.971), "auroc": (0.95, 0.995)},
    floor_metrics={"balanced_accuracy": 0.81, "auroc": 0.9},
    floor_intervals={"balanced_accuracy": (0.76, 0.86)},
    leaky_metrics={"balanced_accuracy": 0.99},
    references=[Reference("Somebody 2024", "accuracy", 0.989, "another split")],
    notes=["a note of a stage", "WARNING: a warning of a stage"],
    run="r1",
    created="2025-01-30",
    model_version="abc",
    backbone="smod",
    test_size=120,
    test_groups=20,
    found=395,
    used=392,
    quarantine={"truncated file": 2, "too small": 1},
    split_rows=[{"split": "train", "class": "malignant", "images": 1500, "cells": 1499}],
    without_cell=1,
    roc=FIGURE,
    confusion=FIGURE,
    reliability=FIGURE,
    probability=FIGURE,
    mistakes=[Sample(PICTURE, "worst.png", truth=1, probability=0.02)],
    overlays=[Sample(PICTURE, "seen.png", truth=0, probability=0.1)],
    explanations=[Sample(PICTURE, "explained.png", truth=1, probability=0.9, beside=PICTURE)],
    segmentation={"mask_iou": 0.9},
    synthetic=FIGURE,
    synthetic_count=75,
    synthetic_quality={"pixels_pca_nearest_ratio": 1.1, "backbone_nearest_ratio": 0.9},
    synthetic_note="75 synthetic cells for the smaller class.",
    synthetic_over_time=FIGURE,
    synthetic_pairs=FIGURE,
    synthetic_distances=FIGURE,
    histories={"backbone": FIGURE},
    selection=FIGURE,
    features_kept=630,
    features_total=2304,
    seconds={"ingest": 4.0, "segment": 91.0},
    environment={"torch": "2.8.0"},
    fingerprints={"split": "ab" * 32},
    config_yaml="seed: 0\n",
)
SECTIONS = ["result", "colour", "answers", "mistakes", "cells", "explanations", "data", "training", "run"]


def page(data: ReportData) -> Page:
    found = Page(render_report(data))
    assert found.unbalanced == [] and found._open == []
    return found


def test_the_verdict_comes_before_every_other_figure() -> None:
    text = page(RICH).text
    verdict = text.index("balanced accuracy is 0.941 (95% interval 0.902 to 0.971)")
    colour = text.index("above what colour alone achieves, 0.810 (0.760 to 0.860)")
    assert verdict < colour < text.index("Research use only") < text.index("Result on the held-out")


def test_a_rich_report_has_every_section_and_links_to_them() -> None:
    found = page(RICH)
    assert found.sections == SECTIONS
    assert [link.removeprefix("#") for link in found.links()] == ["result", *SECTIONS]


def test_a_report_names_the_backbone() -> None:
    assert "backbone: smod. Research use only" in page(RICH).text
    assert "backbone:" not in page(BARE).text


def test_a_bare_report_has_nothing_empty() -> None:
    found = page(BARE)
    assert found.sections == ["result"] and found.links() == ["#result", "#result"]
    tags = [tag for tag, _ in found.tags]
    assert not {"img", "figure", "details", "table", "h3"} & set(tags)
    assert "no interval" in found.text and "None" not in found.text


PARTS = {
    "colour": ["floor_metrics"],
    "answers": ["roc", "confusion", "reliability", "probability"],
    "mistakes": ["mistakes"],
    "cells": ["overlays", "segmentation"],
    "explanations": ["explanations"],
    "data": ["found", "split_rows", "quarantine"],
    "training": ["histories", "selection", "synthetic", "synthetic_note"],
    "run": ["seconds", "environment", "config_yaml", "fingerprints", "notes"],
}


@pytest.mark.parametrize("section", list(PARTS))
def test_a_section_without_its_parts_is_left_out(section: str) -> None:
    absent = {name: getattr(BARE, name) for name in PARTS[section]}
    found = page(replace(RICH, **absent))
    assert section not in found.sections and f"#{section}" not in found.links()


@pytest.mark.parametrize(("section", "part"), [(s, part) for s, parts in PARTS.items() for part in parts])
def test_a_section_stands_with_any_one_of_its_parts(section: str, part: str) -> None:
    given = replace(BARE, used=RICH.used, **{part: getattr(RICH, part)})
    if section == "colour":
        given = replace(given, metrics=RICH.metrics)
    assert page(given).sections == ["result", section]


def test_what_comes_from_outside_is_escaped() -> None:
    sample = Sample(PICTURE, HOSTILE, truth=1, probability=0.1, note=HOSTILE)
    data = replace(
        RICH,
        dataset=HOSTILE,
        run=HOSTILE,
        group_unit=HOSTILE,
        notes=[HOSTILE, f"WARNING: {HOSTILE}"],
        references=[Reference(HOSTILE, HOSTILE, 0.5, HOSTILE)],
        quarantine={HOSTILE: 3},
        split_rows=[{HOSTILE: HOSTILE}],
        mistakes=[sample],
        histories={HOSTILE: FIGURE},
        seconds={HOSTILE: 1.0},
        environment={HOSTILE: HOSTILE},
        config_yaml=HOSTILE,
        split_mode=HOSTILE,
    )
    found = page(data)
    assert "script" not in {tag for tag, _ in found.tags}
    assert not [name for _, attrs in found.tags for name in attrs if name.startswith("on")]
    assert {(attrs["src"] or "")[:11] for tag, attrs in found.tags if tag == "img"} == {"data:image/"}
    assert found.text.count(HOSTILE) > 10, "it is shown as it is, letter by letter"


def test_nothing_is_loaded_from_anywhere() -> None:
    html = render_report(RICH)
    own = re.sub(r"data:image/\w+;base64,[\w+/=]+", "", html)
    assert not re.findall(r"https?:|//[a-z]|@import|url\(|<link|<script|<iframe|base64", own)
    found = page(RICH)
    policy = [a.get("content") for _, a in found.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert all(link.startswith("#") for link in found.links())


def test_every_picture_has_words_for_those_who_do_not_see_it() -> None:
    alts = [attrs.get("alt") for tag, attrs in page(RICH).tags if tag == "img"]
    assert len(alts) == 14 and all(alts)


def test_phantom_and_leaky_split_are_said_at_the_head() -> None:
    text = page(replace(RICH, phantom=True, split_mode="leaky")).text
    head = text[: text.index("Result on the held-out")]
    assert "drawn by a program, without medical meaning" in head
    assert "LEAKY" in text and "must not be quoted as performance" in head
    assert "medical meaning" not in page(RICH).text and "Leaky" not in page(RICH).text


def test_warnings_are_banners_and_notes_are_listed() -> None:
    text = page(RICH).text
    assert text.index("a warning of a stage") < text.index("Result on the held-out")
    assert text.index("a note of a stage") > text.index("How it was run")


def test_counts_in_are_used_plus_quarantined() -> None:
    text = page(RICH).text
    assert "395 files found = 392 used + 3 quarantined" in text
    assert "truncated file 2" in text and "too small 1" in text
    assert "do not add up" not in text
    assert "2 files are neither used nor quarantined" in page(replace(RICH, used=390)).text


def test_figures_stand_with_their_intervals_beside_colour() -> None:
    text = page(RICH).text
    assert "Balanced accuracy 0.941 0.902 to 0.971" in text
    assert "cotray 0.941 (0.902 to 0.971)" in text and "colour 0.810 (0.760 to 0.860)" in text
    assert "Somebody 2024 Accuracy 0.989 0.950 another split" in text


@pytest.mark.parametrize(("value", "low", "high"), [(0.941, 0.902, 0.971), (0.2, 0.0, 0.5), (1.0, 1.0, 1.0)])
def test_bars_stay_inside_their_track(value: float, low: float, high: float) -> None:
    metrics, intervals = {"auroc": value}, {"auroc": (low, high)}
    html = render_report(replace(BARE, metrics=metrics, intervals=intervals, floor_metrics={"auroc": 0.6}))
    spans = re.findall(r'<i style="left:([\d.]+)%;width:([\d.]+)%"></i><u style="left:([\d.]+)%">', html)
    assert len(spans) == 3
    for left, width, at in [map(float, span) for span in spans]:
        assert 0 <= left <= at <= left + width <= 100.01 or width == 0


def test_wrong_answers_are_marked_at_the_threshold() -> None:
    sample = Sample(PICTURE, "a.png", truth=1, probability=0.4)
    assert "wrong answer" in page(replace(BARE, overlays=[sample], threshold=0.5)).text
    assert "wrong answer" not in page(replace(BARE, overlays=[sample], threshold=0.4)).text


def test_large_fields_are_shrunk_for_the_page() -> None:
    field = encode_png(np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8))
    html = render_report(replace(BARE, overlays=[Sample(field, "field.png")]))
    assert len(html) < len(field) / 4
    encoded = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    assert Image.open(io.BytesIO(base64.b64decode(encoded[0]))).size == (720, 540)
    assert '<ul class="cells fields">' in html and '<ul class="cells">' in render_report(RICH)


def test_the_settings_are_kept_letter_by_letter() -> None:
    assert "<pre>seed: 0\n</pre>" in render_report(RICH)


def test_the_same_data_give_the_same_page() -> None:
    assert render_report(RICH) == render_report(RICH)
