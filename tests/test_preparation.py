"""What is done to every image: the order, the files that settings name, and that a bundle brings them."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cotray.bundle import Bundle, load_bundle, save_bundle
from cotray.classification.hdlc import HDLC
from cotray.config import Config, load_config
from cotray.data.phantom import draw_phantom, phantom_index
from cotray.errors import BundleError, InvalidValueError, WeightsError
from cotray.features.zoo import build_backbone
from cotray.imaging.enhance import enhance
from cotray.imaging.regions import blank_regions
from cotray.imaging.stain import UNSTAINED, StainNormaliser
from cotray.predictor import Predictor
from cotray.preparation import carry, digests, load_tools, prepare, prepare_noted
from cotray.segmentation.registry import SEGMENTERS
from cotray.storage import Folder

Rgb = NDArray[np.uint8]


class Swap(nn.Module):
    """A network with a weight, which answers with blue for red and half as bright."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1, bias=False)
        self.mix.weight.data = 0.5 * torch.eye(3).flip(0)[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.mix(x)
        return mixed


class Shrink(nn.Module):
    """Of another shape."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, ::2]


def torchscript(network: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(network), str(path))
    return path


def smear(number: int = 0, layout: str = "all-idb2") -> Rgb:
    return draw_phantom(phantom_index(layout, 12, 2, seed=0)[number]).rgb


def png(rgb: Rgb) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(rgb).save(sink, "PNG")
    return sink.getvalue()


def settings(*sets: str) -> Config:
    return load_config("tiny", overrides=("tracking.enabled=false", *sets))


def mirnet(path: Path, *more: str) -> Config:
    return settings("enhance.method=mirnet", f"enhance.mirnet_weights={path}", *more)


# ---- order and network -----------------------------------------------------------------------------


def test_first_blank_then_stain_then_enhance() -> None:
    config = settings("enhance.stain=reinhard", "ingest.mask_regions=[[0.8, 0.8, 1.0, 1.0]]")
    rgb = smear(1)
    rgb[-20:, -20:] = (255, 255, 0)
    blank = blank_regions(rgb, [(0.8, 0.8, 1.0, 1.0)])
    stained, _ = StainNormaliser(config.enhance)(blank)
    assert np.array_equal(prepare(rgb, config), enhance(stained, config.enhance))


def test_by_default_nothing_is_said_of_the_stain() -> None:
    rgb = smear()
    prepared = prepare_noted(rgb, settings())
    assert prepared.stain_left is None and np.array_equal(prepared.rgb, enhance(rgb, settings().enhance))


def test_mirnet_runs_the_network_of_a_torchscript_file(tmp_path: Path) -> None:
    config = mirnet(torchscript(Swap(), tmp_path / "net.pt"))
    rgb = smear()[:61, :77]
    out = prepare(rgb, config)
    assert out.dtype == np.uint8 and np.abs(out * 2.0 - rgb[..., ::-1]).max() <= 1
    assert load_tools(config.enhance).network is load_tools(config.enhance).network, "loaded once"


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = torchscript(Swap(), tmp_path / "net.pt")
    before = prepare(smear(), mirnet(path))
    torchscript(nn.Identity(), path)
    assert np.array_equal(prepare(smear(), mirnet(path)), smear()) and not np.array_equal(before, smear())


def state_dict(path: Path) -> None:
    torch.save(Swap().state_dict(), path)


def pickled(path: Path) -> None:
    torch.save(Swap(), path)


def cut_short(path: Path) -> None:
    path.write_bytes(torchscript(Swap(), path).read_bytes()[:900])


@pytest.mark.parametrize("write", [state_dict, pickled, cut_short, Path.touch])
def test_what_is_no_torchscript_is_refused(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    write(path)
    with pytest.raises(WeightsError, match="not a TorchScript file") as caught:
        load_tools(mirnet(path).enhance)
    assert str(path) in str(caught.value) and "torch.jit.save" in str(caught.value)


def test_a_network_that_cannot_work_on_the_image_is_refused(tmp_path: Path) -> None:
    for number, network in enumerate((Shrink(), nn.Conv2d(4, 3, 1))):
        path = torchscript(network, tmp_path / f"{number}.pt")
        with pytest.raises(WeightsError, match="same shape"):
            prepare(smear(), mirnet(path))


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    for config, kind in (
        (mirnet(tmp_path / "no.pt"), WeightsError),
        (settings("enhance.stain=macenko", f"enhance.stain_target={tmp_path / 'no.png'}"), InvalidValueError),
    ):
        for ask in (lambda c: load_tools(c.enhance), digests):
            with pytest.raises(kind, match="cannot be read") as caught:
                ask(config)
            assert str(tmp_path) in str(caught.value)


def test_a_stain_target_that_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InvalidValueError, match="stain target"):
        load_tools(settings("enhance.stain=macenko", f"enhance.stain_target={tmp_path / 'a.png'}").enhance)


def test_files_that_the_settings_do_not_need_are_not_looked_for(tmp_path: Path) -> None:
    config = settings(f"enhance.mirnet_weights={tmp_path / 'no'}", f"enhance.stain_target={tmp_path / 'no'}")
    assert digests(config) == {} and load_tools(config.enhance).normaliser is None
    assert carry(config, Folder(str(tmp_path / "out"))).enhance == config.enhance


# ---- a bundle brings its files ---------------------------------------------------------------------


def bundle(config: Config) -> Bundle:
    """Untrained, but whole."""
    torch.manual_seed(0)
    backbone = build_backbone(config.backbone)
    width = 2 * backbone.feature_dim if config.grafr.mode == "concat" else backbone.feature_dim
    kind = SEGMENTERS[config.segment.model]
    assert kind.build_net
    bank = torch.rand(20, backbone.feature_dim)
    tensors = {
        config.segment.model: kind.build_net(config.segment).state_dict(),
        "backbone": backbone.state_dict(),
        "grafr": {"bank": bank},
        "selection": {"mask": torch.arange(width) < 8},
        "hdlc": HDLC(config.hdlc, 8).state_dict(),
    }
    return Bundle(config, tensors, 1.0, 0.5, True, {"dataset": "phantom"})


def with_files(tmp_path: Path) -> Config:
    (tmp_path / "target.png").write_bytes(png(smear(6)))
    stain = ("enhance.stain=reinhard", f"enhance.stain_target={tmp_path / 'target.png'}")
    return mirnet(torchscript(Swap(), tmp_path / "net.pt"), *stain)


def test_a_bundle_answers_as_before_when_the_files_are_gone(tmp_path: Path) -> None:
    config = with_files(tmp_path)
    made = save_bundle(Folder(str(tmp_path / "bundle")), bundle(config))
    wanted = prepare(smear(), config)
    answer = Predictor(made).predict(png(smear()))
    (tmp_path / "bundle").rename(tmp_path / "elsewhere")
    (tmp_path / "net.pt").unlink()
    (tmp_path / "target.png").unlink()
    loaded = load_bundle(str(tmp_path / "elsewhere"))
    assert np.array_equal(prepare(smear(), loaded.config), wanted)
    assert Predictor(loaded).predict(png(smear())) == answer
    body = (tmp_path / "elsewhere" / "bundle.json").read_text()
    assert str(tmp_path) not in body and set(json.loads(body)["sha256"]) > {"mirnet.pt", "stain-target"}


def test_an_answer_says_when_its_stain_was_left_as_it_was(tmp_path: Path) -> None:
    made = save_bundle(Folder(str(tmp_path / "b")), bundle(settings("enhance.stain=reinhard")))
    flat, cell = Predictor(made).predict_many([png(np.full((80, 80, 3), 200, np.uint8)), png(smear())])
    assert flat.as_dict()["note"] == UNSTAINED and "note" not in cell.as_dict()


def test_a_finished_bundle_made_from_a_draft_brings_them_too(tmp_path: Path) -> None:
    draft = save_bundle(Folder(str(tmp_path / "draft")), bundle(with_files(tmp_path)))
    final = save_bundle(Folder(str(tmp_path / "final")), draft)
    assert final.version == draft.version
    for path in (tmp_path / "draft").iterdir():
        path.unlink()
    assert np.array_equal(prepare(smear(), final.config), prepare(smear(), with_files(tmp_path)))


def test_a_bundle_elsewhere_than_on_a_disk_brings_them_too(tmp_path: Path) -> None:
    config = with_files(tmp_path)
    save_bundle(Folder("memory://far/bundle"), bundle(config))
    wanted = prepare(smear(), config)
    (tmp_path / "net.pt").unlink()
    (tmp_path / "target.png").unlink()
    assert np.array_equal(prepare(smear(), load_bundle("memory://far/bundle").config), wanted)


def test_another_network_is_another_version(tmp_path: Path) -> None:
    config = with_files(tmp_path)
    first = save_bundle(Folder(str(tmp_path / "a")), bundle(config))
    torchscript(nn.Identity(), tmp_path / "net.pt")
    assert save_bundle(Folder(str(tmp_path / "b")), bundle(config)).version != first.version


@pytest.mark.parametrize("name", ["mirnet.pt", "stain-target"])
def test_a_file_of_a_bundle_that_was_changed_or_lost_is_told(name: str, tmp_path: Path) -> None:
    save_bundle(Folder(str(tmp_path / "bundle")), bundle(with_files(tmp_path)))
    path = tmp_path / "bundle" / name
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(BundleError, match=f"{name} was altered"):
        load_bundle(str(tmp_path / "bundle"))
    path.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        load_bundle(str(tmp_path / "bundle"))


def test_a_bundle_without_such_settings_has_no_such_files(tmp_path: Path) -> None:
    made = save_bundle(Folder(str(tmp_path / "b")), bundle(settings()))
    assert made.config.enhance == settings().enhance
    assert {path.suffix for path in (tmp_path / "b").iterdir()} == {".safetensors", ".json"}
