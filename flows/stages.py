"""One stage = one Prefect task run = one `dvc repro -s NAME` in a process group of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from rich.console import Console

from flows.graph import Stage
from flows.processes import other_dvc_commands
from tasks.stage import FLOW_PID, read_timings

SECONDS_TO_END = 5.0
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
    """A stage's step failed; it has said why on stderr.

    stage: its name. exit_code: the step's.
    """

    def __init__(self, stage: str, exit_code: int) -> None:
        super().__init__(f"Stage '{stage}' failed (exit code {exit_code}).")
        self.stage = stage
        self.exit_code = exit_code


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
def bring_up_to_date(stage: Stage, upstream: Sequence[Outcome], gate: Gate) -> Outcome:
    """Run a stage if it changed or anything that it reads was made anew; return what became of it."""
    if not stage.changed and all(outcome is Outcome.UNCHANGED for outcome in upstream):
        return Outcome.UNCHANGED
    with gate.entered(alone=stage.exclusive, crowded=stage.crowded):
        return reproduce(stage.name)


def reproduce(name: str) -> Outcome:
    """Run `dvc repro` for one stage of the current folder, its output passed on, and return what DVC did.

    Raises StageFailedError, or StageBusyError when DVC did not start because of another command.
    """
    began = time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", name],
        env=stage_environment(),
        stdin=subprocess.DEVNULL,
        # stderr stays the terminal's own, so that a step's progress bar is one; DVC's words come here.
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
            if not line.strip().startswith(CHATTER) and line.strip():
                print(line, end="", file=sys.stderr, flush=True)
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
    if outcome is None and (others := other_dvc_commands(Path.cwd())):
        raise StageBusyError(f"Stage '{name}' waits for process {others[0][0]} ({others[0][1]}).")
    timing = read_timings().get(name, {})
    raise StageFailedError(name, int(timing["exit_code"]) if timing.get("started", 0) >= began else 1)


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
