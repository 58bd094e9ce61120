"""The shortcut audit on made-up numbers: what tells is found, named and located; what does not, is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cotray.errors import ClassError
from cotray.evaluation import audit_wording as words
from cotray.evaluation.probes import GRID
from cotray.evaluation.shortcuts import Probe, ShortcutAudit, audit_shortcuts, odd_corners, standing_out

N, FEATURES = 240, 13
LABEL = np.arange(N) // 3 % 2
GROUP = np.asarray([f"g{i // 3}" for i in range(N)])
TEST = np.arange(N) >= 150
Floats = NDArray[np.float32]


def noise(width: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(N, width)).astype(np.float32)


def grid(*hot: tuple[int, int]) -> Floats:
    """Noise, but for cells (y, x) that are brighter in malignant images."""
    values = noise(GRID * GRID * FEATURES).reshape(N, GRID, GRID, FEATURES)
    for y, x in hot:
        values[:, y, x, 0] += 3 * LABEL
    return values.reshape(N, -1)


def audit(**probes: Floats) -> ShortcutAudit:
    return audit_shortcuts({"grid": grid(), **probes}, LABEL, GROUP, TEST, bootstrap=200)


@pytest.fixture(scope="module")
def found() -> dict[str, Probe]:
    turned = noise(1, 4) * 0.1 + np.where(TEST, 1 - LABEL, LABEL)[:, None]
    told = {
        "file_size": 100 + 5 * LABEL[:, None] + noise(1, 1),
        "dimensions": noise(2, 2),
        "metadata": np.full((N, 6), 7.0),
        "colour": noise(1, 3) + 0.8 * LABEL[:, None],
        "background": turned,
    }
    return {probe.name: probe for probe in audit(**{k: np.float32(v) for k, v in told.items()}).probes}


def test_a_file_size_that_differs_by_class_gives_it_away(found: dict[str, Probe]) -> None:
    probe = found["file_size"]
    assert probe.auroc > 0.97 and probe.gives_away and probe.above_chance
    assert "The class can be told from the file's size alone (AUROC" in words.probe_verdict(probe)
    assert words.probe_cure(probe)


def test_what_says_a_little_is_told_apart_from_what_gives_away(found: dict[str, Probe]) -> None:
    probe = found["colour"]
    assert probe.above_chance and not probe.gives_away
    assert "alone says" in words.probe_verdict(probe)


def test_noise_is_no_better_than_chance(found: dict[str, Probe]) -> None:
    probe = found["dimensions"]
    assert probe.interval is not None and probe.interval[0] < 0.5 < probe.interval[1]
    assert "cannot be told" in words.probe_verdict(probe) and words.probe_cure(probe) == ""


def test_what_is_the_same_everywhere_is_said_so(found: dict[str, Probe]) -> None:
    probe = found["metadata"]
    assert probe.constant and probe.auroc == 0.5
    assert "the same in every image" in words.probe_verdict(probe)


def test_forests_learn_from_the_training_side_only(found: dict[str, Probe]) -> None:
    """A number that means the opposite on the test side is answered wrongly, every time."""
    assert found["background"].auroc < 0.05


def test_probes_without_numbers_are_left_out_and_the_order_is_the_reports(found: dict[str, Probe]) -> None:
    assert list(found) == ["file_size", "dimensions", "metadata", "background", "colour"]


def test_the_same_seed_gives_the_same_figures() -> None:
    one, again = (audit(colour=noise(4)) for _ in range(2))
    assert one.probes == again.probes and np.array_equal(one.grid_GG, again.grid_GG)


@pytest.mark.parametrize("cells", [[(9, 9)], [(9, 8), (9, 9), (8, 9)], [(0, 0), (9, 9)]])
def test_the_part_of_the_edge_that_tells_is_located(cells: list[tuple[int, int]]) -> None:
    made = {"grid": grid(*cells), "bottom_right": grid(*cells)[:, -FEATURES:], "top_right": noise(4)}
    found = audit_shortcuts(made, LABEL, GROUP, TEST, bootstrap=200)
    for y, x in cells:
        assert found.grid_GG[y, x] > 0.9
        assert any(x0 * 10 <= x < x1 * 10 and y0 * 10 <= y < y1 * 10 for x0, y0, x1, y1 in found.regions)
    assert found.grid_GG[4, 4] < 0.8
    top, bottom = found.probes
    assert (top.name, bottom.name) == ("top_right", "bottom_right")
    assert bottom.gives_away and bottom.region in found.regions and not top.telling
    setting = words.probe_cure(bottom, masked=[(0.0, 0.0, 0.1, 0.1)])
    assert "Blank it with --set ingest.mask_regions=[[0,0,0.1,0.1],[" in setting


def test_each_side_needs_both_classes() -> None:
    for side in (TEST, ~TEST):
        with pytest.raises(ClassError, match="both classes"):
            audit_shortcuts({"grid": grid()}, np.where(side, 1, LABEL), GROUP, TEST)


# ---- what stands out -------------------------------------------------------------------------------


def chart(level: float = 0.55, spread: float = 0.02) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(level, spread, (GRID, GRID))


def test_a_hot_corner_stands_out_as_a_rectangle() -> None:
    map_GG = chart()
    map_GG[9, 7:] = 0.95
    assert standing_out(map_GG) == [(0.7, 0.9, 1.0, 1.0)]


def test_where_everything_tells_nothing_stands_out() -> None:
    assert standing_out(chart(0.93)) == [] and standing_out(chart(0.5)) == []


def test_the_middle_is_never_proposed() -> None:
    map_GG = chart()
    map_GG[3:7, 3:7] = 0.97
    assert standing_out(map_GG) == []


def test_a_whole_frame_is_too_large_to_blank() -> None:
    map_GG = chart()
    map_GG[0], map_GG[-1], map_GG[:, 0], map_GG[:, -1] = 0.9, 0.9, 0.9, 0.9
    assert standing_out(map_GG) == []


def test_several_regions_come_strongest_first() -> None:
    map_GG = chart()
    map_GG[0, 0], map_GG[9, 9], map_GG[0, 9] = 0.9, 0.99, 0.8
    assert standing_out(map_GG) == [(0.9, 0.9, 1.0, 1.0), (0.0, 0.0, 0.1, 0.1), (0.9, 0.0, 1.0, 0.1)]


def test_weaker_neighbours_belong_to_what_stands_out_and_alone_do_not() -> None:
    map_GG = np.asarray([0.72, 0.75, 0.78])[np.indices((GRID, GRID)).sum(axis=0) % 3]
    map_GG[9, 9], map_GG[9, 8], map_GG[0, 0] = 0.95, 0.835, 0.835
    assert standing_out(map_GG) == [(0.8, 0.9, 1.0, 1.0)]


@pytest.mark.parametrize(
    ("auroc", "interval", "found"),
    [(0.98, (0.95, 0.99), 1), (0.98, (0.9, 0.99), 0), (0.85, (0.99, 0.99), 0), (0.98, None, 0)],
)
def test_a_corner_far_above_the_others_is_odd(
    auroc: float, interval: tuple[float, float] | None, found: int
) -> None:
    others = [Probe(name, 0.91, (0.8, 0.95), 0.8) for name in ("top_left", "bottom_right", "bottom_left")]
    odd = odd_corners([*others, Probe("top_right", auroc, interval, 0.9)])
    assert odd == [(0.8, 0.0, 1.0, 0.2)][:found]


# ---- words -----------------------------------------------------------------------------------------

PROBE = Probe("bottom_right", 0.98, (0.95, 0.99), 0.93, region=(0.8, 0.9, 1.0, 1.0))


def test_a_perfect_figure_of_few_groups_is_named_and_doubted() -> None:
    probe = replace(PROBE, auroc=1.0, interval=(0.4, 1.0))
    said = words.probe_verdict(probe)
    assert probe.telling and "can be told" in said and "too few groups to be sure" in said
    assert "too few groups" in words.probe_verdict(replace(PROBE, interval=None))


def test_findings_name_the_corner_and_the_setting() -> None:
    audit = ShortcutAudit((PROBE,), chart(), ((0.8, 0.9, 1.0, 1.0),), 150, 90, 30)
    said = " ".join(words.shortcut_findings(audit))
    assert "1 of 1 probes" in said and "90 test images of 30 groups" in said
    assert "told from the bottom-right corner alone (AUROC 0.980 (95% interval 0.950 to 0.990))" in said
    assert "--set ingest.mask_regions=[[0.8,0.9,1,1]]" in said
    without = ShortcutAudit((replace(PROBE, region=None),), chart(), (), 150, 90, 30)
    assert "would not help" in " ".join(words.shortcut_findings(without))
