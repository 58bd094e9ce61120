"""What a stage is, and what it is given: its folder, its inputs, a tracker and a voice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cotray.config import Config
from cotray.runs import Run, StageResult
from cotray.storage import Folder
from cotray.tracking import Tracker


class Voice:
    """Where progress goes; the CLI's subclass draws it, the base says nothing."""

    def say(self, text: str) -> None:
        """One line for people."""

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Work done so far on a long step."""


@dataclass
class StageRun:
    """A stage's view of its run. ``fingerprint`` names the work, so partial work can be trusted."""

    name: str
    run: Run
    fingerprint: str
    tracker: Tracker = field(default_factory=Tracker)
    voice: Voice = field(default_factory=Voice)

    @property
    def folder(self) -> Folder:
        """This stage's own folder."""
        return self.run.stage(self.name)

    def input(self, stage: str) -> Folder:
        """The folder of an earlier stage, which must be complete. Raises MissingStageError."""
        self.run.need(stage)
        return self.run.stage(stage)

    def say(self, text: str) -> None:
        """One line for people."""
        self.voice.say(text)


@dataclass(frozen=True)
class Stage:
    """One storey of the pipeline."""

    name: str
    summary: str
    version: int
    """Raised whenever the stage's code changes what it writes: completed work of older code is redone."""
    sections: tuple[str, ...]
    """Config sections the outcome depends on (`seed` always does)."""
    needs: tuple[str, ...]
    """Stages whose fingerprints go into this one's."""
    run: Callable[[Config, StageRun], StageResult]
    extra: Callable[[Config], Mapping[str, Any]] | None = None
    """More that the outcome depends on: another section's setting, a file that it begins with."""
    listing: Callable[[Config], Mapping[str, Any]] | None = None
    """What it reads, where that takes long to find out (a whole data set): part of the fingerprint, not
    asked again for tracking."""
    check: Callable[[Config], None] | None = None
    """Raises a CotrayError where the settings cannot work; asked before any stage begins."""

    def settings(self, config: Config) -> dict[str, Any]:
        """What the config and the files it names say of this stage."""
        tree = config.model_dump(mode="json")
        chosen = {name: tree[name] for name in (*self.sections, "seed")}
        return chosen | (dict(self.extra(config)) if self.extra else {})

    def determinants(self, config: Config) -> dict[str, Any]:
        """Everything in the config and around it that decides this stage's outcome."""
        return self.settings(config) | (dict(self.listing(config)) if self.listing else {})
