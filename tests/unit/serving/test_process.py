"""The server as a process of its own: how it starts, what it needs, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.unit.serving.running_server import encoded
from tests.unit.tasks.small_project import noisy_quadrants

ROOT = Path(__file__).parents[3]
PNG = encoded(noisy_quadrants(1, 20, 3)[0][0])
IMAGE = {"content-type": "image/png"}


@contextmanager
def process(bundle, *options, command=("-m", "kinglet.serving"), stderr=subprocess.PIPE, **environment):
    """Start the server and yield the process and what its line `ready` says."""
    started = subprocess.Popen(
        [sys.executable, *command, str(bundle), *options],
        cwd=ROOT,
        stderr=stderr,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    try:
        ready = {}
        while stderr == subprocess.PIPE and ready.get("event") != "ready":
            line = started.stderr.readline()
            assert line, "the server ended"
            ready = json.loads(line)
        yield started, ready
    finally:
        started.kill()
        started.wait()
        if started.stderr:
            started.stderr.close()


def test_sigterm_under_load_loses_no_request(bundle):
    with process(bundle, "--port", "0", "--drain-delay", "60", "--log", "none") as (server, ready):
        address = f"http://127.0.0.1:{ready['port']}"
        lost, answered, not_ready = [], [], threading.Event()

        def ask_until_the_port_is_closed():
            with httpx.Client(base_url=address, timeout=10) as client:
                while True:
                    try:
                        answered.append(client.post("/predict", content=PNG, headers=IMAGE).status_code)
                    except httpx.ConnectError:
                        return  # nobody listens any more: not a request that was taken
                    except httpx.HTTPError as error:
                        lost.append(repr(error))
                        return

        askers = [threading.Thread(target=ask_until_the_port_is_closed) for _ in range(4)]
        for asker in askers:
            asker.start()
        while len(answered) < 40:
            not_ready.wait(0.01)
        before = len(answered)
        server.send_signal(signal.SIGTERM)
        not_ready.wait(0.15)
        draining = httpx.get(f"{address}/v2/health/ready")
        server.send_signal(signal.SIGTERM)  # the second does not wait for load balancers
        for asker in askers:
            asker.join(20)
        assert server.wait(20) == 0
        rest = server.stderr.read()
    assert (draining.status_code, draining.json()["code"]) == (503, "not_ready")
    assert draining.headers["connection"] == "close"
    assert lost == []
    assert set(answered) == {200}
    assert len(answered) > before  # it went on to answer
    assert json.loads(rest.splitlines()[-1])["event"] == "ended"


def test_the_kinglet_command_serves_too_and_a_ctrl_c_ends_it(bundle):
    with process(bundle, "--port", "0", command=("-m", "flows.cli", "serve")) as (server, ready):
        assert httpx.get(f"{ready['url']}v2/health/ready").json()["name"] == ready["model"]
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0


def test_a_full_disk_under_the_log_costs_no_answer(bundle):
    with Path("/dev/full").open("w") as full:
        port = free_port()
        with process(bundle, stderr=full, KINGLET_PORT=str(port)) as (server, _):
            transport = httpx.HTTPTransport(retries=5)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=20) as client:
                assert client.post("/predict", content=PNG, headers=IMAGE).status_code == 200
                metrics = client.get("/metrics").text
            lost = next(line for line in metrics.splitlines() if line.startswith("kinglet_lost_log_lines_total"))
            assert float(lost.split()[1]) >= 1
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == 0


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.mark.parametrize("module", ["kinglet.serving.server", "kinglet.serving.__main__"])
def test_the_server_imports_nothing_heavy(module):
    heavy = (
        "torch",
        "pandas",
        "scipy",
        "pyarrow",
        "prefect",
        "dvc",
        "fastapi",
        "starlette",
        "typer",
        "pydantic",
        "onnx",
    )
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_help_names_every_setting():
    shown = subprocess.run(
        [sys.executable, "-m", "kinglet.serving", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for option in ("--port", "--max-body-mb", "--drain-delay", "--batch-size", "KINGLET_MAX_BODY_MB"):
        assert option in shown
