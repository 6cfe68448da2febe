"""Clients that are slow, silent, gone or too many; a server that has too much to do."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import numpy as np
import pytest

from tests.unit.serving.running_server import encoded, running
from tests.unit.tasks.small_project import noisy_quadrants

PNG = encoded(noisy_quadrants(1, 20, 3)[0][0])
# Too many pixels to be computed where it arrives: goes through the queue.
LARGE = encoded(np.zeros((300, 300, 3), np.uint8))
IMAGE = {"content-type": "image/png"}
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"


@contextmanager
def connected(port):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        yield connection


def answer_on(connection) -> tuple[int, dict, bytes]:
    """Return status, JSON and head of what is answered until the server closes."""
    received = b""
    while part := connection.recv(65_536):
        received += part
    if not received:
        return 0, {}, b""
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body), head


@pytest.fixture(scope="module")
def hasty(model):
    with running(model, body_timeout=0.3, keep_alive=0.3, max_connections=6, max_body_mb=0.1) as started:
        yield started


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (HEAD % 1000, 408),
        (HEAD % 1000 + b"\x89PNG", 408),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Slow: ", 408),
        (b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", 408),
        (b"", 0),  # said nothing, is told nothing
        (b"\r\n\r\n", 0),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"GET / HTTP/9\r\n\r\n", 400),
    ],
)
def test_a_half_open_connection_is_closed_in_time(hasty, sent, status):
    started = time.monotonic()
    with connected(hasty.port) as connection:
        connection.sendall(sent)
        found, said, head = answer_on(connection)
    assert time.monotonic() - started < 3
    assert found == status
    if status:
        assert b"connection: close" in head
        assert said["code"] == ("slow_body" if status == 408 else "bad_request")


def test_a_body_that_trickles_has_no_more_time_than_one_that_does_not_come(hasty):
    started = time.monotonic()
    with connected(hasty.port) as connection:
        connection.sendall(HEAD % 10_000)
        with pytest.raises(OSError):  # noqa: PT012
            for _ in range(200):
                connection.sendall(b"x")
                time.sleep(0.02)
    assert time.monotonic() - started < 3


def test_headers_without_end_are_refused(hasty):
    with connected(hasty.port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 70_000)
        status, said, _ = answer_on(connection)
    assert (status, said["code"]) == (431, "headers_too_large")


def test_an_idle_connection_is_closed_after_a_good_answer(hasty):
    with connected(hasty.port) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer_on(connection)[:2] == (200, {"live": True})


def test_a_client_that_leaves_before_the_end_costs_nothing(hasty):
    for _ in range(5):
        with connected(hasty.port) as connection:
            connection.sendall(HEAD % 1000 + b"abc")
    deadline = time.monotonic() + 5
    while hasty.application.metrics.in_flight._value.get() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert hasty.application.metrics.in_flight._value.get() == 0
    assert hasty.application._bodies.held_bytes == 0
    assert hasty.client.get("/healthz").status_code == 200


def test_too_many_connections_are_told_to_come_back(hasty):
    time.sleep(0.4)  # those of the other tests are idle and go
    connections = [socket.create_connection(("127.0.0.1", hasty.port)) for _ in range(6)]
    try:
        with connected(hasty.port) as one_more:
            status, said, head = answer_on(one_more)
        assert (status, said["code"]) == (503, "busy")
        assert b"retry-after: 1" in head
    finally:
        for connection in connections:
            connection.close()
    assert httpx.get(f"http://127.0.0.1:{hasty.port}/healthz").status_code == 200


def test_who_sends_too_much_reads_why(hasty):
    answer = hasty.client.post("/predict", content=bytes(3_000_000), headers=IMAGE)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_who_asks_first_is_told_before_sending(hasty):
    with connected(hasty.port) as connection:
        connection.sendall((HEAD % 10**12).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        status, said, _ = answer_on(connection)
    assert (status, said["code"]) == (413, "body_too_large")


def test_two_requests_sent_at_once_are_answered_in_order(hasty):
    request = HEAD % len(PNG) + PNG
    with connected(hasty.port) as connection:
        connection.sendall(request + b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
        received = b""
        while part := connection.recv(65_536):
            received += part
    assert received.count(b"HTTP/1.1 200") == 2
    assert received.index(b"predictions") < received.index(b'{"live":true}')


@contextmanager
def held_up(started):
    """Let no inference end before the block does."""
    release = threading.Event()
    predictor = started.application.model.predictor
    original = predictor.outputs

    def wait(tensors):
        release.wait(10)
        return original(tensors)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor, "outputs", wait)
        try:
            yield
        finally:
            release.set()


def test_a_full_queue_refuses_with_a_time_to_come_back_and_forgets_nobody(model):
    with running(model, workers=1, queue=2) as started, ThreadPoolExecutor(10) as pool:

        def ask(_):
            return httpx.post(f"http://127.0.0.1:{started.port}/predict", content=LARGE, headers=IMAGE, timeout=20)

        with held_up(started):
            asked = [pool.submit(ask, number) for number in range(10)]
            deadline = time.monotonic() + 10
            while sum(item.done() for item in asked) < 7 and time.monotonic() < deadline:
                time.sleep(0.02)
            # A busy server is alive, and says how long its queue is.
            assert started.client.get("/healthz").status_code == 200
            assert "kinglet_queue_length 3.0" in started.client.get("/metrics").text
        answers = [item.result() for item in asked]
        after = ask(0)
    refused = [answer for answer in answers if answer.status_code == 503]
    assert [answer.status_code for answer in answers].count(200) == 3
    assert len(refused) == 7
    assert {answer.json()["code"] for answer in refused} == {"busy"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert after.status_code == 200


@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_answer_that_takes_too_long_is_given_up(model, batch_size):
    with running(model, timeout=0.2, batch_size=batch_size, batch_wait_ms=0.0) as started, held_up(started):
        answer = started.client.post("/predict", content=LARGE, headers=IMAGE)
        assert (answer.status_code, answer.json()["code"]) == (503, "too_slow")
        assert int(answer.headers["retry-after"]) >= 1


def test_bodies_that_are_held_at_once_are_bounded(model):
    with running(model, max_body_mb=0.1, max_held_mb=0.1, body_timeout=5.0) as started:
        with connected(started.port) as slow:
            slow.sendall(HEAD % 90_000 + bytes(80_000))
            deadline = time.monotonic() + 5
            while started.application._bodies.held_bytes < 60_000 and time.monotonic() < deadline:
                time.sleep(0.01)
            answer = started.client.post("/predict", content=bytes(50_000), headers=IMAGE)
        assert (answer.status_code, answer.json()["code"]) == (503, "busy")
        assert started.client.post("/predict", content=PNG, headers=IMAGE).status_code == 200


def test_a_defect_is_a_500_with_an_id_and_its_traceback_in_the_log(model):
    with running(model) as started:

        def broken(*_):
            raise ZeroDivisionError("a defect")

        started.application.inference.compute_now = broken
        answer = started.client.post("/predict", content=PNG, headers=IMAGE)
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert "defect" not in answer.text
        line = next(line for line in map(json.loads, started.log.getvalue().splitlines()) if line.get("status") == 500)
    assert line["id"] == answer.json()["request_id"]
    assert "ZeroDivisionError: a defect" in line["traceback"]


@pytest.mark.parametrize(("log", "expected"), [("all", 2), ("errors", 1), ("none", 0)])
def test_what_is_logged_can_be_chosen(model, log, expected):
    with running(model, log=log) as started:
        started.client.get("/healthz")
        started.client.get("/nothing")
        assert len(started.log.getvalue().splitlines()) == expected
