"""Small images that are answered where they arrive: as all others, but sooner."""

import json
import socket
import time

import numpy as np
import pytest

from kinglet.runtime.sessions import softmax
from kinglet.serving.class_answers import FEW_CLASSES, most_probable, probabilities_of
from kinglet.serving.messages import Request
from kinglet.serving.predict import PredictEndpoint
from tests.unit.serving.running_server import encoded, running
from tests.unit.tasks.small_project import noisy_quadrants

IMAGES = noisy_quadrants(3, 20, 3, seed=4)[0]
PNGS = [encoded(pixels) for pixels in IMAGES]
IMAGE = {"content-type": "image/png"}


@pytest.fixture
def answered(monkeypatch):
    """Whether each request that could have been answered at once was."""
    found = []
    original = PredictEndpoint.answer_at_once

    def noted(self, request, body):
        response = original(self, request, body)
        found.append(response is not None)
        return response

    monkeypatch.setattr(PredictEndpoint, "answer_at_once", noted)
    return found


def request_of(content: bytes, *lines: str, version: str = "1.1", target: str = "/predict") -> bytes:
    head = [f"POST {target} HTTP/{version}", "Host: x", "Content-Type: image/png", f"Content-Length: {len(content)}"]
    return "\r\n".join([*head, *lines, "", ""]).encode() + content


def all_of(port: int, *parts: bytes) -> list[tuple[bytes, dict]]:
    """Return the heads and the JSON of all answers to what is sent, piece by piece, until the server closes."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, part in enumerate(parts):
            time.sleep(0.05 if number else 0)
            connection.sendall(part)
        while part := connection.recv(65_536):
            received += part
    answers = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answers.append((head, json.loads(rest[:length])))
        received = rest[length:]
    return answers


def without_time(answer: dict) -> dict:
    return {key: value for key, value in answer.items() if key != "time_ms"}


CLOSE = "Connection: close"


def test_an_answer_is_the_same_however_the_request_arrives(server, answered):
    whole = request_of(PNGS[0], CLOSE)
    [(head, expected)] = all_of(server.port, whole)
    assert answered == [True]
    split = whole.index(b"\r\n\r\n") + 4
    for parts in ((whole[:split], whole[split:]), (whole[: split + 9], whole[split + 9 :]), (whole[:30], whole[30:])):
        [(other_head, answer)] = all_of(server.port, *parts)
        assert without_time(answer) == without_time(expected)
        assert {line.split(b":")[0] for line in other_head.split(b"\r\n")} == {
            line.split(b":")[0] for line in head.split(b"\r\n")
        }


def test_requests_that_follow_one_another_in_one_piece_are_answered_in_order(server, answered):
    requests = [request_of(png, f"X-Request-Id: {number}") for number, png in enumerate(PNGS)]
    last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answers = all_of(server.port, b"".join([*requests, last]))
    assert answered == [True] * 3
    assert answers[-1][1] == {"live": True}
    for number, png in enumerate(PNGS):
        head, answer = answers[number]
        assert b"x-request-id: %d" % number in head
        alone = server.client.post("/predict", content=png, headers=IMAGE).json()
        assert answer["predictions"] == alone["predictions"]


def test_a_request_behind_one_that_is_under_way_waits_for_its_turn(server):
    first = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(first + request_of(PNGS[0], CLOSE))
        received = b""
        while part := connection.recv(65_536):
            received += part
    assert received.index(b"# HELP") < received.index(b'"predictions"')


@pytest.mark.parametrize(
    ("lines", "version", "closes"),
    [((), "1.1", False), ((CLOSE,), "1.1", True), ((), "1.0", True), (("Connection: keep-alive",), "1.0", True)],
)
def test_a_connection_stays_if_its_client_wants_it(server, answered, lines, version, closes):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(request_of(PNGS[0], *lines, version=version))
        head = connection.recv(65_536)
        assert answered == [True]
        assert (b"connection: close" in head) == closes
        if closes:
            assert connection.recv(1) == b""
        else:
            connection.sendall(request_of(PNGS[1], CLOSE))
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")


def test_an_idle_connection_is_closed_after_an_answer_and_not_before(model):
    # Headers would have to be there after 0.2 s; a connection that waits for its next request has more time.
    with (
        running(model, body_timeout=0.2, keep_alive=1.5) as started,
        socket.create_connection(("127.0.0.1", started.port), timeout=20) as connection,
    ):
        connection.sendall(request_of(PNGS[0]))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        assert connection.recv(1) == b""
        assert time.monotonic() - began > 1.0


def test_the_next_request_of_a_connection_must_arrive_in_time_too(model):
    with (
        running(model, body_timeout=0.2) as started,
        socket.create_connection(("127.0.0.1", started.port), timeout=20) as connection,
    ):
        connection.sendall(request_of(PNGS[0]) + request_of(PNGS[1])[:-5])
        received = b""
        while part := connection.recv(65_536):
            received += part
    assert received.startswith(b"HTTP/1.1 200")
    assert b"slow_body" in received


@pytest.mark.parametrize(
    ("content", "lines", "target", "status"),
    [
        (b"no image", (), "/predict", 415),
        (PNGS[0][:100], (), "/predict", 422),
        (b"", (), "/predict", 400),
        (PNGS[0], ("Content-Encoding: gzip",), "/predict", 415),
        (PNGS[0], (), "/predict?top=none", 400),
        (PNGS[0], ("Expect: 100-continue",), "/predict", 100),
        (PNGS[0], (), "/predict?top=1#part", 200),
        (encoded(np.zeros((300, 300, 3), np.uint8)), (), "/predict", 200),
    ],
)
def test_what_is_not_answered_at_once_is_answered_as_ever(server, answered, content, lines, target, status):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(request_of(content, CLOSE, *lines, target=target))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 %d" % status)
    assert not any(answered)


def test_bodies_count_against_what_may_be_held_at_once(model):
    with running(model, max_held_mb=0.001, max_body_mb=0.001) as started:
        endpoint = started.application.predict
        started.application._bodies.held_bytes = 1000 - len(PNGS[0]) + 1
        assert endpoint.answer_at_once(Request("POST", "/predict", b"", {}), PNGS[0]) is None


def test_every_quick_answer_is_in_the_log_and_in_the_metrics(model):
    with running(model) as started:
        ids = [f"r-{number}" for number in range(150)]
        for one in ids:
            headers = {**IMAGE, "x-request-id": one}
            assert started.client.post("/predict", content=PNGS[0], headers=headers).status_code == 200
        text = started.client.get("/metrics").text
        assert 'kinglet_requests_total{method="POST",route="/predict",status="200"} 150.0' in text
        assert "kinglet_batch_size_sum 150.0" in text
        started.client.post("/predict", content=PNGS[0], headers={**IMAGE, "x-request-id": "last"})
    lines = [json.loads(line) for line in started.log.getvalue().splitlines()]
    logged = [line for line in lines if line["path"] == "/predict"]
    assert [line["id"] for line in logged] == [*ids, "last"]
    assert all((line["status"], line["images"], line["client"]) == (200, 1, "127.0.0.1") for line in logged)
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)


def test_a_quick_answer_is_logged_soon_even_if_none_follows(model):
    with running(model) as started:
        started.client.post("/predict", content=PNGS[0], headers=IMAGE)
        deadline = time.monotonic() + 10
        while not started.log.getvalue() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert json.loads(started.log.getvalue())["status"] == 200


@pytest.mark.parametrize("n_classes", [1, 2, 10, FEW_CLASSES, FEW_CLASSES + 1])
def test_probabilities_are_those_of_softmax(n_classes):
    for seed in range(20):
        logits = np.random.default_rng(seed).normal(0, 10, n_classes).astype(np.float32)
        np.testing.assert_allclose(probabilities_of(logits), softmax(logits), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("n_classes", [4, FEW_CLASSES + 4])
def test_the_most_probable_come_first_and_of_equals_the_first(n_classes):
    probabilities = [0.1, 0.4, 0.1, 0.4] + [0.0] * (n_classes - 4)
    assert most_probable(probabilities, 3) == [1, 3, 0]
    assert sorted(most_probable(probabilities, 1000)) == list(range(n_classes))
