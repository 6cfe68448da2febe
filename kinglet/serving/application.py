"""The ASGI application: what answers which path, with request ids, logs and metrics around it."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from kinglet import __version__
from kinglet.serving import open_inference
from kinglet.serving.bodies import BodyReader, DisconnectedError
from kinglet.serving.inference import INLINE_BYTES, Inference
from kinglet.serving.logs import JsonLog
from kinglet.serving.messages import Request, RequestIds, Response, refusal
from kinglet.serving.metrics import CONTENT_TYPE, Metrics
from kinglet.serving.monitoring import monitor_of
from kinglet.serving.openapi import openapi_document
from kinglet.serving.page import page_of, security_headers
from kinglet.serving.predict import PREDICT, PredictEndpoint
from kinglet.serving.records import Records
from kinglet.serving.refusals import RefusedError
from kinglet.serving.seen import seen_tensors
from kinglet.serving.served_model import ServedModel
from kinglet.serving.settings import Settings

Handler = Callable[[Request], Awaitable[Response]]


class Application:
    """Serves one model; an ASGI application.

    `draining` is set when the server is about to end: it says that it is not ready, and asks clients to leave.
    """

    def __init__(self, model: ServedModel, settings: Settings, log: JsonLog) -> None:
        self.model, self.settings, self.log = model, settings, log
        self.metrics = Metrics(model)
        self.inference = Inference(model, settings, self.metrics)
        self.monitor = monitor_of(model, settings, log, self.metrics)
        self.draining = False
        self._bodies = BodyReader(settings.max_body_bytes, settings.max_held_bytes)
        self._ids = RequestIds()
        self.records = Records(self.metrics, log, settings.log)
        self.predict = PredictEndpoint(self.inference, self._bodies, self.monitor, self._ids, self.records)
        self._page = page_of(model)
        self._page_headers = security_headers(self._page)
        self._document = orjson.dumps(openapi_document(model, settings))
        self._metadata = open_inference.model_metadata(model)
        log.lost = self.metrics.lost_log_lines.inc
        # {path's pattern: {method: what answers}}
        self._routes: dict[str, dict[str, Handler]] = {
            PREDICT: {"POST": self.predict.answer},
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
        """Let what has begun end, and write the last lines and the last sketch."""
        self.records.flush()
        self.inference.close()
        if self.monitor is not None:
            self.monitor.close(self.settings.drain_timeout)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        client = scope.get("client")
        request = Request(
            scope["method"],
            scope["path"],
            scope["query_string"],
            dict(scope["headers"]),
            client[0] if client else None,
            receive,
        )
        request_id = self._ids.name(request)
        code, closes, route = "", False, ""
        self.metrics.in_flight.inc()
        try:
            try:
                route, handler = self._route(request.method, request.path)
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
            await self._send(send, response, request.method, request_id, closes=closes)
            self.records.write(request, route or self._known(request.path), response.status, code)
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

    async def infer(self, request: Request) -> Response:
        """Answer a request of the Open Inference Protocol."""
        self._check_model(request)
        body = await self._bodies.take(request)
        length = request.headers.get(open_inference.HEADER_LENGTH)

        def read() -> open_inference.TensorRequest:
            return open_inference.read_request(body, length, self.model)

        asked = read() if len(body) <= INLINE_BYTES else await self.inference.in_pool(read)
        outputs = await self.inference.compute(asked.tensor)
        request.facts["images"] = len(asked.tensor)
        response = Response(*open_inference.write_answer(self.model, asked, outputs))
        if self.monitor is not None:
            self.monitor.take(seen_tensors(self.model, request.id, asked.tensor, outputs))
        return response

    async def model_metadata(self, request: Request) -> Response:
        """Answer what the model takes and gives."""
        self._check_model(request)
        return Response(orjson.dumps(self._metadata))

    def _check_model(self, request: Request) -> None:
        """Raise RefusedError if the path names another model or version."""
        segments = request.path.split("/")
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
        if request.path.startswith("/v2/models/"):
            self._check_model(request)
        if self.draining:
            raise RefusedError("not_ready", "The server is shutting down.", retry_after=1)
        fields = {"ready": True, "name": self.model.name, "version": self.model.version}
        return Response(orjson.dumps(fields))

    async def read_metrics(self, _: Request) -> Response:
        """Answer with the metrics."""
        self.records.flush()
        return Response(self.metrics.exposition(), [(b"content-type", CONTENT_TYPE.encode())])

    async def document(self, _: Request) -> Response:
        """Answer with the OpenAPI document."""
        return Response(self._document)

    async def page(self, _: Request) -> Response:
        """Answer with the page on which a person drops an image."""
        return Response(self._page, self._page_headers)
