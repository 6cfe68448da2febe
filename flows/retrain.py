"""The flow `retrain`: every stage of DVC's graph as a task run, independent stages side by side."""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from flows.graph import read_graph
from flows.processes import end_members, only_run, refuse_beside_dvc, release_stale_path_locks
from flows.server import wait_for_server
from flows.stages import Gate, Outcome, StageBusyError, StageFailedError, bring_up_to_date
from kinglet.atomic import write_json
from kinglet.errors import KingletError
from tasks.artifacts import WORKSPACE
from tasks.stage import FLOW_PID, USER_ERROR_EXIT, exit_code_of, print_error

# Where a run leaves what became of its stages, for the command that started it.
OUTCOMES = WORKSPACE / "outcomes.json"
# The number of a pipe's end that closes when the command that started the run is gone.
ALIVE_PIPE = "KINGLET_ALIVE_PIPE"


@flow(name="retrain", validate_parameters=False, persist_result=False, task_runner=ThreadPoolTaskRunner(max_workers=32))  # type: ignore[arg-type]
def retrain(root: str = ".") -> dict[str, str]:
    """Bring every stage of the checkout in `root` up to date; return {stage: what became of it}.

    Raises StageFailedError when a step failed (its downstream stages did not run, others did), and
    KingletError when another run is at work in this checkout.
    """
    folder = Path(root)
    with only_run(folder):
        refuse_beside_dvc(folder)
        release_stale_path_locks(folder)
        gate = Gate()
        futures: dict[str, PrefectFuture[Outcome]] = {}
        for stage in read_graph(folder):
            upstream = [futures[name] for name in stage.upstream]
            futures[stage.name] = bring_up_to_date.with_options(name=stage.name, task_run_name=stage.name).submit(
                stage, upstream, root, gate, wait_for=upstream
            )
        return outcomes_of(futures)


def outcomes_of(futures: dict[str, PrefectFuture[Outcome]]) -> dict[str, str]:
    """Wait for all stages; return what became of each, or raise the error of the first that failed."""
    failure: BaseException | None = None
    outcomes = {}
    for name, future in futures.items():
        future.wait()
        result = future.result(raise_on_failure=False) if future.state.is_final() else None
        if isinstance(result, Outcome):
            outcomes[name] = str(result)
        elif isinstance(result, BaseException) and failure is None:
            failure = result
    if failure is not None:
        raise failure
    return outcomes


def quiet_prefect() -> None:
    """Keep Prefect from repeating a failed step's error as a traceback: the step has said it in one sentence."""
    for name in (
        "prefect.flow_runs",
        "prefect.task_runs",
        "prefect.engine",
        "prefect.task_engine",
        "prefect.flow_engine",
    ):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def end_with_command() -> None:
    """End this process and all that it started as soon as the command that started it is gone."""
    number = os.environ.pop(ALIVE_PIPE, "")
    if not number:
        return

    def watch() -> None:
        os.read(int(number), 1)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, sys.stderr.fileno())
        end_members(int(os.environ[FLOW_PID]))
        os._exit(1)

    threading.Thread(target=watch, name="end-with-command", daemon=True).start()


def run_here() -> None:
    """Run the flow in the current folder and write its outcomes.

    Raises KingletError with a sentence for all that a user can mend.
    """
    quiet_prefect()
    wait_for_server()
    try:
        outcomes: dict[str, Any] = retrain()
    except StageBusyError as error:
        raise KingletError(str(error), "Wait until it has ended, then run again: finished steps are kept.") from None
    write_json(OUTCOMES, outcomes)


def main() -> int:
    """Run the flow as a process; return its exit code."""
    end_with_command()
    OUTCOMES.unlink(missing_ok=True)
    try:
        return exit_code_of(run_here)
    except StageFailedError as error:
        print_error(str(error), "Mend what it says above and run again: finished steps are kept.")
        return error.exit_code if error.exit_code > 0 else USER_ERROR_EXIT


if __name__ == "__main__":
    sys.exit(main())
