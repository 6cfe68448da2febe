"""Minutes of mixed load with bad requests in it: every answer as it should be, and memory that does not grow."""

from __future__ import annotations

import http.client
import json
import random
import socket
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import psutil

from kinglet.errors import KingletError

# Shares of the time: what warms up, and how much at either end of the rest is compared.
WARM_UP, ENDS = 0.2, 0.25
SAMPLE_SECONDS = 1.0
# Every so many requests a connection is left half-open.
HALF_OPEN_EVERY = 97


def requests_of(contents: Sequence[bytes], tensor: Any) -> list[tuple[str, dict[str, str], bytes, int]]:
    """Return (path, headers, body, expected status) of good and bad requests."""
    jpeg = {"Content-Type": "image/jpeg"}
    parts = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="%d.jpg"\r\n\r\n%s\r\n' % pair
        for pair in enumerate(contents[:4])
    )
    infer = f"/v2/models/{tensor['model']}/infer"
    good = [("/predict", jpeg, content, 200) for content in contents]
    good += [
        ("/predict", {"Content-Type": "multipart/form-data; boundary=x"}, parts + b"--x--\r\n", 200),
        (infer, {}, json.dumps({"inputs": [tensor["input"]]}).encode(), 200),
    ]
    bad = [
        ("/predict", jpeg, b"", 400),
        ("/predict", jpeg, b"this is text", 415),
        ("/predict", {"Content-Type": "text/plain"}, contents[0], 415),
        ("/predict", jpeg, contents[0][: len(contents[0]) // 2], 422),
        ("/predict", jpeg, b"\xff\xd8\xff" + bytes(2000), 422),
        ("/predict", jpeg, bytes(12_000_000), 413),
        ("/predict", {"Content-Type": "multipart/form-data; boundary=x"}, parts, 400),
        (infer, {}, b"{", 400),
        (infer, {}, json.dumps({"inputs": [{**tensor["input"], "shape": [1, 2, 3]}]}).encode(), 400),
        ("/nothing", {}, b"", 404),
    ]
    return good * 4 + bad


def soak(
    port: int, pid: int, requests: Sequence[tuple[str, dict[str, str], bytes, int]], seconds: float
) -> dict[str, Any]:
    """Return what came of sending these at random for some time: counts, errors, and the memory in MB along the way.

    pid: the server's process.
    """
    generator, process = random.Random(0), psutil.Process(pid)
    statuses: Counter[str] = Counter()
    unexpected: list[str] = []
    memory: list[tuple[float, float]] = []
    half_open: list[socket.socket] = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    started = time.perf_counter()
    interval = min(SAMPLE_SECONDS, seconds / 60)
    sent, sampled = 0, -interval
    while (elapsed := time.perf_counter() - started) < seconds:
        if elapsed - sampled >= interval:
            sampled = elapsed
            memory.append((elapsed, process.memory_info().rss / 1e6))
        sent += 1
        if sent % HALF_OPEN_EVERY == 0:
            half_open.append(socket.create_connection(("127.0.0.1", port)))
            half_open[-1].sendall(b"POST /predict HTTP/1.1\r\nContent-Length: 1000\r\n\r\nabc")
            if len(half_open) > 20:
                half_open.pop(0).close()
        path, headers, body, expected = generator.choice(requests)
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            said = response.read()
        except (http.client.HTTPException, OSError) as error:
            unexpected.append(f"{path}: {error!r} in place of {expected}")
            connection.close()
            continue
        statuses[str(response.status)] += 1
        if response.status != expected:
            unexpected.append(f"{path}: {response.status} in place of {expected}: {said[:200]!r}")
    for left in half_open:
        left.close()
    return {
        "minutes": round(seconds / 60, 2),
        "requests": sent,
        "statuses": dict(sorted(statuses.items())),
        "unexpected": len(unexpected),
        "first_unexpected": unexpected[:3],
        **growth(memory, seconds),
    }


def growth(memory: Sequence[tuple[float, float]], seconds: float) -> dict[str, float]:
    """Return the median memory at the beginning, after a warm-up, and at the end, and the share by which it grew.

    memory: (seconds since the start, MB).
    """
    begins = WARM_UP * seconds
    length = ENDS * (seconds - begins)
    first = [megabytes for at, megabytes in memory if begins <= at < begins + length]
    last = [megabytes for at, megabytes in memory if at >= seconds - length]
    if not first or not last:
        raise KingletError(f"{seconds:g} s are too short for a soak.", "Give it at least 30 with --soak-seconds.")
    before, after = statistics.median(first), statistics.median(last)
    return {
        "memory_before_mb": round(before, 1),
        "memory_after_mb": round(after, 1),
        "growth": round(after / before - 1, 4),
    }
