"""Who becomes champion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from cotray.config import load_config
from cotray.stages.registry import champion_facts, judge
from cotray.tracking import connect

CONFIG = load_config("tiny")


def facts(**changes: Any) -> dict[str, Any]:
    return {"split": "s1", "split_mode": "disjoint", "metric": "balanced_accuracy", "value": 0.9} | changes


def tags(**changes: Any) -> dict[str, str]:
    return {key: str(value) for key, value in facts(**changes).items()}


@pytest.mark.parametrize(
    ("champion", "new", "earned"),
    [
        (None, facts(), True),
        (tags(value=0.8), facts(value=0.81), True),
        (tags(value=0.9), facts(value=0.9), False),
        (tags(value=0.95), facts(value=0.9), False),
        (tags(value=0.1, split="other"), facts(), False),
        (tags(value=0.1, metric="auroc"), facts(), False),
        (None, facts(split_mode="leaky"), False),
        (tags(value=0.1), facts(split_mode="leaky", value=1.0), False),
        (None, facts(value=""), False),
    ],
)
def test_only_a_better_figure_on_the_same_honest_split_wins(
    champion: dict[str, str] | None, new: dict[str, Any], earned: bool
) -> None:
    won, why = judge(champion, new, CONFIG)
    assert won is earned
    assert why


def test_no_model_and_no_alias_mean_no_champion(tmp_path: Path) -> None:
    client = connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert champion_facts(client, "nobody") is None
    client.create_registered_model("somebody")
    assert champion_facts(client, "somebody") is None


def test_a_store_that_cannot_be_read_crowns_nobody(tmp_path: Path) -> None:
    client = connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
    client.create_registered_model("somebody")
    (tmp_path / "mlflow.db").write_bytes(b"no database any more, but something else altogether")
    with pytest.raises(MlflowException):
        champion_facts(client, "somebody")
