"""The container engine of this machine, and what it refuses as sentences."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from kinglet.errors import KingletError

# Seconds within which the engine answers a single question; building and loading have their own.
TIMEOUT_SECONDS = 120
NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)


def open_engine() -> docker.DockerClient:
    """Return a client of the engine that DOCKER_HOST names, or the one of this machine.

    Raises KingletError if none answers, or if it runs elsewhere: front and containers meet on this machine's ports.
    """
    try:
        client = docker.from_env(timeout=TIMEOUT_SECONDS)
        client.ping()
    except (DockerException, requests.RequestException) as error:
        raise KingletError(
            f"No container engine answers: {first_line(error)}.",
            "Install and start Docker (on Debian: apt-get install docker.io), or name one in DOCKER_HOST.",
        ) from None
    if not str(client.api.base_url).startswith(("http+docker://", "http+unix://", "http+docker://localunixsocket")):
        raise KingletError(
            f"The container engine {client.api.base_url} is not of this machine.",
            "Run the command on the machine that serves, or unset DOCKER_HOST.",
        )
    return client


@contextmanager
def explained(doing: str, hint: str = "") -> Iterator[None]:
    """Turn what the engine refuses within the block into a KingletError. doing: what was tried, for the sentence."""
    try:
        yield
    except (APIError, ImageNotFound, NotFound) as error:
        raise refusal(doing, str(error.explanation or error), hint) from None
    except (DockerException, requests.RequestException) as error:
        raise KingletError(
            f"{doing}: the container engine went away ({first_line(error)}).", "Start it and run again."
        ) from None


def refusal(doing: str, said: str, hint: str = "") -> KingletError:
    """Return what the engine said as an error; a full disk has a hint of its own."""
    if NO_SPACE.search(said):
        hint = "The engine's disk is full: free some space, `docker system df` shows what takes it, and run again."
    return KingletError(f"{doing}: {first_line(said)}.", hint)


def first_line(error: object) -> str:
    """Return the first line of a message, without the full stop at its end."""
    lines = str(error).strip().splitlines() or ["no reason given"]
    return lines[0].strip().rstrip(".")


def image_or_pulled(engine: docker.DockerClient, reference: str) -> Any:
    """Return an image of the engine, pulled if it is not there; raises KingletError if neither."""
    try:
        return engine.images.get(reference)
    except ImageNotFound:
        pass
    with explained(f"The image {reference} is not on this machine and cannot be pulled", "Check name and network."):
        return engine.images.pull(reference)


def client_program() -> str:
    """Return the path of the `docker` program, which builds; raises KingletError if there is none."""
    program = shutil.which("docker")
    if program is None:
        raise KingletError("There is no `docker` program to build with.", "Install it (on Debian: docker.io).")
    return program


def run_client(arguments: Sequence[str], doing: str, timeout_seconds: float) -> None:
    """Run the `docker` program; raises KingletError with its last words if it fails or takes too long."""
    try:
        done = subprocess.run(
            [client_program(), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise KingletError(f"{doing}: not done after {timeout_seconds:.0f} s.", "See what the engine does.") from None
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        problems = [line for line in lines if NO_SPACE.search(line) or re.match(r"(?i)\s*error", line)]
        raise refusal(doing, (problems or lines or ["it said nothing"])[-1], "Run `docker build` by hand to see more.")
