"""Shared fixtures: the real images, where they are, and quiet, private Ray and MLflow."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before anything imports Ray: a token of our own, so that no test writes to the home folder, and silence.
_PRIVATE = Path(tempfile.mkdtemp(prefix="cotray-tests-"))
(_PRIVATE / "ray-token").write_text("0" * 64)
os.environ |= {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN_PATH": str(_PRIVATE / "ray-token"),
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

REPO = Path(__file__).resolve().parents[1]


def data_root() -> Path:
    """Folder of real images; COTRAY_SHARED_DATA overrides the place beside the checkout."""
    return Path(os.environ.get("COTRAY_SHARED_DATA", REPO.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """``shared_data("all-idb2")`` is that folder, or the test is skipped with a message."""

    def find(name: str) -> Path:
        folder = data_root() / name
        if not folder.is_dir():
            pytest.skip(f"real images not found at {folder}; set COTRAY_SHARED_DATA")
        return folder

    return find


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks as small as the tests' lose more to waiting threads than they win."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def plain_and_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide, uncoloured output, and a working folder that may be written to."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "160"}.items():
        monkeypatch.setenv(name, value)
