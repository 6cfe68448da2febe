"""The flow `retrain`: every stage of DVC's graph as a task run, independent stages side by side."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.runtime import deployment

from flows.announcements import announce_verdict
from flows.elsewhere import (
    Made,
    bring_up_to_date_elsewhere,
    origin_of,
    read_lock,
    refuse_unadded,
    refuse_uneven,
    restore,
)
from flows.graph import read_graph
from flows.processes import only_run, refuse_beside_dvc, release_stale_path_locks
from flows.remote import pull_from_remote, push_to_remote, refuse_without_remote
from flows.runners import dask_scheduler, task_runner
from flows.stages import Gate, Outcome, bring_up_to_date
from kinglet.errors import KingletError
from kinglet.runtime.processors import available_processors

# Three one-thread trainings on two processors end sooner than two and then one; many would need much memory.
CROWDED_PER_PROCESSOR = 2


@flow(name="retrain", validate_parameters=False, persist_result=False, task_runner=task_runner())
def retrain(remote: bool = False) -> dict[str, str]:
    """Bring every stage of the checkout in the current folder up to date; return {stage: what became of it}.

    remote: take data and earlier results from the DVC remote first, and leave there what was made.
    Raises StageFailedError when a step failed (its downstream stages did not run, others did), and
    KingletError when another run is at work in this checkout.
    """
    folder = Path.cwd()
    with only_run(folder):
        refuse_beside_dvc(folder)
        release_stale_path_locks(folder)
        if remote:
            refuse_without_remote(folder)
            pull_from_remote(folder)
        outcomes = run_elsewhere(folder) if dask_scheduler() else run_here(remote)
        if remote:
            push_to_remote(folder)
    announce_verdict(outcomes)
    return outcomes


def run_here(remote: bool) -> dict[str, str]:
    """Run the stages on this machine; return {stage: what became of it}, or raise the first failure."""
    # What a worker runs nobody watches on a terminal: it is read on the server.
    logged = deployment.id is not None
    gate = Gate(CROWDED_PER_PROCESSOR * available_processors())
    futures: dict[str, PrefectFuture[Outcome]] = {}
    for stage in read_graph():
        upstream = [futures[name] for name in stage.upstream]
        # Prefect's type of submit() does not know wait_for beside a task's own arguments.
        run: Any = bring_up_to_date.with_options(name=stage.name, task_run_name=stage.name)
        futures[stage.name] = run.submit(stage, upstream, gate, remote, logged, wait_for=upstream)
    results, failure = results_of(futures)
    if failure is not None:
        raise failure
    return {name: str(outcome) for name, outcome in results.items()}


def run_elsewhere(folder: Path) -> dict[str, str]:
    """Run the stages on the machines of a Dask cluster, bring back what they made; return {stage: what became of it}.

    Raises the first failure, when what the other stages made is back.
    """
    origin, stages, known = origin_of(folder), read_graph(), read_lock(folder)
    refuse_unadded(stages)
    refuse_uneven(connected_workers())
    # What does not change is read by stages elsewhere.
    push_to_remote(folder)
    futures: dict[str, PrefectFuture[Made]] = {}
    for stage in stages:
        upstream = [futures[name] for name in stage.upstream]
        run: Any = bring_up_to_date_elsewhere.with_options(name=stage.name, task_run_name=stage.name)
        futures[stage.name] = run.submit(stage, upstream, origin, known, wait_for=upstream)
    results, failure = results_of(futures)
    changed = {name: made for name, made in results.items() if made.outcome is not Outcome.UNCHANGED}
    restore(folder, {name: made.entries[name] for name, made in changed.items()})
    if failure is not None:
        raise failure
    return {name: str(made.outcome) for name, made in results.items()}


def connected_workers() -> dict[str, Any]:
    """Return {address: facts} of the workers of the cluster that this flow's task runner uses.

    Raises KingletError if its scheduler does not answer.
    """
    context: Any = FlowRunContext.get()
    try:
        return dict(context.task_runner.client.scheduler_info(n_workers=-1)["workers"])
    except OSError as error:
        raise KingletError(
            f"The Dask scheduler {dask_scheduler()} does not answer: {error}", "Start it: dask scheduler"
        ) from None


def results_of(futures: dict[str, PrefectFuture[Any]]) -> tuple[dict[str, Any], BaseException | None]:
    """Wait for all stages; return {stage: its result} of those that succeeded, and the first error."""
    failure: BaseException | None = None
    results = {}
    for name, future in futures.items():
        future.wait()
        result: Any = future.result(raise_on_failure=False) if future.state.is_final() else None
        if isinstance(result, BaseException):
            failure = failure or result
        elif result is not None:
            results[name] = result
    lost = [name for name in futures if name not in results]
    if lost and failure is None:
        failure = KingletError(
            f"No result came back of {', '.join(lost)}: the process that worked on it is gone.",
            "Run again: finished steps are kept.",
        )
    return results, failure


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
