"""One finished run of the whole pipeline on phantoms, shared by the tests of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from quick import Finished, cotray, quick_sets


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """`cotray run` from nothing to a registered, reported bundle."""
    home = tmp_path_factory.mktemp("home")
    done = cotray("run", "--run", "runs/quick", *quick_sets(), cwd=home)
    return Finished(home, done.stdout)
