"""One stage = one Prefect task run = one `dvc repro -s NAME` in a process group of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from rich.console import Console

from flows.graph import Stage
from flows.processes import other_dvc_commands
from tasks.artifacts import WORKSPACE
from tasks.stage import FLOW_PID, read_timings

SECONDS_TO_END = 5.0
# How a step begins the sentence that says why it cannot go on.
STEP_ERROR = "error: "
# What DVC says that is of no use inside a run.
CHATTER = (
    "To track the changes with git",
    "To enable auto staging",
    "Use `dvc push`",
    "git add ",
    "dvc config core.autostage",
)


class Outcome(StrEnum):
    """What became of a stage."""

    RAN = "ran"
    RESTORED = "restored from cache"
    UNCHANGED = "unchanged"


class StageFailedError(Exception):
    """A stage's step failed; it has said why on stderr, or it is said here.

    stage: its name. exit_code: the step's. reason: the step's sentence, empty where a terminal has shown it.
    """

    def __init__(self, stage: str, exit_code: int, reason: str = "") -> None:
        super().__init__(f"Stage '{stage}' failed (exit code {exit_code}).{reason and f' {reason}'}")
        self.stage = stage
        self.exit_code = exit_code
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.stage, self.exit_code, self.reason)


class StageBusyError(Exception):
    """Another DVC command holds the paths of this stage."""


class Gate:
    """Lets stages run side by side, a stage that asks for it alone, and of crowded ones so many at once."""

    def __init__(self, most_crowded: int = 2) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._alone = False
        self._most_crowded = most_crowded
        self._crowded = 0

    @contextmanager
    def entered(self, *, alone: bool, crowded: bool = False) -> Iterator[None]:
        """Wait until the stage may run, hold its place for the duration of the block."""

        def may_run() -> bool:
            has_room = not crowded or self._crowded < self._most_crowded
            return not self._alone and has_room and (not alone or not self._running)

        with self._changed:
            self._changed.wait_for(may_run)
            self._running += 1
            self._crowded += crowded
            self._alone = alone
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._crowded -= crowded
                self._alone = False
                self._changed.notify_all()


def is_worth_a_retry(_task: Any, _task_run: Any, state: Any) -> bool:
    """Return whether a stage failed only because another command held a lock; a failed step never is."""
    return isinstance(state.result(raise_on_failure=False), StageBusyError)


@task(cache_policy=NO_CACHE, retries=30, retry_delay_seconds=2, retry_condition_fn=is_worth_a_retry)
def bring_up_to_date(
    stage: Stage, upstream: Sequence[Outcome], gate: Gate, pull: bool = False, logged: bool = False
) -> Outcome:
    """Run a stage if it changed or anything that it reads was made anew; return what became of it.

    pull: as for `reproduce`. logged: DVC's and the step's lines go to the task run's log on the server.
    """
    if not stage.changed and all(outcome is Outcome.UNCHANGED for outcome in upstream):
        return Outcome.UNCHANGED
    tell = get_run_logger().info if logged else None
    with gate.entered(alone=stage.exclusive, crowded=stage.crowded):
        return reproduce(stage.name, tell=tell, pull=pull)


def reproduce(
    name: str, folder: Path | None = None, *, tell: Callable[[str], object] | None = None, pull: bool = False
) -> Outcome:
    """Run `dvc repro` for one stage of the checkout in `folder` (default: the current one); return what DVC did.

    tell: is given every line of DVC's and the step's; None: they are passed on to stderr. pull: results that the
    run-cache knows and only the DVC remote has are taken from there.
    Raises StageFailedError, or StageBusyError when DVC did not start because of another command.
    """
    folder = folder or Path.cwd()
    began = time.time()
    reason = ""
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", *(["--pull"] if pull else []), name],
        cwd=folder,
        env=stage_environment(),
        stdin=subprocess.DEVNULL,
        # On a terminal stderr stays its own, so that a step's progress bar is one; DVC's words come here.
        stderr=subprocess.STDOUT if tell else None,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    outcome: Outcome | None = None
    try:
        assert process.stdout is not None
        for line in process.stdout:
            outcome = outcome_of(line) or outcome
            if line.strip().startswith(CHATTER) or not line.strip():
                continue
            if tell is None:
                print(line, end="", file=sys.stderr, flush=True)
                continue
            tell(line.rstrip())
            if line.startswith(STEP_ERROR):
                reason = line.removeprefix(STEP_ERROR).strip()
        exit_code = process.wait()
    except BaseException:
        end_group(process)
        raise
    if exit_code == 0:
        if outcome is not Outcome.UNCHANGED:
            Console(stderr=True, highlight=False).print(
                f"{name}: {outcome or Outcome.RAN}, {time.time() - began:.1f} s"
            )
        return outcome or Outcome.RAN
    if outcome is None and (others := other_dvc_commands(folder)):
        raise StageBusyError(f"Stage '{name}' waits for process {others[0][0]} ({others[0][1]}).")
    timing = read_timings(folder / WORKSPACE).get(name, {})
    raise StageFailedError(name, int(timing["exit_code"]) if timing.get("started", 0) >= began else 1, reason)


def stage_environment() -> dict[str, str]:
    """Return the environment of a stage: this python first on the path, and the id of the run that it ends with."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        FLOW_PID: os.environ.get(FLOW_PID, str(os.getpid())),
    }


def outcome_of(line: str) -> Outcome | None:
    """Return what a line of DVC's output says about the stage, if it does."""
    if "didn't change, skipping" in line:
        return Outcome.UNCHANGED
    if "is cached - skipping run, checking out outputs" in line:
        return Outcome.RESTORED
    if line.startswith(("Running stage '", "Verifying data sources")):
        return Outcome.RAN
    return None


def end_group(process: subprocess.Popen[str]) -> None:
    """End DVC and everything it started: asked first, killed when still there after a while."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
            break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
