"""How a step starts and ends as a process: parameters in, one sentence out where the user can mend it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from kinglet.atomic import NO_SPACE, read_json, write_json
from kinglet.errors import KingletError
from tasks.artifacts import ARTIFACTS, WORKSPACE
from tasks.parameters import Parameters, load_parameters

USER_ERROR_EXIT = 2
INTERRUPTED_EXIT = 130
# Set by the flow to its own process id, so that its steps end with it however it ends.
FLOW_PID = "KINGLET_FLOW_PID"
# Set by DVC for the command of a stage.
DVC_STAGE = "DVC_STAGE"
SHELLS = ("sh", "ash", "bash", "dash", "fish", "ksh", "zsh")


def run_stage(step: Callable[[Parameters], None]) -> None:
    """Run `step` with the parameters of `params.yaml` and end the process with its exit code.

    0: done. 2: something the user can mend, said in one sentence on stderr. Anything else is a
    defect and shows its traceback. The seconds that the step took are kept in .kinglet/timings.json.
    """
    end_with_parent()
    stage = os.environ.get(DVC_STAGE) or Path(sys.argv[0]).stem
    sys.exit(timed(stage, lambda: exit_code_of(lambda: step(load_parameters()))))


def timed(stage: str, action: Callable[[], int], workspace: Path = WORKSPACE) -> int:
    """Run `action`, keep when it began and ended under `stage` in the workspace's timings, return its exit code.

    Timings lie outside the artifacts: they change with every run, and no stage depends on them.
    """
    started = time.time()
    exit_code = 1
    try:
        exit_code = action()
    finally:
        record_timing(stage, {"started": started, "ended": time.time(), "exit_code": exit_code}, workspace)
    return exit_code


def record_timing(stage: str, timing: dict[str, Any], workspace: Path = WORKSPACE) -> None:
    """Put one stage's timing into `workspace`/timings.json; stages that end at once do not lose each other's.

    A full disk loses the timing and nothing else: the step has said already what happened to it.
    """
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        with (workspace / "timings.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            write_json(workspace / "timings.json", {**read_timings(workspace), stage: timing})
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise


def read_timings(workspace: Path = WORKSPACE) -> dict[str, dict[str, Any]]:
    """Return {stage: {started, ended: seconds since the epoch, exit_code}} of every stage's last run."""
    try:
        timings = read_json(workspace / "timings.json")
    except (FileNotFoundError, ValueError):
        return {}
    return timings if isinstance(timings, dict) else {}


def exit_code_of(action: Callable[[], None]) -> int:
    """Run `action`; return 0, or print what the user can mend as a sentence and return 2."""
    try:
        action()
    except KingletError as error:
        print_error(error.message, error.hint)
        return USER_ERROR_EXIT
    except OSError as error:
        explained = explain(error)
        if explained is None:
            raise
        print_error(explained.message, explained.hint)
        return USER_ERROR_EXIT
    except KeyboardInterrupt:
        print_error("Stopped by the user.", "Run again: finished steps and epochs are kept.")
        return INTERRUPTED_EXIT
    return 0


def explain(error: OSError) -> KingletError | None:
    """Return the sentence for what the system refused and the user can mend; None for what is a defect.

    That is: no space left, a file or folder that must not be read or written, and a missing output of
    another step.
    """
    # Arrow names the file in its words only.
    quoted = re.search(r"'(.+?)'", str(error))
    name = str(error.filename or (quoted[1] if quoted else error))
    if error.errno in NO_SPACE:
        return KingletError(
            f"No space left while writing {error.filename or 'an output'}.",
            "Free some space and run again: finished steps are kept.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return KingletError(f"{name} cannot be used: {error.strerror}.", "Change its permissions and run again.")
    if isinstance(error, FileNotFoundError) and Path(name).is_relative_to(ARTIFACTS):
        return KingletError(
            f"{name} does not exist: the step that writes it has not run.",
            "Run `dvc repro`, which runs what is missing first.",
        )
    return None


def print_error(message: str, hint: str = "") -> None:
    """Print an error as a sentence and, where there is one, a hint, to stderr."""
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    sys.stderr.flush()


def end_with_parent(poll_seconds: float = 0.5) -> None:
    """End this process soon after DVC, or the flow that started it, is gone.

    DVC leaves its step running when it is killed; nobody would read what such an orphan writes.
    """
    descent = line_of_descent()
    flow = int(os.environ.get(FLOW_PID, "0"))

    def watch() -> None:
        while is_unbroken(descent) and (not flow or is_alive(flow)):
            time.sleep(poll_seconds)
        os._exit(1)

    if is_orphan(descent):
        os._exit(1)
    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def line_of_descent() -> list[tuple[int, int]]:
    """Return (process, its parent) from this process up to the first that is no shell.

    DVC runs a command through a shell. Some shells stay in between (dash does, for more than one
    command), and such a shell outlives DVC as quietly as the step would.
    """
    line = [(os.getpid(), os.getppid())]
    while len(line) < 4:
        parent = line[-1][1]
        try:
            process = psutil.Process(parent)
            if process.name() not in SHELLS:
                break
            line.append((parent, process.ppid()))
        except psutil.Error:
            break
    return line


def is_unbroken(descent: list[tuple[int, int]]) -> bool:
    """Return whether every process of the line still has the same parent."""
    try:
        return all(
            (os.getppid() if child == os.getpid() else psutil.Process(child).ppid()) == parent
            for child, parent in descent
        )
    except psutil.Error:
        return False


def is_orphan(descent: list[tuple[int, int]]) -> bool:
    """Return whether DVC was gone before this process could look: init is no parent of a stage."""
    starter = descent[-1][1]
    if DVC_STAGE not in os.environ or starter > 1:
        return False
    try:
        return "dvc" not in " ".join(psutil.Process(starter).cmdline())
    except psutil.Error:
        return True


def is_alive(pid: int) -> bool:
    """Return whether a process with this id runs; one that ended and was not waited for does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
