"""The log of scores: what was written comes back, whatever cut it off."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cotray.selection.drive import Memo
from cotray.selection.transfer import Masks
from cotray.stages import score_log
from cotray.stages.score_log import ScoreLog, decode, encode
from cotray.storage import Folder

WIDTH = 13


def masks(count: int, seed: int = 0) -> tuple[Masks, NDArray[np.float64]]:
    """Different masks and a value for each."""
    rng = np.random.default_rng(seed)
    number = rng.choice(2**WIDTH, count, replace=False)
    bits = (number[:, None] >> np.arange(WIDTH)) & 1
    return bits.astype(bool), rng.normal(size=count)


def recalled(folder: Folder) -> Memo:
    """What a new process knows; asking it for anything else fails."""

    def nobody(mask_PD: Masks) -> NDArray[np.float64]:
        raise AssertionError(f"{len(mask_PD)} masks are not known")

    memo = Memo(nobody)
    ScoreLog(folder).recall(memo)
    return memo


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    if request.param == "disk":
        yield Folder(str(tmp_path / "stage"))
        return
    place = Folder(f"memory://logs-{uuid.uuid4().hex}/stage")
    yield place
    place.remove()


def test_an_empty_log_knows_nothing(folder: Folder) -> None:
    assert len(ScoreLog(folder)) == 0
    assert recalled(folder).known == {}


def test_every_life_of_the_process_adds_to_what_is_known(folder: Folder) -> None:
    mask_PD, value_P = masks(60)
    for life in range(3):
        log = ScoreLog(folder)
        assert len(log) == 20 * life
        for at in range(20 * life, 20 * life + 20, 5):
            log.append(mask_PD[at : at + 5], value_P[at : at + 5])
        log.flush()
    memo = recalled(folder)
    np.testing.assert_array_equal(memo(mask_PD), value_P)
    assert memo.scored == 0 and len(memo.known) == 60


def test_on_a_disk_a_batch_is_there_as_soon_as_it_is_told(tmp_path: Path) -> None:
    mask_PD, value_P = masks(4)
    ScoreLog(Folder(str(tmp_path))).append(mask_PD, value_P)  # no flush: a kill would come now
    np.testing.assert_array_equal(recalled(Folder(str(tmp_path)))(mask_PD), value_P)


def test_elsewhere_batches_wait_until_it_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Folder(f"memory://waits-{uuid.uuid4().hex}")
    mask_PD, value_P = masks(10)
    log = ScoreLog(place)
    log.append(mask_PD[:5], value_P[:5])
    assert len(ScoreLog(place)) == 0
    monkeypatch.setattr(score_log, "EVERY_S", -1.0)
    log.append(mask_PD[5:], value_P[5:])
    assert len(ScoreLog(place)) == 10
    log.flush()
    assert len((place / score_log.NAME).files()) == 1, "nothing waited, so nothing more was written"


@pytest.mark.parametrize("kept", range(8, 8 + 2 * 10 + 1))
def test_a_record_cut_off_is_left_out_and_the_next_life_begins_a_part(tmp_path: Path, kept: int) -> None:
    """A kill in the middle of a write: two bytes of bits and eight of value each, after eight of width."""
    mask_PD, value_P = masks(4)
    folder = Folder(str(tmp_path))
    ScoreLog(folder).append(mask_PD[:2], value_P[:2])
    (part,) = sorted((tmp_path / score_log.NAME).glob("*"))
    part.write_bytes(part.read_bytes()[:kept])
    whole = (kept - 8) // 10
    log = ScoreLog(folder)
    assert len(log) == whole
    log.append(mask_PD[2:], value_P[2:])
    memo = recalled(folder)
    assert len(memo.known) == whole + 2
    np.testing.assert_array_equal(memo(mask_PD[2:]), value_P[2:])
    np.testing.assert_array_equal(memo(mask_PD[:whole]), value_P[:whole])


@pytest.mark.parametrize("size", [0, 3, 7])
def test_a_part_without_its_head_is_no_part(tmp_path: Path, size: int) -> None:
    mask_PD, value_P = masks(3)
    (tmp_path / score_log.NAME).mkdir()
    (tmp_path / score_log.NAME / "000000.bin").write_bytes(bytes(size))
    log = ScoreLog(Folder(str(tmp_path)))
    assert len(log) == 0
    log.append(mask_PD, value_P)
    np.testing.assert_array_equal(recalled(Folder(str(tmp_path)))(mask_PD), value_P)


@settings(deadline=None, max_examples=60)
@given(width=st.integers(1, 40), count=st.integers(0, 9), seed=st.integers(0, 999))
def test_values_come_back_bit_for_bit(width: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask_PD = rng.uniform(size=(count, width)) < 0.5
    value_P = rng.normal(size=count) * 10.0 ** rng.integers(-300, 300, count)
    part = np.array([width], np.uint64).tobytes() + encode(mask_PD, value_P)
    found = decode(part)
    assert found is not None
    np.testing.assert_array_equal(found[0], mask_PD)
    assert found[1].tobytes() == value_P.tobytes()
