"""One finished run of the whole pipeline on phantoms, shared by the tests of this folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parent))
from quick import Finished, cotray, quick_sets


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """`cotray run` from nothing to a registered, reported bundle; once, also where tests run side by side."""
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    output = home / "output.txt"
    with FileLock(f"{home}.lock"):
        if not output.exists():
            home.mkdir(exist_ok=True)
            output.write_text(cotray("run", "--run", "runs/quick", *quick_sets(), cwd=home).stdout)
    return Finished(home, output.read_text())
