import http.server
import os
import threading
import time

import pytest

from benchmarks.serving.__main__ import Round, beside_loop, server_figures, waited_seconds
from benchmarks.serving.load import Load, http_request, run_load
from benchmarks.serving.soak import growth, requests_of, soak
from benchmarks.tables.service import container_rows, serving_rows, soak_rows
from kinglet.errors import KingletError
from kinglet.serving.served_model import open_model
from tests.unit.serving.running_server import build_bundle, encoded, running
from tests.unit.tasks.small_project import noisy_quadrants


@pytest.fixture(scope="module")
def slow_server():
    """A server that takes 10 ms for an answer, one at a time."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        one_at_a_time = threading.Lock()

        def log_message(self, *arguments):
            pass

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            with self.one_at_a_time:
                time.sleep(0.01)
            self.send_response(500 if self.headers["content-type"] == "bad" else 200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


def test_load_as_fast_as_possible_is_what_the_server_can_do(slow_server):
    found = run_load(slow_server, [http_request(b"abc")], 1.0, connections=4)
    assert 30 < found.per_second <= 101  # a busy machine may be slower, none is faster
    # Four wait for one another.
    assert found.quantile(0.5) > 25


def test_at_a_rate_that_is_too_high_the_wait_counts(slow_server):
    found = run_load(slow_server, [http_request(b"abc")], 1.0, connections=2, rate=400.0)
    assert found.per_second <= 101
    assert found.quantile(0.99) > 300


def test_a_bad_answer_ends_the_measurement(slow_server):
    with pytest.raises(KingletError, match=r"HTTP/1\.1 500"):
        run_load(slow_server, [http_request(b"abc", "bad")], 1.0, connections=1)


def test_what_a_process_waited_for_its_core_is_told():
    before = waited_seconds(os.getpid())
    assert 0 <= before <= waited_seconds(os.getpid())


def round_of(before, after, p99):
    return Round(Load(before, cpu_ms_each=1.0), Load(0.8 * before, [p99] * 100), Load(after))


def test_rounds_in_which_the_processor_changed_its_speed_say_nothing_of_a_load_of_80_percent():
    rounds = [round_of(1000, 950, 3.0), round_of(1000, 700, 90.0), round_of(800, 810, 5.0)]
    loops = [
        {"per_second": 2000, "per_second_again": again, "loaded_p99_ms": 1.0, "cpu_ms_each": 0.5}
        for again in (1900, 2000, 1700)
    ]
    found = beside_loop(rounds, loops)
    assert found["p99_above_loop_ms"]["values"] == [2.0]
    assert len(found["share_of_loop"]["values"]) == 3
    figures = server_figures(rounds)
    assert (figures["p99_ms"]["values"], figures["rounds_at_one_speed"]) == ([3.0, 5.0], 2)
    assert "p99_above_loop_ms" not in beside_loop(rounds[1:2], loops[1:2])
    assert server_figures(rounds[1:2])["p99_ms"]["values"] == [90.0]


def test_memory_that_grows_is_told_from_memory_that_warms_up():
    warming = [(second, 50.0 + min(second, 20)) for second in range(100)]
    assert growth(warming, 100)["growth"] == 0
    growing = [(second, 100.0 + second) for second in range(100)]
    assert growth(growing, 100)["growth"] == pytest.approx(60 / 129.5, abs=0.01)
    with pytest.raises(KingletError, match="too short"):
        growth([], 1)


def test_a_soak_finds_every_answer_as_expected(tmp_path):
    bundle = build_bundle(tmp_path)
    model = open_model(bundle, threads=1)
    contents = [encoded(image, "JPEG") for image in noisy_quadrants(4, 20, 3)[0]]
    tensor = {
        "model": model.name,
        "input": {"name": "images", "datatype": "FP32", "shape": [1, 3, 16, 16], "data": [0.5] * 768},
    }
    with running(model, body_timeout=0.5) as started:
        found = soak(started.port, os.getpid(), requests_of(contents, tensor), 3.0)
    assert found["first_unexpected"] == []
    assert found["unexpected"] == 0
    assert {"200", "400", "404", "413", "415", "422"} <= set(found["statuses"])


def test_the_tables_rows():
    def spread(value):
        return {"median": value, "low": value / 2, "high": value * 2, "values": [value] * 3}

    keys = ("per_second", "share_of_loop", "cpu_share_of_loop", "p99_above_loop_ms", "p99_ms", "waited_share")
    figures = {
        "bare_loop": {"per_second": spread(2000.0)},
        "kinglet": {key: spread(0.5) for key in keys},
        "peers": {
            "litserve": {"version": "1.0", "times_kinglet": spread(3.0), "p99_ms": spread(9.0)},
            "bentoml": {"failed": "it does not start."},
        },
    }
    soaked = {"minutes": 3.0, "requests": 1000, "unexpected": 0, "growth": 0.01}
    memory = {"memory_before_mb": 100.0, "memory_after_mb": 101.0}
    rows = serving_rows(figures)
    assert [len(row) for row in rows] == [3] * 4
    assert "**50 %** (25 to 100, 3 rounds)" in rows[0][2]
    assert rows[1][2] == "**0.5 ms** (0.2 to 1.0)"
    figures["kinglet"]["rounds_at_one_speed"] = 4
    assert "1.0, the 3 of 3 rounds in which the processor kept its speed within a tenth)" in serving_rows(figures)[1][2]
    del figures["kinglet"]["p99_above_loop_ms"]
    assert "no result: in none of 3 rounds did the processor keep" in serving_rows(figures)[1][2]
    assert rows[2][2] == "no result: it does not start."
    assert "**3.0 times**" in rows[3][2]
    assert "**0 unexpected** of 1,000, memory **+1.0 %**" in soak_rows(soaked | memory)[0][2]


def test_the_containers_rows_say_size_and_what_half_a_core_gives():
    def spread(*values):
        return {"median": sorted(values)[len(values) // 2], "low": min(values), "high": max(values), "values": values}

    whole = {"ready_seconds": spread(1.0, 1.2, 1.4), "per_second": spread(1300.0), "p99_ms": spread(4.0)}
    half = {"per_second": spread(650.0), "p99_ms": spread(41.0), "memory_mb": spread(44.0)}
    size, quota = container_rows({"above_base_mb": 176.2, "quotas": {"1.0": whole, "0.5": half}})
    assert size[2] == "**176 MB**; **1.2 s** (1.0 to 1.4, 3 starts)"
    assert "**650 requests/s** beside 1,300" in quota[2]
    assert "p99 **41 ms** (41 to 41" in quota[2]
