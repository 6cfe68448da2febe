"""What a connection may cost: uvicorn's HTTP/1.1 protocol with limits on headers, idle time and their number."""

from __future__ import annotations

import asyncio
import http
import time
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from kinglet.serving.application import Application
from kinglet.serving.messages import Request
from kinglet.serving.predict import PREDICT
from kinglet.serving.refusals import STATUS_OF

MAX_HEADER_BYTES = 65_536
PATH = PREDICT.encode()
# When the server ends, a connection without a request may still get one that was sent already.
LAST_REQUEST_SECONDS = 0.3


class LimitedConnection(HttpToolsProtocol):
    """One connection, with limits that uvicorn lacks.

    Headers have to arrive within `body_timeout` and 64 KiB, a body within `body_timeout` after them; beyond
    `max_connections` a new connection is answered with 503 and closed; who does not read an answer is cut off after
    `keep_alive`. Refusals are JSON here too.

    A request to /predict that arrived in one piece is offered to the application right here. If it is answered at once,
    it costs no task and no messages between server and application, which take as long as a small network. Every other
    request takes uvicorn's way.
    """

    def __init__(self, application: Application, **options: Any) -> None:
        """application: knows the settings and counts refusals. options: uvicorn's."""
        super().__init__(**options)
        self._application = application
        self._settings = application.settings
        self._header_bytes = 0
        self._in_headers = self._in_body = False
        # The body so far of a request that may be answered at once, None for any other; whether the last one was.
        self._body: bytes | None = None
        self._started = 0.0
        self._is_answered = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time within which headers must come, or refuse the connection."""
        super().connection_made(transport)
        if len(self.connections) > self._settings.max_connections:
            self._refuse("busy", f"{self._settings.max_connections} connections are open already.", retry_after=1)
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived and see that headers come to an end."""
        self._is_answered = False
        super().data_received(data)
        if self.transport.is_closing():
            self._stop_timer()
            return
        if self._body is not None:
            self._hand_on(self._body)
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self._refuse("headers_too_large", f"The headers have more than {MAX_HEADER_BYTES:,} bytes.")
                return
        if self._timer is None and not self._is_whole():
            self._start_timer()

    def _is_whole(self) -> bool:
        """Return whether the last request arrived with all of its body, and waits for its answer or has it just now."""
        return not (self._in_headers or self._in_body) and (self._is_answered or not self._is_idle())

    def _is_idle(self) -> bool:
        """Return whether uvicorn has no request of this connection under way."""
        return self.cycle is None or self.cycle.response_complete

    def on_message_begin(self) -> None:
        """Begin to count a request's headers."""
        super().on_message_begin()
        self._in_headers, self._header_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Hand the request on, unless it may be answered at once; its body has as much time again."""
        self._in_headers, self._in_body = False, True
        self._stop_timer()
        if self._is_for_here():
            self._body, self._started = b"", time.perf_counter()
        else:
            super().on_headers_complete()

    def _is_for_here(self) -> bool:
        """Return whether a request may be answered at once, going by its headers."""
        return (
            self._application.predict.is_fast
            and self.url.partition(b"?")[0] == PATH
            and self._is_idle()
            and not (self.expect_100_continue or self.flow.write_paused or self.transport.is_closing())
            and self.parser.get_method() == b"POST"
            and not self.parser.should_upgrade()
            and b"#" not in self.url
        )

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body of a request that may be answered at once; hand any other on."""
        if self._body is None:
            super().on_body(body)
        else:
            self._body += body

    def on_message_complete(self) -> None:
        """Answer what may be answered at once; stop the time of a body that is there."""
        self._in_body = False
        self._stop_timer()
        if self._body is not None:
            body, self._body = self._body, None
            if self._answer_at_once(body):
                return
            self._hand_on(body)
        super().on_message_complete()

    def _hand_on(self, body: bytes) -> None:
        """Hand a request on that is not answered at once, with what there is of its body."""
        self._body = None
        super().on_headers_complete()
        if body:
            super().on_body(body)

    def _answer_at_once(self, body: bytes) -> bool:
        """Return whether the application answered a whole request; the answer is on its way then."""
        application, client = self._application, self.client
        query = self.url.partition(b"?")[2]
        request = Request("POST", PREDICT, query, dict(self.headers), client[0] if client else None)
        request.started = self._started
        response = application.predict.answer_at_once(request, body)
        if response is None:
            return False
        stays = self.parser.get_http_version() == "1.1" and self.parser.should_keep_alive() and not application.draining
        lines = [STATUS_LINE[response.status]]
        for name, value in (*self.server_state.default_headers, *response.headers):
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"content-length: %d\r\nx-request-id: %b\r\n" % (len(response.body), request.id))
        lines += (b"\r\n" if stays else b"connection: close\r\n\r\n", response.body)
        self.transport.write(b"".join(lines))
        self._is_answered = True
        if not stays:
            self.transport.close()
        self.on_response_complete()
        return True

    def on_response_complete(self) -> None:
        """See that a closing connection ends even if its client reads nothing."""
        super().on_response_complete()
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; what its client did not read in all that time is lost."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        """End after the answer that is under way; without one, leave a request that is on its way a moment to come."""
        if self._is_idle():
            self.loop.call_later(LAST_REQUEST_SECONDS, self._close_if_idle)
        else:
            super().shutdown()

    def _close_if_idle(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse("bad_request", msg)

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: the request is answered as if no other protocol were asked for."""

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self._settings.body_timeout, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        """End a connection on which no whole request came in time."""
        self._timer = None
        if self.transport.is_closing():
            return
        # An answer that began already cannot be taken back; none does before the body is there, but for refusals.
        if self._in_headers or (self._in_body and not self.cycle.response_started):
            what = "headers" if self._in_headers else "body"
            self._refuse("slow_body", f"The {what} did not arrive within {self._settings.body_timeout:g} s.")
        else:
            self.transport.close()

    def _refuse(self, code: str, message: str, retry_after: int | None = None) -> None:
        """Answer with an error before there is a request, and close."""
        self._stop_timer()
        self._in_headers = self._in_body = False
        status = STATUS_OF[code]
        body = orjson.dumps({"error": message, "code": code, "request_id": ""})
        retry = f"retry-after: {retry_after}\r\n" if retry_after else ""
        head = (
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n{retry}connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
        self._application.metrics.count("", "other", status, code, 0.0)
