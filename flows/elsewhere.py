"""Stages on other machines: each works in a clone at the run's commit, and what it makes comes back by hash.

Between machines travels what Git and the DVC remote hold, and the entries of dvc.lock: nothing else.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dvc.utils.serialize import dump_yaml, load_yaml
from prefect import get_run_logger, task

from flows.graph import Stage
from flows.processes import release_stale_path_locks
from flows.remote import PATIENT, RemoteUnreachableError, call_dvc, reason_of, refuse_without_remote
from flows.server import OWN_SERVER
from flows.stages import Outcome, StageBusyError, reproduce
from kinglet.atomic import atomic_path
from kinglet.errors import KingletError
from tasks.artifacts import WORKSPACE

LOCK_FILE = "dvc.lock"
# How `dvc add` calls what it writes about a data set; Git carries it from machine to machine.
DATA_FILE = ".dvc"
# Where other machines clone from; the address of Git's remote `origin` if it is not set.
REPOSITORY = "KINGLET_REPOSITORY"
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")

# {stage: its entry in dvc.lock}
Entries = dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """What other machines clone. repository: an address that all of them reach. commit: its full hash."""

    repository: str
    commit: str


@dataclass(frozen=True)
class Made:
    """What a stage left. entries: of this stage and of all before it that were asked for in this run."""

    outcome: Outcome
    entries: Entries


def origin_of(folder: Path) -> Origin:
    """Return what other machines are to clone to work on the checkout in `folder`.

    Raises KingletError if something in it is not committed, the commit is not in the repository that others clone, or
    there is no such repository or no DVC remote.
    """
    refuse_without_remote(folder)
    edited = [line[3:] for line in git(folder, "status", "--porcelain").splitlines() if line[3:] != LOCK_FILE]
    if edited:
        raise KingletError(
            f"Other machines work on what is committed, and {edited[0]} is not"
            f"{f' (and {len(edited) - 1} more)' if len(edited) > 1 else ''}.",
            "Commit and push it, or run without KINGLET_RUNNER.",
        )
    repository = os.environ.get(REPOSITORY) or git(folder, "remote", "get-url", "origin").strip()
    commit = git(folder, "rev-parse", "HEAD").strip()
    known = git(folder, "ls-remote", repository).split()
    if commit not in known:
        raise KingletError(
            f"{repository} has no branch at the commit {commit[:12]} of this checkout, which others would clone.",
            "Push it first: git push",
        )
    return Origin(repository, commit)


def refuse_unadded(stages: Sequence[Stage]) -> None:
    """Raise KingletError if a data set is not as its .dvc file says: other machines would get the one that it says."""
    for stage in stages:
        if stage.changed and stage.name.endswith(DATA_FILE):
            raise KingletError(
                f"{stage.name.removesuffix(DATA_FILE)} is not as {stage.name} says.",
                f"Add it with `dvc add {stage.name.removesuffix(DATA_FILE)}`, commit and push {stage.name}.",
            )


def refuse_uneven(workers: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise KingletError if a cluster cannot do the work. workers: {address: facts}, as Dask's scheduler tells them.

    A stage needs a machine to itself, as its trainings and latencies would disturb one another: one thread each.
    """
    if not workers:
        raise KingletError("The Dask cluster has no workers.", "Start one: dask worker ADDRESS --nthreads 1")
    for address, facts in sorted(workers.items()):
        if facts["nthreads"] != 1:
            raise KingletError(
                f"The Dask worker {address} would let {facts['nthreads']} stages work side by side.",
                "Start it with --nthreads 1: a stage takes the processors that it needs by itself.",
            )
        if OWN_SERVER in os.environ and urlsplit(address).hostname not in LOCAL_HOSTS:
            raise KingletError(
                f"The Dask worker {address} cannot reach a Prefect server that only this machine sees.",
                "Name a server that all machines reach in PREFECT_API_URL.",
            )


def is_worth_another_try(_task: Any, _task_run: Any, state: Any) -> bool:
    """Return whether a stage failed only for want of the remote or of a lock; a failed step never is tried again."""
    return isinstance(state.result(raise_on_failure=False), (RemoteUnreachableError, StageBusyError))


@task(**PATIENT, retry_condition_fn=is_worth_another_try)
def bring_up_to_date_elsewhere(stage: Stage, upstream: Sequence[Made], origin: Origin, known: Entries) -> Made:
    """Run a stage in a clone on the machine that this is called on, if it changed or anything that it reads did.

    known: the entries of the dvc.lock with which the run began. The outputs are in the DVC remote when this returns.
    """
    entries = {name: entry for each in upstream for name, entry in each.entries.items()}
    if stage.name.endswith(DATA_FILE):
        return Made(Outcome.UNCHANGED, entries)
    if not stage.changed and all(each.outcome is Outcome.UNCHANGED for each in upstream):
        kept = {stage.name: known[stage.name]} if stage.name in known else {}
        return Made(Outcome.UNCHANGED, entries | kept)
    with clone_of(origin) as clone:
        merge_lock(clone, known | entries)
        if stage.upstream:
            call_dvc("pull", "--force", *stage.upstream, folder=clone)
        outcome = reproduce(stage.name, clone, tell=get_run_logger().info, pull=True)
        call_dvc("push", "--run-cache", stage.name, folder=clone)
        own = read_lock(clone)
        return Made(outcome, entries | ({stage.name: own[stage.name]} if stage.name in own else {}))


@contextmanager
def clone_of(origin: Origin) -> Iterator[Path]:
    """Yield this process's clone of the repository, at the commit, its tracked files as they are there.

    It lies in the current folder's .kinglet/clones and is used again by the next stage: what Git and DVC have fetched
    is kept. Another process that starts in the same folder waits.
    """
    folder = Path.cwd() / WORKSPACE / "clones" / hashlib.sha256(origin.repository.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".git").is_dir():
            git(folder, "init", "--quiet")
        git(folder, "fetch", "--quiet", "--tags", origin.repository, "+refs/heads/*:refs/remotes/origin/*")
        git(folder, "checkout", "--quiet", "--force", "--detach", origin.commit)
        environment = folder / ".venv"
        if not environment.exists():
            # The stages' python, as dvc.yaml names it: that of the worker.
            environment.symlink_to(sys.prefix)
        (folder / LOCK_FILE).unlink(missing_ok=True)
        release_stale_path_locks(folder)
        yield folder


def restore(folder: Path, made: Entries) -> None:
    """Put what other machines made into the checkout in `folder`: entries into dvc.lock, files by their hash."""
    if not made:
        return
    merge_lock(folder, made)
    call_dvc("pull", "--force", *sorted(made), folder=folder)


def read_lock(folder: Path) -> Entries:
    """Return the entries of a checkout's dvc.lock, none if it has none."""
    path = folder / LOCK_FILE
    return dict(load_yaml(str(path)).get("stages", {})) if path.exists() else {}


def merge_lock(folder: Path, entries: Entries) -> None:
    """Put entries into a checkout's dvc.lock, in the place of older ones of the same stages."""
    merged = read_lock(folder) | entries
    with atomic_path(folder / LOCK_FILE) as temporary:
        dump_yaml(str(temporary), {"schema": "2.0", "stages": merged})


def git(folder: Path, *arguments: str) -> str:
    """Run a Git command in `folder`; return what it printed.

    Raises RemoteUnreachableError if a repository elsewhere did not answer, else KingletError with Git's own sentence.
    """
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = f"`git {' '.join(arguments)}` failed in {folder}: {reason_of(done.stderr)}"
        if "Could not read from remote" in done.stderr or "unable to access" in done.stderr:
            raise RemoteUnreachableError(said)
        raise KingletError(said)
    return done.stdout
