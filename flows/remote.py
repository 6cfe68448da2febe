"""The DVC remote, through which machines exchange data and results, and which of its errors pass by themselves."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.stages import stage_environment
from kinglet.errors import KingletError

# In DVC's, botocore's and the system's words. A wrong key, a missing bucket or a missing file are none of these.
PASSES_BY_ITSELF = re.compile(
    r"could not connect|connect(ion)? ?timed? ?out|timed? ?out|connection (was )?(refused|reset|closed|aborted)"
    r"|temporar|name resolution|slow ?down|too many requests|service ?unavailable|bad gateway|internal ?server ?error"
    r"|unable to acquire lock|is busy",
    re.IGNORECASE,
)
# Of tasks that speak to the remote. Two minutes in all: a store that is restarted is back by then.
PATIENT: dict[str, Any] = {"cache_policy": NO_CACHE, "retries": 5, "retry_delay_seconds": [2.0, 8.0, 20.0, 30.0, 60.0]}


class RemoteUnreachableError(KingletError):
    """The DVC remote could not be reached, or was overloaded: it may be tried again."""


def refuse_without_remote(folder: Path) -> None:
    """Raise KingletError if the checkout in `folder` has no default DVC remote."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "config", "core.remote"], cwd=folder, capture_output=True, text=True, check=False
    )
    if not done.stdout.strip():
        raise KingletError(
            "DVC has no default remote, through which machines exchange data and results.",
            "Add one: .venv/bin/dvc remote add --default store s3://BUCKET/dvc",
        )


def call_dvc(*arguments: str, folder: Path) -> str:
    """Run a DVC command in the checkout in `folder`; return what it printed on stdout.

    Raises RemoteUnreachableError where another try may help, else KingletError with DVC's own sentence.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments],
        cwd=folder,
        env=stage_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = reason_of(done.stderr)
        if PASSES_BY_ITSELF.search(done.stderr):
            raise RemoteUnreachableError(f"dvc {arguments[0]}: {said}")
        raise KingletError(f"`dvc {' '.join(arguments)}` failed in {folder}: {said}", "Mend it and run again.")
    return done.stdout


def reason_of(stderr: str) -> str:
    """Return DVC's error as one line: what stands behind `ERROR:`, else its last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return "; ".join(errors) or (lines[-1] if lines else "it said nothing")


def is_unreachable(_task: Any, _task_run: Any, state: Any) -> bool:
    """Return whether a task failed only because the remote could not be reached."""
    return isinstance(state.result(raise_on_failure=False), RemoteUnreachableError)


@task(**PATIENT, retry_condition_fn=is_unreachable)
def pull_from_remote(folder: Path) -> None:
    """Bring the data, the results of dvc.lock and the run-cache from the remote, as far as they are there."""
    call_dvc("pull", "--run-cache", "--allow-missing", folder=folder)


@task(**PATIENT, retry_condition_fn=is_unreachable)
def push_to_remote(folder: Path) -> None:
    """Leave the data, the results of dvc.lock and the run-cache in the remote."""
    call_dvc("push", "--run-cache", folder=folder)
