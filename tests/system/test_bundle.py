"""The bundle: no pickle, hashes that are looked at, the same answers from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from quick import Finished, cotray

from cotray.bundle import load_bundle
from cotray.data.decode import encode_png
from cotray.data.phantom import draw_phantom, phantom_index
from cotray.errors import BundleError
from cotray.predictor import Predictor


def phantom_png(seed: int) -> bytes:
    return encode_png(draw_phantom(phantom_index("all-idb2", 4, 1, seed)[0]).rgb)


def test_holds_safetensors_and_json_alone(finished: Finished) -> None:
    bundle = finished.run / "evaluate" / "bundle"
    assert {path.suffix for path in bundle.iterdir()} == {".safetensors", ".json"}
    body = json.loads((bundle / "bundle.json").read_text())
    assert str(finished.home) not in json.dumps(body), "a bundle names no path of the machine it was made on"
    assert body["facts"]["metrics"]["balanced_accuracy"] >= 0


@pytest.mark.parametrize("name", ["hdlc.safetensors", "bundle.json", "grafr.safetensors"])
def test_an_altered_file_is_refused(name: str, finished: Finished, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(finished.run / "evaluate" / "bundle", copy)
    data = bytearray((copy / name).read_bytes())
    data[-20] ^= 1
    (copy / name).write_bytes(bytes(data))
    with pytest.raises(BundleError):
        load_bundle(str(copy))


def test_a_missing_file_is_named(finished: Finished, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(finished.run / "evaluate" / "bundle", copy)
    (copy / "backbone.safetensors").unlink()
    with pytest.raises(BundleError, match=r"backbone\.safetensors is missing"):
        load_bundle(str(copy))


def test_predict_answers_like_the_library(finished: Finished, tmp_path: Path) -> None:
    for seed in (1, 2):
        (tmp_path / f"smear{seed}.png").write_bytes(phantom_png(seed))
    done = cotray("predict", str(tmp_path), "--bundle", str(finished.run), "--json", cwd=tmp_path)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    predictor = Predictor(load_bundle(str(finished.run / "evaluate" / "bundle")))
    for seed, line in zip((1, 2), lines, strict=True):
        assert line.pop("image").endswith(f"smear{seed}.png")
        expected = predictor.predict(phantom_png(seed)).as_dict()
        assert line.pop("probability") == pytest.approx(expected.pop("probability"), abs=1e-4)
        assert line["class"] == expected["class"]
        assert line["box"] == expected["box"]
        assert line["model_version"] == expected["model_version"]
        assert line["set"] == expected["set"]
        assert line["refer"] is (len(line["set"]) == 2)


def test_predict_tells_a_bad_image_and_answers_the_rest(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "b.png").write_bytes(phantom_png(3))
    done = cotray("predict", str(tmp_path), "--bundle", str(finished.run), cwd=tmp_path, code=2)
    assert "a.png" in done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stdout.splitlines()
    assert "b.png" in line


def test_predict_draws_overlays(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(phantom_png(3))
    args = (
        "predict",
        str(tmp_path / "b.png"),
        "--bundle",
        str(finished.run),
        "--overlay",
        str(tmp_path / "out"),
    )
    cotray(*args, cwd=tmp_path)
    assert (tmp_path / "out" / "b.png").read_bytes().startswith(b"\x89PNG")


def test_no_bundle_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(phantom_png(3))
    done = cotray("predict", "b.png", "--bundle", "nowhere", cwd=tmp_path, code=2)
    assert "There is no bundle here" in done.stderr
    assert "Traceback" not in done.stderr
