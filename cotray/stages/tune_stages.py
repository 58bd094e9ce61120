"""Trials that vary stages before the selection: each runs the pipeline, from the first stage it changes.

That is what such a tuning costs: a training of the backbone (or more) for every trial, on all CPUs, one
trial after the other. Stages before the first changed one are copied from the run that is tuned; of a
trial's run only the features are kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cotray.config import Config
from cotray.errors import RunMismatchError
from cotray.runs import Run
from cotray.stages.base import Voice
from cotray.stages.pipeline import STAGES, Request, fingerprints, is_complete, run_pipeline
from cotray.stages.tune_ground import Ground, digest, ground_of_stages, held_groups
from cotray.stages.tune_space import BEFORE, with_settings
from cotray.storage import Folder, absolute

EARLIER = list(STAGES)[: list(STAGES).index("extract") + 1]
"""Stages that make the features."""


@dataclass(frozen=True)
class StageTrials:
    """Makes the features of a trial."""

    base: str
    """The run that is tuned."""
    out: str
    """Folder of the tuning: a trial's run is below it."""
    held: frozenset[str]
    """Validation groups that no trial is judged on."""
    ground: Ground
    """With the features of the run that is tuned."""

    @classmethod
    def of(cls, run: Run, place: str, config: Config) -> StageTrials:
        """For a run whose features are there. Raises MissingStageError, TooFewGroupsError."""
        held = held_groups(run, config)
        ground = ground_of_stages(run, held, run.need("extract").fingerprint)
        return cls(run.folder.uri, absolute(place), held, ground)

    def prepare(self, params: Mapping[str, Any], config: Config, voice: Voice | None = None) -> Ground:
        """What a trial is judged on, with features of its own settings. Raises CotrayError."""
        changed = {key: value for key, value in params.items() if key.split(".")[0] in BEFORE}
        settings = with_settings(config, changed | {"tracking.enabled": False})
        prints, base = fingerprints(settings), Run(self.base)
        if is_complete(base, "extract", prints):
            return self.ground
        name = digest(json.dumps(changed, sort_keys=True))[:12]
        run = Run(f"{self.out}/features/{name}")
        if not is_complete(run, "extract", prints):
            copy_stages(base, run, prints)
            run_pipeline(Request(run.folder.uri, settings, until="extract", voice=voice or Voice()))
            run.forget([stage for stage in EARLIER if stage != "extract"])
        return ground_of_stages(run, self.held, prints["extract"])


def copy_stages(base: Run, run: Run, prints: Mapping[str, str]) -> None:
    """Copy the stages that are complete in the one run and not begun in the other."""
    for stage in EARLIER:
        if is_complete(base, stage, dict(prints)) and not run.folder.exists(stage):
            copy_folder(base.stage(stage), run.stage(stage))


def copy_folder(source: Folder, target: Folder) -> None:
    """Copy all files; the one that says that the stage is complete comes last."""
    for name in sorted(source.files(), key=lambda name: name == "stage.json"):
        target.write_bytes(name, source.read_bytes(name))


def require_same_stages(run: Run, config: Config) -> None:
    """Raise RunMismatchError where settings differ from those that a run's features were made with."""
    sections = ("dataset", "split", *BEFORE)
    asked, made = (tree.model_dump(mode="json") for tree in (config, run.config()))
    differing = [name for name in sections if asked[name] != made[name]]
    if asked["seed"] != made["seed"]:
        differing.append("seed")
    if differing:
        raise RunMismatchError(
            f"The features of this run were made with other settings: {', '.join(differing)}.",
            where=run.folder.uri,
            cure="Bring the run up to date first with `cotray run --until extract`, or do not change them.",
        )
