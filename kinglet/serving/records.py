"""What is counted and logged of every request that was answered."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from kinglet.serving.logs import JsonLog
from kinglet.serving.messages import Request
from kinglet.serving.metrics import Metrics

# Requests that wait to be counted and logged, at most, and for how many seconds.
MOST_WAITING, SECONDS_OF_WAITING = 16, 0.1
# Methods are the client's to invent, and a metric's labels have to be few.
METHODS = ("GET", "HEAD", "POST")


class Records:
    """Counts and logs the requests of one server; used from its event loop.

    Counting and logging are code that the processor does not have at hand after a network was computed: measured, five
    times as slow as when it is run again and again. So good answers that are quick are recorded many at a time.
    """

    def __init__(self, metrics: Metrics, log: JsonLog, logged: str) -> None:
        """logged: the requests that are logged, one of `settings.LOGS`."""
        self._metrics, self._log, self._logged = metrics, log, logged
        self._waiting: list[tuple[Request, str, float, float]] = []

    def write(self, request: Request, route: str, status: int, code: str) -> None:
        """Count and log one request. route: its path's pattern. code: "" for a good answer."""
        self.flush()
        self._write([(request, route, time.perf_counter() - request.started, time.time())], status, code)

    def write_soon(self, request: Request, route: str) -> None:
        """Count and log one request that has a good answer, with those that come after it."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(SECONDS_OF_WAITING, self.flush)
        self._waiting.append((request, route, time.perf_counter() - request.started, time.time()))
        if len(self._waiting) == MOST_WAITING:
            self.flush()

    def flush(self) -> None:
        """Count and log what waits."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._write(waiting, 200, "")

    def _write(self, answered: list[tuple[Request, str, float, float]], status: int, code: str) -> None:
        for request, route, seconds, _ in answered:
            method = request.method if request.method in METHODS else "other"
            self._metrics.count(route, method, status, code, seconds)
        if self._logged == "all" or (self._logged == "errors" and code):
            self._log.write_all(
                [("request", ended, line_of(request, status, code, seconds)) for request, _, seconds, ended in answered]
            )


def line_of(request: Request, status: int, code: str, seconds: float) -> dict[str, Any]:
    """Return what the log says of a request, without the time of its end."""
    return {
        "id": request.id.decode(),
        "method": request.method[:40],
        "path": request.path[:200],
        "status": status,
        "ms": round(1000 * seconds, 3),
        "client": request.client,
        **({"code": code} if code else {}),
        **request.facts,
    }
