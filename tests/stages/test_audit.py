"""The audit of folders on disk: a mark in a corner, copies over classes, files that differ. Real Ray Data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cotray import manifest
from cotray.config import Config, load_config
from cotray.runs import StageRecord
from cotray.stages.audit import AuditRequest, run_audit
from cotray.stages.auditing import some_of
from cotray.stages.base import Voice
from cotray.storage import Folder

pytestmark = pytest.mark.usefixtures("ray_local")
PER_CLASS = 120


class Heard(Voice):
    """What was said."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def say(self, text: str) -> None:
        self.texts.append(text)


def smear(seed: int, sick: bool) -> Image.Image:
    """A picture that nothing but a mark near the bottom-right corner tells the class of."""
    coarse = np.random.default_rng(seed).integers(120, 255, (8, 8, 3), dtype=np.uint8)
    drawn = Image.fromarray(coarse).resize((100, 100), Image.Resampling.BICUBIC)
    drawn.paste((200, 0, 0) if sick else (0, 0, 0), (84, 92, 96, 96))
    return drawn


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("lab")
    for label in ("sick", "well"):
        (place / label).mkdir()
        for number in range(PER_CLASS):
            drawn = smear(number + 1000 * (label == "sick"), label == "sick")
            # Sick ones were stored by other software; that is no matter of pixels.
            told = {"dpi": (72, 72)} if label == "sick" else {}
            drawn.save(place / label / f"{number:03d}.png", compress_level=1, **told)
    (place / "well" / "zz.png").write_bytes((place / "sick" / "000.png").read_bytes())
    return place


def config(root: Path, *more: str) -> Config:
    sets = (
        "dataset.name=folder",
        f"dataset.root={root}",
        "dataset.class_map={sick: 1, well: 0}",
        "split.block=4",
        "tracking.enabled=false",
        "evaluate.bootstrap=100",
        *more,
    )
    return load_config("tiny", overrides=sets)


Done = tuple[StageRecord, dict[str, Any], Folder]


def audit(settings: Config, place: Path, voice: Voice | None = None) -> Done:
    record = run_audit(AuditRequest(str(place), settings, voice=voice or Voice()))
    folder = Folder(str(place)) / "audit"
    return record, folder.read_json("audit.json"), folder


@pytest.fixture(scope="module")
def done(root: Path, tmp_path_factory: pytest.TempPathFactory, ray_local: Iterator[None]) -> Done:
    return audit(config(root), tmp_path_factory.mktemp("audit"))


def test_the_corner_is_found_named_and_proposed_for_blanking(done: Done) -> None:
    probes = done[1]["shortcuts"]["probes"]
    assert probes["bottom_right"]["auroc"] > 0.95 and probes["bottom_right"]["gives_the_class_away"]
    others = [probes[name]["auroc"] for name in ("top_left", "top_right", "bottom_left")]
    assert max(others) < 0.8
    x0, y0, x1, y1 = probes["bottom_right"]["blank"]
    assert x0 <= 0.84 and y0 <= 0.92 and x1 >= 0.96 and y1 >= 0.96 and (x1 - x0) * (y1 - y0) <= 0.1
    assert any("--set ingest.mask_regions=[[" in note for note in done[0].result.notes)


def test_blanking_what_was_proposed_takes_it_away(root: Path, done: Done, tmp_path: Path) -> None:
    (region,) = done[1]["shortcuts"]["blank"]
    _, told, _ = audit(config(root, f"ingest.mask_regions=[{region}]"), tmp_path)
    after = told["shortcuts"]["probes"]
    assert not after["bottom_right"]["gives_the_class_away"] and told["shortcuts"]["blank"] == []
    assert told["mask_regions"] == [region]
    assert after["metadata"]["gives_the_class_away"], "it is about the file, whatever is blanked"


def test_metadata_that_differ_are_found_in_the_file(done: Done) -> None:
    probes = done[1]["shortcuts"]["probes"]
    assert probes["metadata"]["auroc"] == 1.0
    assert probes["dimensions"]["same_in_every_image"]


def test_a_copy_in_the_other_class_is_the_first_finding(done: Done) -> None:
    record, told, folder = done
    assert told["leaks"]["exact_groups"] == 1 and told["leaks"]["images"] == 2 * PER_CLASS + 1
    cluster = told["leaks"]["clusters"][0]
    assert sorted(cluster["images"]) == ["sick/000.png", "well/zz.png"] and cluster["conflict"]
    assert "both normal and malignant" in record.result.notes[0]
    assert record.result.counts["clusters_with_both_labels"] == 1
    page = folder.read_bytes("index.html").decode()
    assert "well/zz.png" in page and page.count("data:image/png") >= 3


def test_the_split_is_the_runs(done: Done) -> None:
    rows = (done[2] / "../ingest").read_parquet("manifest.parquet")
    shortcuts = done[1]["shortcuts"]
    assert shortcuts["test"] == len(manifest.where(rows, split="test"))
    assert shortcuts["train"] + shortcuts["test"] == shortcuts["labelled"] == len(rows)
    assert all(len(cluster["sides"]) == 1 for cluster in done[1]["leaks"]["clusters"])


def test_what_is_done_is_skipped_and_nothing_else_was_run(root: Path, done: Done) -> None:
    voice, place = Heard(), Path(done[2].path).parent
    again, told, _ = audit(config(root), place, voice)
    assert again == done[0] and told == done[1]
    assert voice.texts == ["ingest: done already, skipped"]
    assert {path.name for path in place.iterdir() if path.is_dir()} == {"ingest", "audit"}


def test_drawn_images_have_no_file_to_look_at(tmp_path: Path) -> None:
    few = ("dataset.phantom_subjects=10", "dataset.phantom_cells=2", "evaluate.bootstrap=50")
    small = (*few, "tracking.enabled=false")
    _, told, _ = audit(load_config("tiny", overrides=small), tmp_path)
    assert not {"file_size", "dimensions", "metadata"} & set(told["shortcuts"]["probes"])
    assert {"background", "colour", "border", "top_left"} <= set(told["shortcuts"]["probes"])


def test_some_images_are_taken_of_each_side_and_class_by_its_share() -> None:
    rows = manifest.table(
        {"id": str(n), "label": n % 4 // 3 if n % 10 else None, "split": "test" if n % 3 == 0 else "train"}
        for n in range(1200)
    )
    taken = some_of(rows, 200)
    assert len(taken) == 200 and len(some_of(rows, 5000)) == 1080

    def share(table: pa.Table, **equal: object) -> float:
        return len(manifest.where(table, **equal)) / len(table)

    labelled = rows.filter(pa.array([value is not None for value in rows["label"].to_pylist()]))
    for equal in ({"label": 1}, {"split": "test"}, {"label": 1, "split": "test"}):
        assert abs(share(taken, **equal) - share(labelled, **equal)) < 0.02
