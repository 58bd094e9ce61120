"""The pages of an audit: alone, and as a section of an evaluation's report."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from pages import HOSTILE, PICTURE, Page

from cotray import __version__
from cotray.evaluation import audit_wording as words
from cotray.evaluation import wording
from cotray.evaluation.audit_figures import giveaway_figure, probes_figure
from cotray.evaluation.audit_report import Audit, as_json, render_audit
from cotray.evaluation.leaks import AuditImage, audit_leaks
from cotray.evaluation.report import ReportData, render_report
from cotray.evaluation.shortcuts import Probe, ShortcutAudit

BARE = ReportData(dataset="folder", metrics={"balanced_accuracy": 0.9})
CORNER = (0.8, 0.9, 1.0, 1.0)
CONFLICT = [
    AuditImage("a/1.png", "x", 5, "sick", 1, "p1", "fold_0", "train"),
    AuditImage("b/1.png", "y", 4, "well", 0, "p2", "fold_1", "test"),
]
COPIES = [AuditImage(f"a/{n}.png", "z", 0xFFFF << 40, "sick", 1, "p3", "fold_0", "val") for n in range(6)]
LEAKS = audit_leaks([*CONFLICT, *COPIES, AuditImage("c", "c", 2**63 - 1, "well", 0)], 6)
PROBES = (
    Probe("file_size", 0.55, (0.48, 0.62), 0.5),
    Probe("metadata", 0.5, (0.5, 0.5), 0.5, constant=True),
    Probe("bottom_right", 0.98, (0.95, 0.99), 0.93, region=CORNER),
    Probe("colour", 0.8, (0.7, 0.9), 0.7),
)
SHORTCUTS = ShortcutAudit(PROBES, np.full((10, 10), 0.6), (CORNER,), 150, 90, 30)
AUDIT = Audit(LEAKS, SHORTCUTS, labelled=5000, strips=[PICTURE, PICTURE])
CLEAN = Audit(audit_leaks(COPIES[:1], 6), replace(SHORTCUTS, probes=PROBES[:2], regions=()), labelled=240)


def page(html: str) -> Page:
    found = Page(html)
    assert found.unbalanced == [] and found._open == []
    return found


def test_the_page_says_what_was_found_first() -> None:
    text = page(render_audit(AUDIT, "lab", created="2026-01-30")).text
    verdict = text.index(
        "The class can be told from the bottom-right corner alone; among 9 images there are 2"
    )
    assert verdict < text.index("Warning") < text.index("Leaks and shortcuts", verdict + 200)
    assert "2026-01-30" in text and __version__ in text


def test_clusters_are_counted_and_the_worst_are_shown() -> None:
    found = page(render_audit(AUDIT, "lab"))
    text = found.text
    assert "clusters with both labels 1" in text and "clusters over several published folds 1" in text
    assert "6 of 9 files are exact copies, in 1 groups; 1 pairs of different pictures" in text
    assert text.index("on several sides of the split 2 files: near-duplicates, 2 different") < text.index(
        "6 files: exact"
    )
    assert "a/3.png" in text and "a/4.png" not in text and "and 2 more" in text
    alts = [attrs.get("alt") for tag, attrs in found.tags if tag == "img"]
    assert len(alts) == 4 and all(alts)


def test_probes_have_a_verdict_and_a_cure() -> None:
    text = page(render_audit(AUDIT, "lab")).text
    assert "bottom-right corner alone (AUROC 0.980 (95% interval 0.950 to 0.990)). Blank it with" in text
    assert "--set ingest.mask_regions=[[0.8,0.9,1,1]]" in text
    assert "240 of 5,000 labelled images" in text


def test_what_was_blanked_is_said_and_kept_in_the_proposal() -> None:
    text = page(render_audit(replace(AUDIT, masked=[(0, 0, 0.1, 0.1)]), "lab")).text
    assert "after blanking the regions 0, 0, 0.1, 0.1" in text
    assert "--set ingest.mask_regions=[[0,0,0.1,0.1],[0.8,0.9,1,1]]" in text


def test_a_clean_dataset_has_no_warning() -> None:
    text = page(render_audit(CLEAN, "lab")).text
    assert "cannot be told from any shortcut alone; among 1 images there are no copies" in text
    assert "Warning" not in text and CLEAN.warnings() == []
    assert "No two of the 1 images" in text


def test_without_a_class_on_a_side_shortcuts_are_not_measured() -> None:
    text = page(render_audit(replace(AUDIT, shortcuts=None), "lab")).text
    assert "Not measured" in text and "shortcuts were not measured" in text
    assert as_json(replace(AUDIT, shortcuts=None))["shortcuts"] is None


def test_what_comes_from_outside_is_escaped() -> None:
    rows = [replace(image, id=f"{HOSTILE}{n}", class_name=HOSTILE) for n, image in enumerate(CONFLICT)]
    hostile = replace(AUDIT, leaks=audit_leaks(rows, 6), notes=[HOSTILE])
    for html in (render_audit(hostile, HOSTILE), render_report(replace(BARE, audit=hostile))):
        found = page(html)
        assert "script" not in {tag for tag, _ in found.tags}
        assert not [name for _, attrs in found.tags for name in attrs if name.startswith("on")]
        assert found.text.count(HOSTILE) > 3


def test_the_section_is_part_of_an_evaluations_report() -> None:
    found = page(render_report(replace(BARE, audit=AUDIT)))
    assert found.sections == ["result", "audit"] and "#audit" in found.links()
    assert "Blank it with" in found.text
    assert "audit" not in page(render_report(BARE)).sections


def test_findings_that_undo_figures_are_banners_of_the_report() -> None:
    headings = [text for _, text in wording.banners(replace(BARE, audit=AUDIT))]
    assert any("nearly the same picture with both labels" in text for text in headings)
    assert any("the test side was partly learned" in text for text in headings)
    assert any("bottom-right corner" in text for text in headings)
    assert wording.banners(replace(BARE, audit=CLEAN)) == []


def test_a_leaking_cluster_is_not_called_none() -> None:
    said = " ".join(words.leak_findings(LEAKS))
    assert "No cluster is on two sides" not in said and "1 cluster spans several sides" in said
    assert "No cluster is on two sides" in " ".join(words.leak_findings(audit_leaks(COPIES, 6)))


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (0, "2 files: near-duplicates, 2 different pictures; classes sick, well; subjects p1, p2; "
            "folds fold_0, fold_1; side train and test"),
        (1, "6 files: exact copies; class sick; subject p3; fold fold_0; side val"),
    ],
)  # fmt: skip
def test_a_cluster_in_words(index: int, said: str) -> None:
    assert words.cluster_text(LEAKS.clusters[index]) == said


def test_json_holds_every_figure() -> None:
    told = json.loads(json.dumps(as_json(AUDIT)))
    assert told["leaks"]["exact_groups"] == 1 and told["leaks"]["near_pairs"] == 1
    assert told["leaks"]["clusters"][0]["conflict"] and len(told["leaks"]["clusters"][1]["images"]) == 6
    probe = told["shortcuts"]["probes"]["bottom_right"]
    assert probe["auroc"] == 0.98 and probe["interval"] == [0.95, 0.99] and probe["blank"] == list(CORNER)
    assert told["shortcuts"]["probes"]["file_size"]["blank"] is None
    assert np.shape(told["shortcuts"]["auroc_by_grid_cell"]) == (10, 10)


def test_figures_are_pictures_that_differ_with_what_they_show() -> None:
    one, other = probes_figure(PROBES), probes_figure(PROBES[:2])
    assert one[:4] == other[:4] == b"\x89PNG" and one != other and one == probes_figure(PROBES)
    plain, outlined = (giveaway_figure(SHORTCUTS.grid_GG, regions) for regions in ([], [CORNER]))
    assert plain[:4] == b"\x89PNG" and plain != outlined
    assert probes_figure([Probe("colour", 1.0, None, 1.0)])[:4] == b"\x89PNG"
