"""Run the flow in a process of its own and leave none behind, however either of the two ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from flows.processes import ALIVE_PIPE, end_members, only_run, refuse_beside_dvc, release_stale_path_locks
from flows.server import API_URL, OWN_SERVER, start_server
from kinglet.errors import KingletError
from tasks.stage import FLOW_PID

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(KingletError):
    """The run was asked to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(f"Stopped by {signal.Signals(number).name}.", "Run again: finished steps and epochs are kept.")
        self.exit_code = 128 + number


def run_flow() -> int:
    """Run the flow `retrain` in the current folder; return its exit code when all its processes are gone.

    Raises StoppedError on SIGINT, SIGTERM and SIGHUP, and KingletError when another run or DVC
    command is at work in this checkout.
    """
    # The flow does so itself; here it costs no seconds of imports before the user is told.
    with only_run(Path.cwd()):
        refuse_beside_dvc(Path.cwd())
    return supervise("flows.run")


def supervise(module: str, *arguments: str, seconds_to_end: float = 0.0) -> int:
    """Run a module that runs a flow; return its exit code when all its processes are gone.

    seconds_to_end: how long it may take to undo what it has done when it is asked to stop.

    The flow holds the reading end of a pipe: it closes when this process ends, even by SIGKILL, and
    the flow then ends everything that it started. This process does so when the flow is killed.

    Raises StoppedError on SIGINT, SIGTERM and SIGHUP.
    """
    reading, writing = os.pipe()
    os.environ[FLOW_PID] = str(os.getpid())
    started: list[subprocess.Popen[bytes]] = []
    try:
        with stoppable():
            server = start_server()
            started += [server[0]] if server else []
            flow = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={
                    **os.environ,
                    **({API_URL: server[1], OWN_SERVER: server[1]} if server else {}),
                    ALIVE_PIPE: str(reading),
                    "PYTHONPATH": search_path(),
                },
                stdin=subprocess.DEVNULL,
                pass_fds=(reading,),
                start_new_session=True,
            )
            started.append(flow)
            return abs(flow.wait())
    except StoppedError:
        for process in started[-1:]:
            end_in_order(process, seconds_to_end)
        raise
    finally:
        end_members(os.getpid())
        for process in started:
            process.wait()
        # Of a DVC that was killed nobody may have taken note yet: where the first process of a container does
        # not do so, its id lives on, and DVC alone would take its locks for held ever after.
        release_stale_path_locks(Path.cwd())
        del os.environ[FLOW_PID]
        os.close(reading)
        os.close(writing)


def end_in_order(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Ask a process to end, alone: what it needs to undo its work goes on until then, at most for `seconds`."""
    if seconds:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)


def search_path() -> str:
    """Return the path on which the flow finds flows/ and tasks/, which are no installed packages."""
    return os.pathsep.join(entry for entry in sys.path if entry)


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn the signals that ask a process to end into StoppedError; further ones are ignored while it ends."""

    def stop(number: int, _frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise StoppedError(number)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    except StoppedError:
        # Ended by the caller's clean-up, which must not be interrupted.
        raise
    else:
        for number, handler in before.items():
            signal.signal(number, handler)
