"""One request and one answer, as what answers sees them."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from kinglet.serving.refusals import RefusedError

JSON = ((b"content-type", b"application/json"),)
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


async def nothing_arrives() -> dict[str, Any]:
    """Return what ASGI says when no more of a body comes."""
    return {"type": "http.disconnect"}


@dataclass
class Request:
    """One request. query: what stands behind "?". headers: the last of each name. client: its address, if known.

    receive: gives the next part of the body, as in ASGI. started: when its headers were there, in seconds. held: bytes
    of its body that are in memory and counted. facts: what the log says of it besides the usual.
    """

    method: str
    path: str
    query: bytes
    headers: dict[bytes, bytes]
    client: str | None = None
    receive: Callable[[], Awaitable[dict[str, Any]]] = nothing_arrives
    started: float = field(default_factory=time.perf_counter)
    id: bytes = b""
    held: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Response:
    """One answer."""

    body: bytes
    headers: Sequence[tuple[bytes, bytes]] = JSON
    status: int = 200


class RequestIds:
    """Names requests: each is called what it says itself, or as no other of this process and of any other."""

    def __init__(self) -> None:
        process = secrets.token_hex(6)
        self._made = (f"{process}-{number}".encode() for number in itertools.count(1))

    def name(self, request: Request) -> bytes:
        """Give a request its id and return it."""
        given = request.headers.get(b"x-request-id")
        request.id = given if given and REQUEST_ID.fullmatch(given) else next(self._made)
        return request.id


def refusal(error: RefusedError, request_id: bytes) -> Response:
    """Return the answer that says why a request is refused."""
    fields = {"error": error.message, "code": error.code, "request_id": request_id.decode()}
    headers = list(JSON)
    if error.retry_after is not None:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    return Response(orjson.dumps(fields), headers, error.status)
