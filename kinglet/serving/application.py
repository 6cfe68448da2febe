"""The ASGI application: what answers which path, with request ids, logs and metrics around it."""

from __future__ import annotations

import itertools
import re
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from kinglet import __version__
from kinglet.serving import clip_answers, open_inference
from kinglet.serving.bodies import BodyReader, DisconnectedError, Upload, parts_of
from kinglet.serving.inference import INLINE_BYTES, Answer, Inference
from kinglet.serving.logs import JsonLog
from kinglet.serving.metrics import CONTENT_TYPE, Metrics
from kinglet.serving.monitoring import Seen, monitor_of
from kinglet.serving.openapi import openapi_document
from kinglet.serving.page import page_of, security_headers
from kinglet.serving.problems import problem_of
from kinglet.serving.refusals import RefusedError
from kinglet.serving.served_model import ServedModel
from kinglet.serving.settings import Settings

JSON = ((b"content-type", b"application/json"),)
# A body of one image; without a type the bytes tell by themselves.
IMAGE_TYPES = (b"", b"image/jpeg", b"image/png", b"image/webp", b"application/octet-stream")
# What /predict takes, of images and of clips.
WANTED = {False: "JPEG, PNG or WebP image", True: "video, or of one frame as JPEG, PNG or WebP image"}
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


@dataclass
class Request:
    """One request as the handlers see it. headers: the last of each name; `held` bytes of its body are in memory."""

    scope: dict[str, Any]
    receive: Callable[[], Awaitable[dict[str, Any]]]
    headers: dict[bytes, bytes]
    started: float
    id: bytes = b""
    held: int = 0
    # What the log says of it besides the usual.
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Response:
    """One answer."""

    body: bytes
    headers: Sequence[tuple[bytes, bytes]] = JSON
    status: int = 200


Handler = Callable[[Request], Awaitable[Response]]


class Application:
    """Serves one model; an ASGI application.

    `draining` is set when the server is about to end: it says that it is not ready, and asks clients to leave.
    """

    def __init__(self, model: ServedModel, settings: Settings, log: JsonLog) -> None:
        self.model, self.settings, self.log = model, settings, log
        self.problem = problem_of(model)
        self.metrics = Metrics(model)
        self.inference = Inference(model, settings, self.metrics)
        self.monitor = monitor_of(model, settings, log, self.metrics)
        self.draining = False
        self._bodies = BodyReader(settings.max_body_bytes, settings.max_held_bytes)
        process = secrets.token_hex(6)
        self._ids = (f"{process}-{number}".encode() for number in itertools.count(1))
        self._page = page_of(model)
        self._page_headers = security_headers(self._page)
        self._document = orjson.dumps(openapi_document(model, settings))
        self._metadata = open_inference.model_metadata(model)
        log.lost = self.metrics.lost_log_lines.inc
        # {path's pattern: {method: what answers}}
        self._routes: dict[str, dict[str, Handler]] = {
            "/predict": {"POST": self.predict},
            "/": {"GET": self.page},
            "/healthz": {"GET": self.live},
            "/metrics": {"GET": self.read_metrics},
            "/openapi.json": {"GET": self.document},
            "/v2": {"GET": self.server_metadata},
            "/v2/health/live": {"GET": self.live},
            "/v2/health/ready": {"GET": self.ready},
        }
        for prefix in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            self._routes[prefix] = {"GET": self.model_metadata}
            self._routes[f"{prefix}/ready"] = {"GET": self.ready}
            self._routes[f"{prefix}/infer"] = {"POST": self.infer}

    def close(self) -> None:
        """Let what has begun end, and write the last sketch."""
        self.inference.close()
        if self.monitor is not None:
            self.monitor.close(self.settings.drain_timeout)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive, dict(scope["headers"]), time.perf_counter())
        given = request.headers.get(b"x-request-id", b"")
        request_id = request.id = given if REQUEST_ID.fullmatch(given) else next(self._ids)
        code, closes, route = "", False, ""
        self.metrics.in_flight.inc()
        try:
            try:
                route, handler = self._route(scope["method"], scope["path"])
                response = await handler(request)
            except RefusedError as error:
                code, closes = error.code, error.closes
                response = refusal(error, request_id)
                request.facts["error"] = error.message
            except DisconnectedError:
                request.facts["disconnected"] = True
                return
            except Exception:  # noqa: BLE001
                # A defect: the log has its traceback, the client has the id to ask for it.
                code = "internal_error"
                response = refusal(RefusedError(code, "The server failed; its log says why."), request_id)
                request.facts["traceback"] = traceback.format_exc()
            await self._send(send, response, scope["method"], request_id, closes=closes)
            self._note(request, route or self._known(scope["path"]), request_id, response.status, code)
        finally:
            self.metrics.in_flight.dec()
            if request.held:
                self._bodies.release(request.held)

    async def _send(self, send: Any, response: Response, method: str, request_id: bytes, *, closes: bool) -> None:
        headers = [
            *response.headers,
            (b"content-length", str(len(response.body)).encode()),
            (b"x-request-id", request_id),
        ]
        if closes or self.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else response.body})

    def _route(self, method: str, path: str) -> tuple[str, Handler]:
        """Return the pattern of a path and what answers it; raises RefusedError if nothing does."""
        pattern = self._known(path)
        handlers = self._routes.get(pattern)
        if handlers is None:
            raise RefusedError("not_found", f"There is nothing at {path[:200]}; /openapi.json lists what there is.")
        handler = handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise RefusedError("method_not_allowed", f"{pattern} answers to {', '.join(handlers)}, not to {method}.")
        return pattern, handler

    def _known(self, path: str) -> str:
        """Return the pattern of a path, "" for one that is not served: a metric's labels have to be few."""
        if path in self._routes:
            return path
        segments = path.split("/")
        if path.startswith("/v2/models/"):
            segments[3] = "{name}"
            if len(segments) > 5 and segments[4] == "versions":
                segments[5] = "{version}"
        pattern = "/".join(segments)
        return pattern if pattern in self._routes else ""

    def _note(self, request: Request, route: str, request_id: bytes, status: int, code: str) -> None:
        """Count and log one request that was answered."""
        seconds = time.perf_counter() - request.started
        method = request.scope["method"]
        # Methods are the client's to invent, and a metric's labels have to be few.
        self.metrics.count(route, method if method in ("GET", "HEAD", "POST") else "other", status, code, seconds)
        if self.settings.log == "all" or (self.settings.log == "errors" and code):
            client = request.scope.get("client")
            self.log.write(
                "request",
                id=request_id.decode(),
                method=method[:40],
                path=request.scope["path"][:200],
                status=status,
                ms=round(1000 * seconds, 3),
                client=client[0] if client else None,
                **({"code": code} if code else {}),
                **request.facts,
            )

    async def _body(self, request: Request) -> bytes:
        body = await self._bodies.read(request.headers, request.receive)
        request.held = len(body)
        return body

    async def predict(self, request: Request) -> Response:
        """Answer with the classes of one image or of several, with the objects in them, or with their masks."""
        if self.problem.of_clips:
            return await self._predict_clips(request)
        query, picture = request.scope["query_string"], self.problem.picture
        asked = self.problem.read_query(query)
        uploads = await self._uploads(request)
        answer = await self.inference.answer(uploads)
        request.facts["images"] = len(uploads)
        if self.monitor is not None:
            sizes = [(facts.width, facts.height) for facts in answer.images]
            self.monitor.take(Seen(request.id, answer.squares, sizes, answer.outputs))
        if picture is not None and picture.wanted(query, request.headers.get(b"accept", b"")):
            body = await self.inference.in_pool(lambda: picture.make(self.model, answer))
            return Response(body, ((b"content-type", picture.media_type.encode()),))
        if self.problem.takes_time:
            found = await self.inference.in_pool(lambda: self.problem.predictions(self.model, answer, asked))
        else:
            found = self.problem.predictions(self.model, answer, asked)
        predictions = [
            {
                **of_image,
                "image": {"name": upload.name, "format": facts.format, "width": facts.width, "height": facts.height},
            }
            for upload, facts, of_image in zip(uploads, answer.images, found, strict=True)
        ]
        return self._predictions(predictions, answer, request.started)

    async def _predict_clips(self, request: Request) -> Response:
        """Answer with the classes of a video's clips, or of the frames of one clip."""
        asked = self.problem.read_query(request.scope["query_string"])
        uploads = await self._uploads(request)
        answered = await self.inference.in_pool(
            lambda: clip_answers.answer(self.model, self.inference, uploads, self.settings)
        )
        request.facts["clips"] = len(answered.clips)
        predictions = self.problem.predictions(self.model, answered, asked)
        return self._predictions(predictions, answered, request.started)

    async def _uploads(self, request: Request) -> list[Upload]:
        """Return the images of a request, at least one."""
        content_type = request.headers.get(b"content-type", b"")
        kind = content_type.partition(b";")[0].strip().lower()
        videos = self.problem.media_types
        if kind not in IMAGE_TYPES and kind != b"multipart/form-data" and kind.decode("latin-1") not in videos:
            raise RefusedError(
                "unsupported_type",
                f"Content-Type is {kind.decode('latin-1')[:80]!r}; send {', '.join([*videos, 'image/jpeg'])}, "
                "image/png, image/webp, application/octet-stream or multipart/form-data.",
                closes=True,
            )
        body = await self._body(request)
        if kind == b"multipart/form-data":
            most = self.settings.max_frames if self.problem.of_clips else self.settings.max_images
            return parts_of(body, content_type, most)
        if not body:
            raise RefusedError("empty_body", f"The body is empty; send the bytes of a {WANTED[self.problem.of_clips]}.")
        return [Upload("", body)]

    def _predictions(
        self, predictions: Sequence[dict[str, Any]], answer: Answer | clip_answers.Answered, started: float
    ) -> Response:
        fields = {
            "model": self.model.name,
            "version": self.model.version,
            "predictions": predictions,
            "time_ms": {
                "decode": round(1000 * answer.decode_seconds, 3),
                "compute": round(1000 * answer.compute_seconds, 3),
                "total": round(1000 * (time.perf_counter() - started), 3),
            },
        }
        return Response(orjson.dumps(fields))

    async def infer(self, request: Request) -> Response:
        """Answer a request of the Open Inference Protocol."""
        self._check_model(request)
        body = await self._body(request)
        length = request.headers.get(open_inference.HEADER_LENGTH)

        def read() -> open_inference.TensorRequest:
            return open_inference.read_request(body, length, self.model)

        asked = read() if len(body) <= INLINE_BYTES else await self.inference.in_pool(read)
        outputs = await self.inference.compute(asked.tensor)
        request.facts["images"] = len(asked.tensor)
        response = Response(*open_inference.write_answer(self.model, asked, outputs))
        if self.monitor is not None:
            self.monitor.take(Seen(request.id, asked.tensor, (), outputs))
        return response

    async def model_metadata(self, request: Request) -> Response:
        """Answer what the model takes and gives."""
        self._check_model(request)
        return Response(orjson.dumps(self._metadata))

    def _check_model(self, request: Request) -> None:
        """Raise RefusedError if the path names another model or version."""
        segments = request.scope["path"].split("/")
        name = segments[3]
        version = segments[5] if len(segments) > 5 and segments[4] == "versions" else self.model.version
        if (name, version) != (self.model.name, self.model.version):
            raise RefusedError(
                "unknown_model",
                f"There is no model {name[:80]!r} of version {version[:80]!r}; served is {self.model.name!r}, version "
                f"{self.model.version!r}.",
            )

    async def server_metadata(self, _: Request) -> Response:
        """Answer who serves."""
        fields = {"name": "kinglet", "version": __version__, "extensions": list(open_inference.EXTENSIONS)}
        return Response(orjson.dumps(fields))

    async def live(self, _: Request) -> Response:
        """Answer that the process is alive."""
        return Response(b'{"live":true}')

    async def ready(self, request: Request) -> Response:
        """Answer whether requests are welcome: always, but for the time between SIGTERM and the end."""
        if request.scope["path"].startswith("/v2/models/"):
            self._check_model(request)
        if self.draining:
            raise RefusedError("not_ready", "The server is shutting down.", retry_after=1)
        fields = {"ready": True, "name": self.model.name, "version": self.model.version}
        return Response(orjson.dumps(fields))

    async def read_metrics(self, _: Request) -> Response:
        """Answer with the metrics."""
        return Response(self.metrics.exposition(), [(b"content-type", CONTENT_TYPE.encode())])

    async def document(self, _: Request) -> Response:
        """Answer with the OpenAPI document."""
        return Response(self._document)

    async def page(self, _: Request) -> Response:
        """Answer with the page on which a person drops an image."""
        return Response(self._page, self._page_headers)


def refusal(error: RefusedError, request_id: bytes) -> Response:
    """Return the answer that says why a request is refused."""
    fields = {"error": error.message, "code": error.code, "request_id": request_id.decode()}
    headers = list(JSON)
    if error.retry_after is not None:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    return Response(orjson.dumps(fields), headers, error.status)
