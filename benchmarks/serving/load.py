"""A small HTTP client that makes load: as fast as answers come, or at a steady rate whatever the answers do."""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kinglet.errors import KingletError


@dataclass
class Load:
    """What came of it: answers per second, each answer's milliseconds from the time at which it was due.

    cpu_ms_each: processor time of the server per answer; waited_share: share of the time in which the server was ready
    to run and other programs had its core; both where they were measured.
    """

    per_second: float
    milliseconds: list[float] = field(default_factory=list)
    cpu_ms_each: float = 0.0
    waited_share: float = 0.0

    def quantile(self, share: float) -> float:
        """Return a quantile of the milliseconds."""
        return float(np.quantile(self.milliseconds, share))


def http_request(content: bytes, kind: str = "image/jpeg") -> bytes:
    """Return a POST to /predict as it goes over the line. kind: the content type."""
    lines = ["POST /predict HTTP/1.1", "Host: benchmark", f"Content-Type: {kind}", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


class Connection:
    """A connection that is kept; one request at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self.due = 0.0

    def send(self, request: bytes, due: float) -> None:
        """Send a request that is due at `due`."""
        self.due = due
        self.socket.sendall(request)

    def is_answered(self) -> bool:
        """Read what there is; return whether it is a whole answer. Raises KingletError for any that is not good."""
        part = self.socket.recv(262_144)
        if not part:
            raise KingletError("The server closed a connection under load.", "Look into its log.")
        self._received += part
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise KingletError(f"The server answered {self._received[:300]!r} to a good request.")
        lower = head.lower()
        start = lower.index(b"content-length:") + 15
        if len(body) < int(lower[start:].split(b"\r\n", 1)[0]):
            return False
        self._received = b""
        return True


def run_load(port: int, requests: Sequence[bytes], seconds: float, connections: int, rate: float | None = None) -> Load:
    """Return what a server answers.

    requests: sent in turn. connections: requests under way at most. rate: requests per second; None for the next as
    soon as an answer came. With a rate an answer's time counts from when its request was due, also if no connection
    was free then: a server that stalls does not hide it.
    """
    opened = [Connection(port) for _ in range(connections)]
    free = deque(opened)
    selector = selectors.DefaultSelector()
    for connection in opened:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
    sent = 0
    milliseconds: list[float] = []
    started = time.perf_counter()
    ends = started + seconds
    while (now := time.perf_counter()) < ends:
        while free:
            due = started + sent / rate if rate else now
            if due > now:
                break
            free.popleft().send(requests[sent % len(requests)], due)
            sent += 1
        # At a rate nothing is slept through: a sleep ends a millisecond late or more, and the requests that were due
        # meanwhile would come as one.
        for key, _ in selector.select(0 if rate else ends - now):
            asked: Connection = key.data
            if asked.is_answered():
                milliseconds.append(1000 * (time.perf_counter() - asked.due))
                free.append(asked)
    elapsed = time.perf_counter() - started
    selector.close()
    for connection in opened:
        connection.socket.close()
    return Load(len(milliseconds) / elapsed, milliseconds)
