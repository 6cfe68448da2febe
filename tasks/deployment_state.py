"""The file that says what is deployed on this machine, and the lock that lets one deployment at a time change it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kinglet.atomic import write_json
from kinglet.deployment.deployed import Deployed, from_text, to_json
from kinglet.errors import KingletError
from tasks.artifacts import WORKSPACE

FOLDER = WORKSPACE / "deploy"
STATE = "deployed.json"
LOCK = "lock"


def read_deployed(folder: Path = FOLDER) -> Deployed:
    """Return what is deployed; raises KingletError if the file is damaged or of a newer format."""
    path = folder / STATE
    try:
        return from_text(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return Deployed()


def write_deployed(deployed: Deployed, folder: Path = FOLDER) -> None:
    """Write what is deployed, whole or not at all."""
    write_json(folder / STATE, to_json(deployed))


@contextmanager
def only_deployment(folder: Path = FOLDER) -> Iterator[None]:
    """Hold the machine's deployment for the block; raises KingletError that names the process which holds it.

    The system lets go of the lock however a process ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise KingletError(
                f"Another deployment (process {file.read().strip() or 'unknown'}) is at work on this machine.",
                "Wait until it has ended, then run again.",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
