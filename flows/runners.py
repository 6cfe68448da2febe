"""Where the stages work: threads of this machine, or the workers of a Dask cluster."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from prefect.task_runners import ThreadPoolTaskRunner

from kinglet.errors import KingletError

if TYPE_CHECKING:
    from prefect.task_runners import TaskRunner

# A setting of the environment, not of params.yaml: where a stage works changes nothing of what it makes.
RUNNER = "KINGLET_RUNNER"
THREADS = "threads"
DASK = "dask:"
MOST_STAGES_WAITING = 32


def dask_scheduler() -> str | None:
    """Return the address of the Dask scheduler that KINGLET_RUNNER names, None where stages work on this machine.

    Raises KingletError if it is neither `threads` nor `dask:ADDRESS`.
    """
    setting = os.environ.get(RUNNER, "") or THREADS
    if setting == THREADS:
        return None
    address = setting.removeprefix(DASK)
    if not setting.startswith(DASK) or "://" not in address:
        raise KingletError(
            f"{RUNNER} is {setting!r}; known are `threads` and `dask:ADDRESS`.",
            f"For example: {RUNNER}=dask:tcp://10.0.0.1:8786",
        )
    return address


def task_runner() -> TaskRunner[Any]:
    """Return Prefect's task runner for KINGLET_RUNNER.

    Raises KingletError if it is not valid, or `prefect-dask` is not installed where it is needed.
    """
    scheduler = dask_scheduler()
    if scheduler is None:
        return ThreadPoolTaskRunner(max_workers=MOST_STAGES_WAITING)
    try:
        # Seconds of imports that a run on one machine is spared.
        from prefect_dask import DaskTaskRunner
    except ImportError:
        raise KingletError(
            f"{RUNNER} names a Dask cluster, and prefect-dask is not installed.", "pip install prefect-dask"
        ) from None
    return DaskTaskRunner(address=scheduler)
