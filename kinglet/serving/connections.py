"""What a connection may cost: uvicorn's HTTP/1.1 protocol with limits on headers, idle time and their number."""

from __future__ import annotations

import asyncio
import http
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kinglet.serving.application import Application
from kinglet.serving.refusals import STATUS_OF

MAX_HEADER_BYTES = 65_536
# When the server ends, a connection without a request may still get one that was sent already.
LAST_REQUEST_SECONDS = 0.3


class LimitedConnection(HttpToolsProtocol):
    """One connection, with limits that uvicorn lacks.

    Headers have to arrive within `body_timeout` and 64 KiB, a body within `body_timeout` after them; beyond
    `max_connections` a new connection is answered with 503 and closed; who does not read an answer is cut off after
    `keep_alive`. Refusals are JSON here too.
    """

    def __init__(self, application: Application, **options: Any) -> None:
        """application: knows the settings and counts refusals. options: uvicorn's."""
        super().__init__(**options)
        self._application = application
        self._settings = application.settings
        self._header_bytes = 0
        self._in_headers = self._in_body = False
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
        super().data_received(data)
        if self.transport.is_closing():
            self._stop_timer()
            return
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self._refuse("headers_too_large", f"The headers have more than {MAX_HEADER_BYTES:,} bytes.")
                return
        if self._timer is None and not self._is_whole():
            self._start_timer()

    def _is_whole(self) -> bool:
        """Return whether there is a request, with all of its body, that waits for its answer."""
        return not (self._in_headers or self._in_body or self.cycle is None or self.cycle.response_complete)

    def on_message_begin(self) -> None:
        """Begin to count a request's headers."""
        super().on_message_begin()
        self._in_headers, self._header_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Hand the request on; its body has as much time again."""
        self._in_headers, self._in_body = False, True
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop the time of a body that is there."""
        self._in_body = False
        self._stop_timer()
        super().on_message_complete()

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
        if self.cycle is None or self.cycle.response_complete:
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
