"""The HTTP service on a real Ray Serve, over real HTTP."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest
from quick import Finished

from cotray.bundle import load_bundle
from cotray.data.decode import encode_png
from cotray.data.phantom import draw_phantom, phantom_index
from cotray.predictor import Predictor


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def service(finished: Finished) -> Iterator[httpx.Client]:
    import ray
    from ray import serve

    from cotray.stages.serving import start

    port = free_port()
    start(str(finished.run), host="127.0.0.1", port=port)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        yield client
    serve.shutdown()
    ray.shutdown()


@pytest.fixture(scope="module")
def image() -> bytes:
    return encode_png(draw_phantom(phantom_index("all-idb2", 4, 1, 5)[0]).rgb)


def test_answers_class_probability_box_and_version(
    service: httpx.Client, finished: Finished, image: bytes
) -> None:
    answer = service.post("/v1/predict", content=image)
    assert answer.status_code == 200
    body = answer.json()
    bundle = load_bundle(str(finished.run / "evaluate" / "bundle"))
    expected = Predictor(bundle).predict(image)
    assert body["class"] == expected.label
    assert body["probability"] == pytest.approx(expected.probability, abs=1e-4)
    assert body["box"] == expected.box
    assert body["model_version"] == bundle.version


def test_takes_a_form_too(service: httpx.Client, image: bytes) -> None:
    plain = service.post("/v1/predict", content=image).json()
    form = service.post("/v1/predict", files={"image": ("smear.png", image, "image/png")})
    assert form.json() == plain


def test_health_names_the_model(service: httpx.Client, finished: Finished) -> None:
    body = service.get("/healthz").json()
    assert body["status"] == "ok"
    assert body["model_version"] == load_bundle(str(finished.run / "evaluate" / "bundle")).version


def test_bad_bodies_get_an_error_and_a_cure(service: httpx.Client, image: bytes) -> None:
    broken = service.post("/v1/predict", content=image[: len(image) // 2])
    assert broken.status_code == 422
    assert broken.json()["error"]
    empty = service.post("/v1/predict", content=b"")
    assert empty.status_code == 400
    assert "image" in empty.json()["cure"]
    assert service.post("/v1/predict", content=image).status_code == 200, "the service must go on"


def test_there_is_a_page_to_try_it(service: httpx.Client) -> None:
    page = service.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "v1/predict" in page.text
