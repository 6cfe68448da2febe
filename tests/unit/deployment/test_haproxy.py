"""The front's configuration as HAProxy itself checks it, and its statistics as we read them."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from kinglet.deployment.haproxy import (
    CANDIDATE,
    CHAMPION,
    FALLBACK,
    SERVING,
    close,
    configuration,
    point,
    read_states,
)
from tasks.deploy_settings import FrontSettings
from tasks.front import SOCKET, Front

STATISTICS = (
    "# pxname,svname,scur,econ,eresp,wredis,status,hrsp_5xx,addr,\n"
    "requests,FRONTEND,3,,,,OPEN,0,,\n"
    "serving,champion,2,0,0,0,UP,0,127.0.0.1:30000,\n"
    "serving,BACKEND,3,0,0,0,UP,0,,\n"
    "probation,candidate,1,2,3,5,DOWN 1/2,4,127.0.0.1:30001,\n"
)


def test_statistics_become_states() -> None:
    states = read_states(STATISTICS)
    assert set(states) == {CHAMPION, SERVING, CANDIDATE}
    assert (states[CHAMPION].is_up, states[CHAMPION].current, states[CHAMPION].port) == (True, 2, 30000)
    assert states[SERVING].current == 3
    assert (states[CANDIDATE].is_up, states[CANDIDATE].errors) == (False, 14)


def test_a_server_is_moved_by_commands() -> None:
    assert point(CHAMPION, 30002) == [
        "set server serving/champion addr 127.0.0.1 port 30002",
        "set server serving/champion state ready",
    ]
    assert close(CHAMPION) == ["set server serving/champion state maint"]


@pytest.mark.parametrize("champion", [None, 30000])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_haproxy_takes_the_configuration(tmp_path: Path, champion: int | None, address: str) -> None:
    haproxy = program_or_skip()
    file = tmp_path / "haproxy.cfg"
    file.write_text(configuration(address, 28080, champion, str(tmp_path / "socket")))
    done = subprocess.run([haproxy, "-c", "-f", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


class Container(BaseHTTPRequestHandler):
    """Stands for a container: ready, and answers or fails as its class says."""

    protocol_version = "HTTP/1.1"
    fails: ClassVar[str] = ""

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def do_GET(self) -> None:
        self.answer(200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.fails == "reset":
            # What the kernel sends for a process that was killed with a request in its hands.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        else:
            self.answer(500 if self.fails == "500" else 200)


class Failing500(Container):
    fails = "500"


class FailingReset(Container):
    fails = "reset"


class FailingSlowly(Container):
    fails = "500"
    begun: ClassVar[threading.Event]

    def do_POST(self) -> None:
        self.begun.set()
        time.sleep(1.0)
        super().do_POST()


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A connection that was closed on purpose is no news."""


@pytest.mark.parametrize("failing", [Failing500, FailingReset])
def test_what_a_candidate_fails_to_answer_its_predecessor_answers(tmp_path: Path, failing: type[Container]) -> None:
    with (
        running(failing) as candidate,
        running(Container) as champion,
        running_front(tmp_path, champion) as (ask, address),
    ):
        for command in [*point(FALLBACK, champion), *point(CANDIDATE, candidate)]:
            ask(command)
        await_up(ask, CANDIDATE)
        for _ in range(20):
            with urllib.request.urlopen(address, data=bytes(50_000), timeout=20) as response:
                assert (response.status, response.read()) == (200, b"ok")
        states = read_states(ask("show stat"))
    assert states[CANDIDATE].errors >= 20
    assert states[FALLBACK].errors == 0


def test_what_a_candidate_fails_to_answer_while_it_is_taken_back_its_predecessor_answers(tmp_path: Path) -> None:
    FailingSlowly.begun = threading.Event()
    with (
        running(FailingSlowly) as candidate,
        running(Container) as champion,
        running_front(tmp_path, champion, tmp_path / SOCKET) as (ask, address),
        ThreadPoolExecutor(1) as pool,
    ):
        for command in [*point(FALLBACK, champion), *point(CANDIDATE, candidate)]:
            ask(command)
        await_up(ask, CANDIDATE)
        under_way = pool.submit(lambda: urllib.request.urlopen(address, data=b"an image", timeout=20).status)
        assert FailingSlowly.begun.wait(20)
        Front(None, "front", tmp_path, FrontSettings()).end_probation()  # type: ignore[arg-type]  # asks no engine
        assert under_way.result() == 200
        states = read_states(ask("show stat"))
        assert not states[CANDIDATE].is_up
        # From here on the champion answers by itself.
        with urllib.request.urlopen(address, data=b"an image", timeout=20) as response:
            assert response.status == 200
    assert states[CANDIDATE].errors == 1


def test_a_request_whose_candidate_was_killed_is_answered_although_the_candidate_is_taken_back_at_once(
    tmp_path: Path,
) -> None:
    """HAProxy waits up to a second before it sends such a request again; it is with no server then."""
    with (
        running(Container) as champion,
        running_front(tmp_path, champion, tmp_path / SOCKET) as (_, address),
        ThreadPoolExecutor(3) as pool,
    ):
        front = Front(None, "front", tmp_path, FrontSettings())  # type: ignore[arg-type]  # asks no engine
        ended, statuses = threading.Event(), []

        def client() -> None:
            while not ended.is_set():
                with urllib.request.urlopen(address, data=bytes(9_000), timeout=20) as response:
                    statuses.append(response.status)

        clients = [pool.submit(client) for _ in range(3)]
        for _ in range(10):
            with running(Container) as candidate:
                front.try_candidate(candidate, champion)
            # Nobody listens there now, and requests still go there.
            time.sleep(0.02)
            front.put_back(champion)
            assert not front.states()[CANDIDATE].is_up
        ended.set()
        for done in clients:
            done.result()
    assert len(statuses) >= 30


@contextmanager
def running(handler: type[Container]) -> Iterator[int]:
    """Serve on a free port and yield it."""
    with QuietServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def running_front(
    folder: Path, champion_port: int, line: Path | None = None
) -> Iterator[tuple[Callable[[str], str], str]]:
    """Run HAProxy with our configuration; yield what asks it, and its address."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    file, line = folder / "haproxy.cfg", line or folder / "s"
    file.write_text(configuration("127.0.0.1", port, champion_port, str(line)))

    def ask(command: str) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(line))
            connection.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: connection.recv(65_536), b"")).decode()

    with subprocess.Popen([program_or_skip(), "-db", "-f", str(file)], stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 30
            while not line.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            await_up(ask, CHAMPION)
            yield ask, f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


def await_up(ask: Callable[[str], str], server: str) -> None:
    deadline = time.monotonic() + 30
    while not read_states(ask("show stat"))[server].is_up:
        assert time.monotonic() < deadline, f"{server} does not come up"
        time.sleep(0.02)


def program_or_skip() -> str:
    """Return HAProxy's program; skip the test where there is none."""
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if haproxy is None:
        pytest.skip("there is no haproxy program on this machine")
    return haproxy
