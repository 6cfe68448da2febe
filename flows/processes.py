"""Processes of a run: which ones belong to it, how they end, and who else is at work in the checkout."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from kinglet.atomic import write_text
from kinglet.errors import KingletError
from tasks.artifacts import WORKSPACE
from tasks.stage import FLOW_PID, is_alive

# The number of a pipe's end that closes when the command that started the run is gone.
ALIVE_PIPE = "KINGLET_ALIVE_PIPE"
# How long a run waits for one that was killed a moment ago to be gone.
SECONDS_TO_VANISH = 15.0


def members(flow: int) -> list[psutil.Process]:
    """Return the living processes that the run with this process id started, itself and the caller left out.

    They are known by a variable in their environment, which every child inherits, so that neither a
    session of its own nor the death of its parent hides one.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid in (os.getpid(), flow) or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(FLOW_PID) == str(flow):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def end_members(flow: int, grace_seconds: float = 3.0) -> None:
    """End all processes of a run: ask them, and after `grace_seconds` kill those that are left."""
    deadline = time.monotonic() + grace_seconds
    asked: set[int] = set()
    while left := members(flow):
        for process in left:
            late = time.monotonic() > deadline
            if not late and process.pid in asked:
                continue
            asked.add(process.pid)
            try:
                process.kill() if late else process.terminate()
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.1)
        if time.monotonic() > deadline + grace_seconds:
            return


@contextmanager
def only_run(root: Path) -> Iterator[None]:
    """Hold the checkout's lock for the duration of the block, with the id of the run in it.

    Raises KingletError that names the other process when another run holds it.
    """
    path = root / WORKSPACE / "run.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        deadline = time.monotonic() + SECONDS_TO_VANISH
        while not is_locked_now(file):
            holder = read_pid(path)
            # A run that was killed holds the lock until the last of its processes is gone.
            if (holder and is_alive(holder)) or time.monotonic() > deadline:
                raise KingletError(
                    f"Another run (process {holder or 'unknown'}) is at work in this checkout.",
                    "Wait until it has ended, or stop it, then run again.",
                )
            time.sleep(0.2)
        file.seek(0)
        file.truncate()
        file.write(os.environ.get(FLOW_PID, str(os.getpid())))
        file.flush()
        yield


def is_locked_now(file: Any) -> bool:
    """Try to lock an open file for this process; return whether that worked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def read_pid(path: Path) -> int:
    """Return the process id in a lock file, 0 when there is none."""
    try:
        return int(path.read_text() or 0)
    except (OSError, ValueError):
        return 0


def other_dvc_commands(root: Path) -> list[tuple[int, str]]:
    """Return (process id, command) of every living DVC command that reads or writes outputs of this checkout."""
    content = read_path_locks(root)
    entries = list(content.get("write", {}).values())
    entries += [entry for readers in content.get("read", {}).values() for entry in readers]
    return sorted({(int(entry["pid"]), str(entry["cmd"])) for entry in entries if is_dvc(int(entry["pid"]))})


def refuse_beside_dvc(root: Path) -> None:
    """Raise KingletError when another DVC command is running a stage in this checkout."""
    deadline = time.monotonic() + 1.0
    while others := other_dvc_commands(root):
        if time.monotonic() > deadline:
            pid, command = others[0]
            raise KingletError(
                f"Another DVC command (process {pid}: {command}) is at work in this checkout.",
                "Wait until it has ended, or stop it, then run again.",
            )
        time.sleep(0.2)


def release_stale_path_locks(root: Path) -> None:
    """Take the entries of killed DVC processes out of DVC's table of locked paths.

    DVC does so itself for an id that no process has any more. It does not for an id that another program
    has by now or that nobody waited for, and it refuses a table that was cut off while it was written:
    then no stage would ever start again.
    """
    path = root / ".dvc" / "tmp" / "rwlock"
    if not path.exists():
        return
    content = read_path_locks(root)
    kept_write = {key: entry for key, entry in content.get("write", {}).items() if is_dvc(int(entry["pid"]))}
    kept_read = {
        key: living
        for key, readers in content.get("read", {}).items()
        if (living := [entry for entry in readers if is_dvc(int(entry["pid"]))])
    }
    kept = {key: value for key, value in (("write", kept_write), ("read", kept_read)) if value}
    if kept != content or not path.read_text(encoding="utf-8").strip():
        write_text(path, json.dumps(kept))


def read_path_locks(root: Path) -> dict[str, Any]:
    """Return DVC's table of locked paths, {"write": {path: {pid, cmd}}, "read": {path: [{pid, cmd}]}}.

    One that cannot be read (cut off by a full disk or a kill) counts as empty.
    """
    try:
        content = json.loads((root / ".dvc" / "tmp" / "rwlock").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        return {"write": {}, "read": {}, "damaged": {}}
    return content if isinstance(content, dict) else {}


def is_dvc(pid: int) -> bool:
    """Return whether this process id belongs to a living DVC command."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "dvc" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
