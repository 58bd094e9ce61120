from __future__ import annotations

from dataclasses import replace

import pytest

from cotray.evaluation import wording
from cotray.evaluation.report_data import ReportData

DATA = ReportData(
    dataset="folder",
    metrics={"balanced_accuracy": 0.941, "auroc": 0.982, "recall": 0.95, "specificity": 0.932, "brier": 0.06},
    intervals={"balanced_accuracy": (0.902, 0.971), "brier": (0.04, 0.08)},
    floor_metrics={"balanced_accuracy": 0.81, "brier": 0.16},
    floor_intervals={"balanced_accuracy": (0.76, 0.86), "brier": (0.12, 0.2)},
    group_unit="subjects",
    threshold=0.42,
    test_size=1234,
    test_groups=21,
)


def headings(data: ReportData) -> list[str]:
    return [heading for heading, _ in wording.banners(data)]


def test_the_verdict_says_how_many_how_well_and_how_sure() -> None:
    assert wording.verdict(DATA) == (
        "On 1,234 held-out images from 21 subjects that training never saw, "
        "balanced accuracy is 0.941 (95% interval 0.902 to 0.971)."
    )


def test_the_verdict_keeps_to_what_is_known() -> None:
    bare = ReportData(dataset="folder", metrics={"auroc": 0.5})
    assert wording.verdict(bare) == "On held-out images that training never saw, AUROC is 0.500."
    assert wording.verdict(ReportData(dataset="folder", metrics={})) == "Nothing was scored."


def test_the_verdict_of_a_leaky_split_does_not_claim_unseen_subjects() -> None:
    assert "never saw" not in wording.verdict(replace(DATA, split_mode="leaky"))


def test_the_verdict_of_a_phantom_says_so() -> None:
    assert "1,234 held-out phantom images" in wording.verdict(replace(DATA, phantom=True))


def test_the_confidence_is_named_as_it_was_asked_for() -> None:
    assert "(90% interval" in wording.verdict(replace(DATA, confidence=0.9))


def test_the_headline_is_the_metric_asked_for_or_the_first_there_is() -> None:
    assert wording.lead_metric(replace(DATA, headline="auroc")) == "auroc"
    assert wording.lead_metric(replace(DATA, headline="f1")) == "balanced_accuracy"


def test_the_operating_point_is_in_words_or_absent() -> None:
    said = wording.operating_point(DATA)
    assert "threshold at 0.42" in said
    assert "finds 95.0% of the malignant images and calls 93.2% of the normal ones normal" in said
    assert wording.operating_point(replace(DATA, metrics={"recall": 1.0})) == ""


@pytest.mark.parametrize(
    ("floor", "side", "words"),
    [
        ((0.76, 0.86), wording.ABOVE, "do not overlap"),
        ((0.76, 0.902), wording.SAME, "does not show"),
        ((0.91, 0.93), wording.SAME, "does not show"),
        ((0.88, 0.99), wording.SAME, "does not show"),
        ((0.98, 1.0), wording.BELOW, "does better"),
    ],
)
def test_colour_alone_is_judged_by_the_intervals(floor: tuple[float, float], side: str, words: str) -> None:
    middle = sum(floor) / 2
    data = replace(
        DATA,
        floor_metrics={"balanced_accuracy": middle},
        floor_intervals={"balanced_accuracy": floor},
    )
    found = wording.compare_with_floor(data)
    assert found is not None and found.side == side and words in found.sentence
    figures = f"{middle:.3f} ({floor[0]:.3f} to {floor[1]:.3f})"
    assert figures in found.sentence and figures in found.short
    assert "0.941 (0.902 to 0.971)" in found.sentence


def test_where_lower_is_better_below_the_floor_is_above_it() -> None:
    data = replace(DATA, headline="brier")
    found = wording.compare_with_floor(data)
    assert found is not None and found.side == wording.ABOVE
    swapped = replace(data, intervals=data.floor_intervals, floor_intervals=data.intervals)
    found = wording.compare_with_floor(swapped)
    assert found is not None and found.side == wording.BELOW


def test_without_both_intervals_nothing_is_judged() -> None:
    assert wording.compare_with_floor(replace(DATA, intervals={})) is None
    assert wording.compare_with_floor(replace(DATA, floor_intervals={})) is None
    assert wording.compare_with_floor(replace(DATA, floor_metrics={})) is None


def test_the_leak_gap_is_the_difference_of_both_splits() -> None:
    data = replace(DATA, leaky_metrics={"balanced_accuracy": 0.991})
    said = wording.leak_gap(data)
    assert "0.991" in said and "+0.050" in said and "0.941" in said
    assert wording.leak_gap(DATA) == "" and wording.leak_gap(replace(data, split_mode="leaky")) == ""


def test_an_honest_and_complete_run_has_no_banner() -> None:
    assert wording.banners(DATA) == []


def test_banners_say_what_must_be_known_first() -> None:
    assert headings(replace(DATA, phantom=True)) == ["Phantom"]
    assert headings(replace(DATA, split_mode="leaky")) == ["Leaky split"]
    assert headings(replace(DATA, test_groups=9)) == ["Few groups"]
    assert headings(replace(DATA, test_groups=10)) == []
    ((heading, text),) = wording.banners(replace(DATA, without_cell=3))
    assert heading == "No cell found" and "3 of 1,237 test images" in text


def test_warnings_of_stages_become_banners_and_other_notes_stay_notes() -> None:
    data = replace(DATA, notes=["held out: fine", "WARNING: served answers differ"])
    assert wording.banners(data) == [("Warning", "served answers differ")]
    assert wording.plain_notes(data) == ["held out: fine"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (8040, "2 h 14 min"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert wording.duration(seconds) == text
