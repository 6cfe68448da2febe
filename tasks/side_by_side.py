"""A step in several processes, one a device, started as torchrun does it."""

from __future__ import annotations

import logging
import sys
import time

from kinglet.errors import KingletError
from kinglet.training.parallel import Team
from tasks.stage import USER_ERROR_EXIT

# What the others leave the leader to say its sentence, before torchrun ends all for the first that failed.
SECONDS_TO_SPEAK = 2.0


def run_side_by_side(module: str, n_processes: int) -> None:
    """Run `python -m MODULE` in so many processes on this machine; ends this one with their exit code if one fails."""
    # Here: a second of imports that a training on one device is spared.
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Its report of a failure is for those who wrote the step; what a user can mend the step has said itself.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=n_processes,
        run_id=module,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
        monitor_interval=0.2,
    )
    try:
        elastic_launch(config, sys.executable)("-m", module)
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        sys.exit(USER_ERROR_EXIT if USER_ERROR_EXIT in codes else 1)


def leave_it_to_the_leader(team: Team, error: KingletError) -> None:
    """Raise an error where the leader stands; elsewhere end without a word: all of them met it."""
    if team.leads:
        raise error
    time.sleep(SECONDS_TO_SPEAK)
    sys.exit(USER_ERROR_EXIT)
