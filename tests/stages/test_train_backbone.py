"""train_backbone before it trains: what it says, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from cell_runs import backbone_stage, cell_run, small

from cotray.errors import ClassError
from cotray.stages import train_backbone
from cotray.stages.base import Voice


class Listener(Voice):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_setting_that_changes_nothing_is_named_and_one_class_is_refused(tmp_path: Path) -> None:
    voice = Listener()
    run = cell_run(tmp_path, (40,), synthetic=0, rare=1)
    with pytest.raises(ClassError, match="one class only"):
        train_backbone.run(small("backbone.layers=4"), backbone_stage(run, voice))
    assert any("backbone.layers changes nothing: smod has no GMod" in text for text in voice.said)
