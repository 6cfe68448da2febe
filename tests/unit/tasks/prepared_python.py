"""A Python that has loaded the libraries of the steps, and from which steps are forked.

Most of a step's time on a few images is the import of its libraries. A step that is forked is a process of its own as
ever, with its own module as `__main__`, its own folder, environment and exit; only the libraries are there already.
What an interpreter reads at its own start (the locale), and what only `exec` brings about (fewer rights), it cannot
be given.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import multiprocessing
import os
import runpy
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
# None of the project's modules that a step runs as its main one, or that read the environment when imported.
LIBRARIES = (
    "kinglet.data.expectations",
    "onnx",
    "onnxruntime",
    "pandas",
    "psutil",
    "pyarrow.parquet",
    "pydantic",
    "rich.console",
    "scipy.ndimage",
    "scipy.optimize",
    "scipy.sparse.csgraph",
    "torch",
    "yaml",
)


class PreparedPython:
    """The process that steps are forked from; it starts with the first of them and ends with the one that made it."""

    def __init__(self) -> None:
        self._started: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    def channel(self) -> socket.socket:
        """Return this end of what the process is told through; it is started if it does not run."""
        if self._started is None:
            channel, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.unit.tasks.prepared_python", str(its_end.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=(its_end.fileno(),),
            )
            its_end.close()
            self._started = process, channel
        return self._started[1]

    def run(
        self, module: str, folder: Path, environment: dict[str, str], seconds: float, before: list[str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a module as `python -m` does, in a folder with an environment; return what it said and its exit code.

        before: functions that the child calls first, as MODULE:NAME.
        Raises TimeoutError if it takes longer than that. Whatever is raised, what was forked ends.
        """
        channel, ends = self.channel(), time.monotonic() + seconds
        pipes = [os.pipe(), os.pipe()]
        request = {"module": module, "folder": str(folder), "environment": environment, "before": before}
        socket.send_fds(channel, [json.dumps(request).encode()], [writing for _, writing in pipes])
        for _, writing in pipes:
            os.close(writing)
        try:
            stdout, stderr = read_to_the_end([reading for reading, _ in pipes], ends)
            channel.settimeout(max(1.0, ends - time.monotonic()))
            answer = channel.recv(64)
        except BaseException:
            # Else the next step would be told how this one ended.
            self.end()
            raise
        assert answer, "the process that steps are forked from has ended by itself"
        return subprocess.CompletedProcess([sys.executable, "-m", module], int(answer), stdout, stderr)

    def end(self) -> None:
        """End the process; a step ends with the one that it was forked from."""
        if self._started is not None:
            process, channel = self._started
            self._started = None
            channel.close()
            process.kill()
            process.wait()


def read_to_the_end(pipes: list[int], ends: float) -> list[str]:
    """Return all that comes out of the pipes, and close them; raises TimeoutError when the time is over."""
    contents = dict.fromkeys(pipes, b"")
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, ends - time.monotonic()))
            if not ready:
                raise TimeoutError("a step took too long")
            for key, _ in ready:
                content = os.read(key.fd, 1 << 16)
                contents[key.fd] += content
                if not content:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return [io.TextIOWrapper(io.BytesIO(content), encoding="utf-8").read() for content in contents.values()]


def serve(channel: socket.socket) -> None:
    """Fork a child for every request and tell its exit code, until the other end of the channel is closed."""
    while True:
        message, streams, _, _ = socket.recv_fds(channel, 1 << 20, 2)
        if not message:
            return
        # A child of `multiprocessing` ends without the libraries' destructors, which would wait for threads that a
        # fork does not have.
        child = multiprocessing.get_context("fork").Process(target=be_step, args=(json.loads(message), streams))
        child.start()
        for stream in streams:
            os.close(stream)
        child.join()
        # Who was killed meanwhile waits for no answer.
        with contextlib.suppress(BrokenPipeError):
            channel.sendall(str(child.exitcode).encode())


def be_step(request: dict[str, Any], streams: list[int]) -> None:
    """Do in this process what the request asks for."""
    for stream, number in zip(streams, (sys.stdout.fileno(), sys.stderr.fileno()), strict=True):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[1:] = []
    sys.path[0] = request["folder"]
    sys.path.insert(1, str(ROOT))
    for name in request["before"]:
        place, _, function = name.partition(":")
        getattr(importlib.import_module(place), function)()
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    serve(socket.socket(fileno=int(sys.argv[1])))
