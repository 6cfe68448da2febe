"""The server's process: a bundle verified, a port opened, signals heeded, everything answered before the end."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn

from kinglet.errors import KingletError
from kinglet.serving.application import Application
from kinglet.serving.connections import LimitedConnection
from kinglet.serving.logs import JsonLog, send_logging_to
from kinglet.serving.served_model import open_model
from kinglet.serving.settings import Settings, bundle_of, read_settings

BACKLOG = 1024


class DrainingServer(uvicorn.Server):
    """Ends in order: not ready any more, then no new connections, then the last answers, then exit code 0."""

    def __init__(self, config: uvicorn.Config, application: Application) -> None:
        super().__init__(config)
        self._application = application
        self._ends_at = math.inf
        application.metrics.watch(lambda: len(self.server_state.connections), lambda: application.inference.pending)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end at the first signal; a second Ctrl-C does not wait for anybody."""
        del frame
        if self._application.draining:
            self.force_exit = sig == signal.SIGINT
            self.should_exit = True
            return
        self._application.draining = True
        delay = self._application.settings.drain_delay
        self._ends_at = time.monotonic() + delay
        self.should_exit = not delay

    async def on_tick(self, counter: int) -> bool:
        """Close the port once load balancers had the time to look elsewhere."""
        if time.monotonic() >= self._ends_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, but answer everybody who had come through it by then.

        A kernel resets the connections that it had accepted and nobody had fetched: they are fetched first.
        """
        fetched = [connection for listener in sockets or [] for connection in waiting_connections(listener)]
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for connection in fetched:
            await loop.connect_accepted_socket(self._new_connection, connection)
        await super().shutdown(sockets)

    def _new_connection(self) -> asyncio.Protocol:
        return cast(Any, self.config.http_protocol_class)(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def waiting_connections(listener: socket.socket) -> Iterator[socket.socket]:
    """Yield the connections that wait behind a port, until there are none."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        yield connection


def serve(settings: Settings) -> None:
    """Serve until a signal comes.

    Raises KingletError before the port is opened if the bundle is not whole, does not give its golden answers, or the
    address cannot be listened on.
    """
    log = JsonLog()
    send_logging_to(log)
    application = Application(open_model(bundle_of(settings), settings.threads_each, settings.name), settings, log)
    with listening_socket(settings.host, settings.port) as listener:
        server = server_of(application)
        model = application.model
        log.write(
            "ready",
            url=url_of(listener),
            port=listener.getsockname()[1],
            model=model.name,
            version=model.version,
            golden_difference=model.golden_difference,
            compute_ms=round(model.compute_ms, 4),
            workers=settings.workers_in_all,
            threads=settings.threads_each,
        )
        # What lives until the end need not be looked at by every collection.
        gc.collect()
        gc.freeze()
        server.run(sockets=[listener])
    application.close()
    log.write("ended")


def server_of(application: Application) -> DrainingServer:
    """Return the server of an application, without a port."""
    settings = application.settings
    config = uvicorn.Config(
        cast(Any, application),
        http=cast(Any, partial(LimitedConnection, application)),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=cast(int, settings.keep_alive),
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout),
    )
    return DrainingServer(config, application)


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; raises KingletError that says why it cannot."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        # The text of a failed bind repeats the address; a name that is not known has numbers of its own.
        reason = error.strerror if isinstance(error, socket.gaierror) or not error.errno else os.strerror(error.errno)
        raise KingletError(
            f"{host}:{port} cannot be listened on: {reason}.",
            "Name another address with --host, or another port with --port; --port 0 takes any that is free.",
        ) from None
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the address to open in a browser."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}/"


def main(arguments: Sequence[str], environment: Mapping[str, str], program: str) -> int:
    """Serve with the settings of a command line and an environment; return the exit code.

    0: ended by a signal. 2: something the user can mend, said in one sentence on stderr.
    """
    try:
        serve(read_settings(arguments, environment, program))
    except KingletError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 2
    return 0
