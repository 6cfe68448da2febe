"""A real Prefect server, a real worker and a real receiver of webhooks, for as long as a test needs them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from flows.s3_server import free_port
from tests.pipeline.small_project import wait_until

SECONDS_TO_START = 600


@contextlib.contextmanager
def running_server(home: Path) -> Iterator[str]:
    """Run `prefect server start` with its files in `home`; yield the address of its API."""
    home.mkdir(exist_ok=True)
    port = free_port()
    address = f"http://127.0.0.1:{port}/api"
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        # Schedules are looked at every few seconds instead of every minute.
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "3",
        # A busy machine is no error.
        "PREFECT_SERVER_DATABASE_TIMEOUT": "120",
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "120",
    }
    environment.pop("PREFECT_API_URL", None)
    # flows/ switches these off for the servers of single runs, and has been imported here.
    for name in [name for name in environment if name.startswith("PREFECT_SERVER_SERVICES") and "ENABLED" in name]:
        del environment[name]
    with running(
        [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--no-ui"],
        home / "server.log",
        environment,
    ) as server:
        wait_until(lambda: server.poll() is not None or answers(f"{address}/health"), SECONDS_TO_START)
        assert server.poll() is None, (home / "server.log").read_text()
        yield address


@contextlib.contextmanager
def running(
    command: list[str], log: Path, environment: dict[str, str], folder: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command with its output in `log` until the block ends."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as opened:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=opened, stderr=opened
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


def ask(address: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Return the server's answer to a POST with `body`, or to a GET without one."""
    request = urllib.request.Request(
        f"{address}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    ends = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                content = answer.read()
            return json.loads(content) if content else None
        except urllib.error.HTTPError as error:
            # SQLite lets one write at a time; whoever comes meanwhile is asked to come again.
            if error.code != 503 or time.monotonic() > ends:
                raise
            time.sleep(0.5)


@contextlib.contextmanager
def webhook_receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve on a free port; yield the address and the list of the JSON objects that were sent to it."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", received
        finally:
            server.shutdown()
