"""Bundles made by hand: banks that stay on disk, indexes and class sets that travel, answers with sets."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

from cotray.bundle import Bundle, load_bundle, save_bundle
from cotray.classification.conformal import ClassSets
from cotray.classification.hdlc import HDLC
from cotray.config import load_config
from cotray.data.decode import encode_png
from cotray.data.phantom import draw_phantom, phantom_index
from cotray.errors import BundleError, RunNotWritableError
from cotray.features.grafr import GraFR
from cotray.features.zoo import build_backbone
from cotray.predictor import Predictor
from cotray.storage import Folder

SETS = (
    "segment.model=otsu",
    "segment.cell_size=64",
    "backbone.name=smod",
    "backbone.image_size=64",
    "backbone.smod.filters=[4,4,8,8,8]",
)
WIDTH = 8 * 2 * 2
"""Backbone features of those settings."""


def bundle_of(rows: int = 200, index: str = "exact", sets: ClassSets | None = None) -> Bundle:
    """Untrained networks around a bank of random cells."""
    torch.manual_seed(0)
    config = load_config("tiny", overrides=[*SETS, f"grafr.index={index}"])
    bank = np.random.default_rng(0).normal(size=(rows, WIDTH)).astype(np.float32)
    state = GraFR(config.grafr).fit(bank).state()
    mask = torch.ones(2 * WIDTH, dtype=torch.bool)
    return Bundle(
        config=config,
        tensors={
            "leusam": {},
            "backbone": build_backbone(config.backbone).state_dict(),
            "grafr": {"bank": torch.from_numpy(bank), **{k: torch.from_numpy(v) for k, v in state.items()}},
            "selection": {"mask": mask},
            "hdlc": HDLC(config.hdlc, 2 * WIDTH).state_dict(),
        },
        temperature=1.3,
        threshold=0.5,
        single_cell=True,
        sets=sets,
    )


def png(seed: int = 1) -> bytes:
    return encode_png(draw_phantom(phantom_index("all-idb2", 4, 1, seed)[0]).rgb)


def anonymous_mib() -> float:
    """Memory of this process that is no file's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def test_a_bank_stays_on_disk(tmp_path: Path) -> None:
    """200 MB of bank, loaded, asked, and saved again (as `evaluate` does), in less than half of that."""
    big = bundle_of()
    bank = torch.rand(1_600_000, WIDTH)
    save_bundle(
        Folder(str(tmp_path / "a")), dataclasses.replace(big, tensors=big.tensors | {"grafr": {"bank": bank}})
    )
    del bank
    before = anonymous_mib()
    loaded = load_bundle(str(tmp_path / "a"))
    grafr = GraFR(loaded.config.grafr).fit(loaded.tensors["grafr"]["bank"].numpy())
    made = grafr.transform(np.full((2, WIDTH), 0.5, np.float32))
    again = save_bundle(Folder(str(tmp_path / "b")), loaded)
    assert np.isfinite(made).all()
    assert again.version == loaded.version
    assert anonymous_mib() - before < 100


def test_changing_a_loaded_tensor_changes_no_file(tmp_path: Path) -> None:
    loaded = save_bundle(Folder(str(tmp_path)), bundle_of())
    loaded.tensors["grafr"]["bank"].zero_()
    assert load_bundle(str(tmp_path)).tensors["grafr"]["bank"].abs().sum() > 0


def test_a_bundle_in_use_survives_being_replaced(tmp_path: Path) -> None:
    loaded = save_bundle(Folder(str(tmp_path)), bundle_of(rows=200))
    bank = loaded.tensors["grafr"]["bank"].clone()
    save_bundle(Folder(str(tmp_path)), bundle_of(rows=3))
    assert torch.equal(loaded.tensors["grafr"]["bank"], bank)


def test_what_the_index_learned_is_not_learned_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bundle_of(rows=2000, index="ivf")
    loaded = save_bundle(Folder(str(tmp_path)), made)
    assert set(loaded.tensors["grafr"]) == {"bank", "means", "lists"}

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("k-means runs again")

    monkeypatch.setattr(faiss, "Kmeans", refuse)
    assert Predictor(loaded).predict(png()).probability == Predictor(made).predict(png()).probability


def test_a_bundle_of_before_there_were_sets_answers_without(tmp_path: Path) -> None:
    answer = Predictor(save_bundle(Folder(str(tmp_path)), bundle_of())).predict(png())
    assert answer.probability is not None
    assert answer.as_dict()["set"] is None
    assert answer.as_dict()["refer"] is None


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_answers_that_cannot_tell_are_referred(limit: float, tmp_path: Path) -> None:
    """No class fits, or both do: an untrained classifier says about one half."""
    sets = ClassSets(0.1, (limit, limit), (20, 20))
    answer = Predictor(save_bundle(Folder(str(tmp_path)), bundle_of(sets=sets))).predict(png())
    assert answer.as_dict()["set"] == ["normal", "malignant"]
    assert answer.as_dict()["refer"] is True
    json.dumps(answer.as_dict())


def test_a_certain_answer_names_its_class_alone(tmp_path: Path) -> None:
    plain = Predictor(bundle_of()).predict(png())
    assert plain.probability is not None
    away = min(plain.probability, 1 - plain.probability)
    sets = ClassSets(0.1, (away + 1e-4, away + 1e-4), (20, 20))
    answer = Predictor(save_bundle(Folder(str(tmp_path)), bundle_of(sets=sets))).predict(png())
    assert answer.as_dict()["set"] == [answer.label]
    assert answer.as_dict()["refer"] is False


def test_an_image_without_a_cell_is_referred() -> None:
    sets = ClassSets(0.1, (0.2, 0.2), (20, 20))
    blank = encode_png(np.full((120, 120, 3), 230, np.uint8))
    answer = Predictor(bundle_of(sets=sets)).predict(blank)
    assert answer.label == "no_cell"
    assert answer.as_dict()["set"] == ["normal", "malignant"]
    assert answer.as_dict()["refer"] is True


def test_sets_are_part_of_what_is_hashed(tmp_path: Path) -> None:
    sets = ClassSets(0.1, (0.2, 0.3), (20, 21))
    assert save_bundle(Folder(str(tmp_path)), bundle_of(sets=sets)).sets == sets
    text = (tmp_path / "bundle.json").read_text()
    (tmp_path / "bundle.json").write_text(text.replace("0.3", "0.9"))
    with pytest.raises(BundleError):
        load_bundle(str(tmp_path))


@pytest.mark.parametrize("change", ["flip", "cut", "remove"])
def test_a_damaged_bank_is_refused(change: str, tmp_path: Path) -> None:
    save_bundle(Folder(str(tmp_path)), bundle_of())
    path = tmp_path / "grafr.safetensors"
    data = bytearray(path.read_bytes())
    data[-9] ^= 4
    path.unlink()
    if change != "remove":
        path.write_bytes(bytes(data) if change == "flip" else bytes(data[:-100]))
    with pytest.raises(BundleError, match=r"grafr\.safetensors"):
        load_bundle(str(tmp_path))


def test_where_nothing_can_be_written_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "grafr.safetensors").mkdir()
    with pytest.raises(RunNotWritableError):
        save_bundle(Folder(str(tmp_path)), bundle_of())
    assert not list(tmp_path.glob("*.tmp"))


def test_a_remote_bundle_is_read_whole() -> None:
    made = save_bundle(Folder("memory://cotray-bundle-test"), bundle_of(rows=30, index="ivf"))
    assert made.tensors["grafr"]["bank"].shape == (30, WIDTH)
    assert Predictor(made).predict(png()).model_version == made.version
