"""The flow `retrain`: every stage of DVC's graph as a task run, independent stages side by side."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from flows.graph import read_graph
from flows.processes import only_run, refuse_beside_dvc, release_stale_path_locks
from flows.stages import Gate, Outcome, bring_up_to_date
from kinglet.runtime.processors import available_processors

# Three one-thread trainings on two processors end sooner than two and then one; many would need much memory.
CROWDED_PER_PROCESSOR = 2


@flow(name="retrain", validate_parameters=False, persist_result=False, task_runner=ThreadPoolTaskRunner(max_workers=32))  # type: ignore[arg-type]
def retrain() -> dict[str, str]:
    """Bring every stage of the checkout in the current folder up to date; return {stage: what became of it}.

    Raises StageFailedError when a step failed (its downstream stages did not run, others did), and
    KingletError when another run is at work in this checkout.
    """
    folder = Path.cwd()
    with only_run(folder):
        refuse_beside_dvc(folder)
        release_stale_path_locks(folder)
        gate = Gate(CROWDED_PER_PROCESSOR * available_processors())
        futures: dict[str, PrefectFuture[Outcome]] = {}
        for stage in read_graph():
            upstream = [futures[name] for name in stage.upstream]
            # Prefect's type of submit() does not know wait_for beside a task's own arguments.
            run: Any = bring_up_to_date.with_options(name=stage.name, task_run_name=stage.name)
            futures[stage.name] = run.submit(stage, upstream, gate, wait_for=upstream)
        return outcomes_of(futures)


def outcomes_of(futures: dict[str, PrefectFuture[Outcome]]) -> dict[str, str]:
    """Wait for all stages; return what became of each, or raise the error of the first that failed."""
    failure: BaseException | None = None
    outcomes = {}
    for name, future in futures.items():
        future.wait()
        result: Any = future.result(raise_on_failure=False) if future.state.is_final() else None
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
