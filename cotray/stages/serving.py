"""Ray Serve: a verified bundle behind HTTP. ``POST /v1/predict`` answers an image; ``/healthz`` tells health.

The body is the image itself (``curl --data-binary @cell.png``) or a form with a file field ``image``
(``curl -F image=@cell.png``). Images that arrive together share one forward pass.
"""

import logging
import time
from typing import Any

import ray
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.exceptions import BackPressureError

from cotray.errors import CotrayError, DecodeError, ServeError
from cotray.predictor import Answer, Predictor
from cotray.stages.cluster import connect
from cotray.stages.registry import resolve_bundle

MAX_BYTES = 64 * 1024 * 1024
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>cotray</title><style>body{font:16px/1.5 system-ui;max-width:40rem;margin:3rem auto;padding:0 1rem}
pre{background:#8881;padding:1rem;overflow:auto}img{max-width:100%}</style>
<h1>cotray</h1><p>Choose an image of a blood smear. <b>Research use only</b>: not a medical device.</p>
<input type="file" accept="image/*" aria-label="image"><p><img alt="" hidden></p><pre hidden></pre><script>
const [file,img,out]=['input','img','pre'].map(s=>document.querySelector(s));
file.onchange=async()=>{const f=file.files[0];if(!f)return;img.src=URL.createObjectURL(f);img.hidden=false;
img.alt=f.name;out.hidden=false;out.textContent='...';
const r=await fetch('v1/predict',{method:'POST',body:f});
out.textContent=JSON.stringify(await r.json(),null,1)}
</script></html>"""

api = FastAPI(title="cotray", description="Leukemia detection (CoTCoNet). Research use only.")


class ServeArgs(BaseModel):
    """Arguments of the application, as in ``serve/config.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    bundle: str
    """Bundle folder, run folder, or MLflow model URI."""
    tracking_uri: str | None = None
    """Where `models:/` URIs are looked up."""
    replicas: int = 1
    """Copies of the model."""
    threads: int = 1
    """Torch threads of each."""
    max_ongoing: int = 32
    """Requests a replica works on at once."""
    max_queued: int = 256
    """Requests that wait per replica's handle; more are answered 503 with Retry-After."""


# Ray pickles the application where the class below is decorated: what it uses must stand above it.


async def image_bytes(request: Request) -> bytes:
    """The image in a request. Raises ServeError where there is none or it is too large."""
    if int(request.headers.get("content-length") or 0) > MAX_BYTES:
        raise ServeError("The body is too large.", cure=f"Send at most {MAX_BYTES >> 20} MiB.")
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form() as form:
            field = form.get("image")
            data = field if isinstance(field, str) or field is None else await field.read()
    else:
        data = await request.body()
    if not isinstance(data, bytes) or not data:
        raise ServeError(
            "There is no image in this request.",
            cure="POST the file itself, or a form with a file field `image`.",
        )
    return data


def problem(status: int, error: CotrayError) -> JSONResponse:
    """An error as JSON: what and cure."""
    return JSONResponse({"error": error.what, "cure": error.cure}, status_code=status)


@api.exception_handler(BackPressureError)
def overloaded(request: Request, error: Exception) -> JSONResponse:
    """Too many requests are waiting."""
    headers = {"Retry-After": "1"}
    return JSONResponse({"error": "overloaded", "cure": "Try again."}, status_code=503, headers=headers)


@serve.deployment(name="cotray", health_check_period_s=10, health_check_timeout_s=30)
@serve.ingress(api)
class Service:
    """One copy of the model."""

    def __init__(self, args: ServeArgs) -> None:
        import torch

        torch.set_num_threads(args.threads)
        self.predictor = Predictor(resolve_bundle(args.bundle, args.tracking_uri))
        self.started = time.time()

    def check_health(self) -> None:
        """Ray Serve asks; a tiny forward shows that the model still answers."""
        import numpy as np

        size = self.predictor.config.segment.cell_size
        self.predictor.classify(self.predictor.embed(np.zeros((1, size, size, 3), np.uint8)))

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.005)  # type: ignore[untyped-decorator]
    async def answer(self, images: list[bytes]) -> list[Answer | CotrayError]:
        """Answer several images; a bad one does not spoil its neighbours."""
        try:
            return list(self.predictor.predict_many(images))
        except CotrayError:
            return [self._one(data) for data in images]

    def _one(self, data: bytes) -> Answer | CotrayError:
        try:
            return self.predictor.predict(data)
        except CotrayError as error:
            return error

    @api.get("/", response_class=HTMLResponse)
    def page(self) -> str:
        """A page to try it with."""
        return PAGE

    @api.get("/healthz")
    def healthz(self) -> dict[str, Any]:
        """Health, model version and what it was trained on."""
        bundle = self.predictor.bundle
        names = ("dataset", "preset", "metrics")
        facts: dict[str, Any] = {name: bundle.facts[name] for name in names if name in bundle.facts}
        uptime = round(time.time() - self.started, 1)
        return {"status": "ok", "model_version": bundle.version, "uptime_s": uptime, **facts}

    @api.post("/v1/predict")
    async def predict(self, request: Request) -> JSONResponse:
        """Class, probability, box and model version for one image."""
        try:
            data = await image_bytes(request)
        except CotrayError as error:
            return problem(413 if "large" in error.what else 400, error)
        answer = await self.answer(data)
        if isinstance(answer, CotrayError):
            return problem(422 if isinstance(answer, DecodeError) else 500, answer)
        return JSONResponse(answer.as_dict())


def build(args: dict[str, Any]) -> Any:
    """The Serve application from plain arguments (``serve run serve.app:build bundle=...``)."""
    parsed = ServeArgs.model_validate(args)
    options = {"max_ongoing_requests": parsed.max_ongoing, "max_queued_requests": parsed.max_queued}
    return Service.options(num_replicas=parsed.replicas, **options).bind(parsed)  # type: ignore[attr-defined]


def start(bundle: str, *, host: str, port: int, replicas: int = 1) -> None:
    """Deploy and return once the model answers. Raises BundleError, ServeError."""
    resolve_bundle(bundle)  # a bad bundle is told here, not from inside a replica
    connect()
    from cotray.storage import absolute

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    place = bundle if bundle.startswith(("models:/", "runs:/")) else absolute(bundle)
    try:
        serve.start(http_options={"host": host, "port": port}, logging_config={"log_level": "WARNING"})
        serve.run(build({"bundle": place, "replicas": replicas}), name="cotray")
    except (RuntimeError, ray.exceptions.RayError, OSError) as error:
        raise ServeError(
            f"The service could not start: {str(error).splitlines()[0][:200]}",
            where=f"{host}:{port}",
            cure="Is the port taken? Choose another with --port.",
        ) from error


def serve_forever(bundle: str, *, host: str, port: int, replicas: int) -> None:
    """Deploy, say where, and wait for Ctrl-C."""
    start(bundle, host=host, port=port, replicas=replicas)
    print(
        f"cotray serves on http://{host}:{port}  (POST /v1/predict, GET /healthz, a page at /). Ctrl-C stops."
    )
    try:
        while True:
            time.sleep(3600)
    finally:
        serve.shutdown()


__all__ = ["MAX_BYTES", "ServeArgs", "Service", "build", "serve_forever", "start"]
