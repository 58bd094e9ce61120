"""A file of weights for a backbone to start from: read, refused, part of the fingerprint."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cotray.config import Config, validate
from cotray.errors import InvalidValueError, UnknownNameError, WeightsError
from cotray.features.zoo import build_backbone
from cotray.segmentation._torchvision import ensure_torchvision
from cotray.stages.pretrained import pretrained_mark, read_pretrained, require_backbone
from cotray.stages.train_backbone import build_learner

ensure_torchvision()  # these tests import timm themselves


def config(name: str, path: object = None, side: int = 64) -> Config:
    start = {"pretrained": str(path)} if path else {}
    return validate({"backbone": {"name": name, "image_size": side, **start}})


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_timm_file_is_where_training_starts(tmp_path: Path, ending: str) -> None:
    import timm

    state, path = timm.create_model("resnet18").state_dict(), tmp_path / f"resnet18{ending}"
    save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
    given = config("resnet18", path)
    require_backbone(given)
    learner = build_learner(given.backbone, 0, (1.0, 1.0))
    assert torch.equal(learner.weights()["backbone"]["net.conv1.weight"], state["conv1.weight"])


def test_nothing_given_nothing_read() -> None:
    assert read_pretrained(config("cotconet").backbone) is None
    assert pretrained_mark(config("cotconet")) == {}
    require_backbone(config("cotconet"))


def test_the_fingerprint_follows_what_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    marks = []
    for value in (0.0, 1.0, 0.0):
        save_file({"backbone/x": torch.full((2,), value)}, path)
        marks.append(pretrained_mark(config("cotconet", path))["pretrained"])
    assert marks[0] == marks[2] != marks[1]
    assert pretrained_mark(config("cotconet", tmp_path / "gone.pth")) == {}


def test_bad_files_are_refused_by_name(tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_file(
        {f"backbone/{k}": v for k, v in build_backbone(config("smod").backbone).state_dict().items()}, whole
    )
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-99])
    code = tmp_path / "code.pth"
    torch.save({"x": torch.zeros(1), "run": pickle.Unpickler}, code)
    for path, told in (
        (tmp_path / "gone.pth", "There is no such checkpoint"),
        (cut, "Cannot read these weights"),
        (code, "would run code"),
        (whole, "another architecture"),
    ):
        with pytest.raises(WeightsError, match=told) as caught:
            require_backbone(config("cotconet", path))
        assert path.name in str(caught.value) and caught.value.cure


def test_names_and_sides_are_refused_before_any_stage() -> None:
    with pytest.raises(UnknownNameError, match="resnet18"):
        require_backbone(config("resnet_18"))
    with pytest.raises(InvalidValueError, match="40 x 40"):
        require_backbone(config("xcit_nano_12_p16_224", side=40))
