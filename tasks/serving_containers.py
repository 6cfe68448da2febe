"""Containers of the server: started under their quota, watched until they are ready, ended without a lost request."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import docker
import httpx
from docker.errors import NotFound

from kinglet.errors import KingletError
from tasks.container_engine import explained
from tasks.deploy_settings import ContainerSettings

# The server's port inside the container, as deploy/Dockerfile has it.
PORT = 8080
SERVICE = "kinglet.service"
MB = 1_000_000


@dataclass(frozen=True)
class Serving:
    """A container that runs. port: of this machine, and reachable from it alone. ready_seconds: from its start."""

    name: str
    port: int
    ready_seconds: float = 0.0

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"


def start_container(engine: docker.DockerClient, image: str, service: str, settings: ContainerSettings) -> Serving:
    """Start a container of an image, read-only and without privileges, on a free port; do not wait for it.

    service: the name that its containers share.
    """
    name = f"{service}-{image.removeprefix('sha256:')[:12]}-{time.time_ns() // 1_000_000}"
    # A port that the engine chose would be another after every restart of the container.
    port = free_port()
    with explained(f"A container of {image} cannot be started"):
        engine.containers.run(
            image,
            name=name,
            labels={SERVICE: service},
            detach=True,
            ports={f"{PORT}/tcp": ("127.0.0.1", port)},
            environment=settings.environment,
            nano_cpus=int(settings.cpus * 1e9),
            mem_limit=settings.memory_mb * MB,
            # Swap would hide that the memory is too small.
            memswap_limit=settings.memory_mb * MB,
            read_only=True,
            tmpfs={"/tmp": "size=16m,mode=1777"},  # noqa: S108
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            pids_limit=256,
            restart_policy={"Name": "unless-stopped"},
            log_config=docker.types.LogConfig(
                type=docker.types.LogConfig.types.JSON, config={"max-size": "10m", "max-file": "3"}
            ),
        )
    return Serving(name, port)


def free_port() -> int:
    """Return a port of this machine that nothing listens on, below those that outgoing connections take."""
    import random
    import socket

    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_until_ready(engine: docker.DockerClient, serving: Serving, seconds: float) -> Serving:
    """Return the container with the seconds that it took, once it says ready.

    Raises KingletError with its last words if it ends before, or does not within `seconds`.
    """
    container = find_container(engine, serving.name)
    started = time.monotonic()
    with httpx.Client(base_url=serving.url, timeout=2, trust_env=False) as client:
        while True:
            try:
                if client.get("/v2/health/ready").status_code == httpx.codes.OK:
                    return Serving(serving.name, serving.port, time.monotonic() - started)
            except httpx.HTTPError:
                pass
            with explained(f"The container {serving.name} cannot be looked at"):
                container.reload()
            # One that fails is started again and again.
            if container.status != "running" or container.attrs["RestartCount"]:
                raise KingletError(f"The container {serving.name} ends before it is ready: {last_words(container)}")
            if time.monotonic() - started > seconds:
                raise KingletError(
                    f"The container {serving.name} is not ready after {seconds:g} s: {last_words(container)}",
                    "smoke_test.ready_seconds of deploy/settings.yaml says how long it may take.",
                )
            time.sleep(0.02)


def running_container(engine: docker.DockerClient, name: str) -> Serving | None:
    """Return a container if it runs; None if it does not, or is not there."""
    try:
        container = engine.containers.get(name)
    except NotFound:
        return None
    bindings = container.attrs["HostConfig"]["PortBindings"].get(f"{PORT}/tcp") or []
    return Serving(name, int(bindings[0]["HostPort"])) if container.status == "running" and bindings else None


def find_container(engine: docker.DockerClient, name: str) -> Any:
    """Return a container of the engine; raises KingletError if it is not there."""
    with explained(f"The container {name} is not there"):
        return engine.containers.get(name)


def is_failing(engine: docker.DockerClient, name: str) -> bool:
    """Return whether a container ended, was started again, or is gone."""
    try:
        container = engine.containers.get(name)
    except NotFound:
        return True
    return container.status != "running" or container.attrs["RestartCount"] > 0


def memory_mb(engine: docker.DockerClient, name: str) -> float:
    """Return the memory that counts against a container's limit, without files that the kernel may forget, in MB."""
    container = find_container(engine, name)
    with explained(f"The memory of {name} cannot be read"):
        used = container.stats(stream=False)["memory_stats"]
    details = used.get("stats", {})
    forgettable = details.get("total_inactive_file", details.get("inactive_file", 0))
    return float(used["usage"] - forgettable) / MB


def end_container(engine: docker.DockerClient, name: str, seconds: int) -> None:
    """End a container once it has answered what it has under way, and remove it; nothing if it is not there.

    seconds: after which it is killed.
    """
    try:
        container = engine.containers.get(name)
    except NotFound:
        return
    with explained(f"The container {name} cannot be removed"):
        container.stop(timeout=seconds)
        container.remove(force=True)


def end_others(engine: docker.DockerClient, service: str, kept: str | None, seconds: int) -> list[str]:
    """End all containers of a service but one; return their names. They are what a killed deployment left."""
    with explained("The containers cannot be listed"):
        found = engine.containers.list(all=True, filters={"label": f"{SERVICE}={service}"}, ignore_removed=True)
    names = sorted(container.name for container in found if container.name != kept)
    for name in names:
        end_container(engine, name, seconds)
    return names


def last_words(container: Any) -> str:
    """Return the last line that a container wrote."""
    with explained("The log cannot be read"):
        lines = container.logs(tail=5).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
