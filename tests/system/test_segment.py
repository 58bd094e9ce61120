"""`cotray segment` on images, with the LeuSAM that a run has trained."""

from __future__ import annotations

import json
from pathlib import Path

from quick import Finished, cotray


def test_the_leusam_of_a_run_and_of_its_bundle_segment_alike(finished: Finished, tmp_path: Path) -> None:
    cotray("datasets", "phantom", "smears", "--subjects", "2", "--per-subject", "1", cwd=tmp_path)
    answers = []
    for number, place in enumerate((finished.run, finished.run / "evaluate" / "bundle")):
        args = ("segment", "smears", "--bundle", str(place), "--out", f"o{number}", "--json")
        lines = [json.loads(line) for line in cotray(*args, cwd=tmp_path).stdout.splitlines()]
        answers.append([(line["image"], line["cells"]) for line in lines])
    assert answers[0] == answers[1] and len(answers[0]) == 2
    assert all(len(cells) == 1 for _, cells in answers[0])
    shipped = cotray("segment", "smears", "--out", "o2", "--json", cwd=tmp_path).stdout.splitlines()
    assert [json.loads(line)["cells"] for line in shipped] != [cells for _, cells in answers[0]]
