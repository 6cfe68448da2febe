"""The front of the containers on this machine: HAProxy in a container of its own, moved without a lost request."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
from docker.errors import NotFound

from kinglet.atomic import write_text
from kinglet.deployment.haproxy import (
    CANDIDATE,
    CHAMPION,
    FALLBACK,
    PROBATION,
    ServerState,
    close,
    configuration,
    point,
    read_states,
)
from kinglet.errors import KingletError
from tasks.container_engine import explained, image_or_pulled
from tasks.deploy_settings import FrontSettings

CONFIGURATION, SOCKET = "haproxy.cfg", "haproxy.sock"
# Where the front's container sees the folder.
MOUNTED = "/run/kinglet"
OWNER = "kinglet.folder"
SECONDS_TO_START = 60.0
SECONDS_TO_TURN = 30.0
# How long is waited for a container that was in production, and may be gone.
SECONDS_FOR_THE_OLD = 3.0


def probation_is_empty(states: dict[str, ServerState]) -> bool:
    """Return whether no request is under way that a candidate was to answer, or its predecessor instead."""
    return not states[PROBATION].current


class Front:
    """A front that runs. folder: of this machine, with its configuration and the socket that takes its commands."""

    def __init__(self, engine: docker.DockerClient, name: str, folder: Path, settings: FrontSettings) -> None:
        self._engine, self.name, self._folder, self._settings = engine, name, folder.absolute(), settings

    @property
    def address(self) -> str:
        """The address that clients ask, as a URL."""
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._settings.address, self._settings.address)  # noqa: S104
        return f"http://{shown}:{self._settings.port}"

    def refuse_others(self) -> None:
        """Raise KingletError if a front of this name belongs to another checkout: its containers are not ours."""
        container = self.container()
        owner = container.labels.get(OWNER) if container is not None else None
        if container is not None and owner != str(self._folder):
            raise KingletError(
                f"The container {self.name} belongs to {owner or 'something else'}, not to {self._folder}.",
                "Deploy from there, or give this service another image.name in deploy/settings.yaml.",
            )

    def start(self, champion_port: int | None) -> None:
        """Start the front if it does not run, or if address, port or image are to be others.

        champion_port: of the container in production, None if there is none.
        Raises KingletError if its port is taken, its image is not to be had or it does not answer.
        """
        image = image_or_pulled(self._engine, self._settings.image)
        wanted = f"{image.id} {self._settings.address} {self._settings.port}"
        self.write_configuration(champion_port)
        container = self.container()
        if container is not None and container.status == "running" and container.labels.get("kinglet.front") == wanted:
            return
        if container is not None:
            with explained(f"The front {self.name} cannot be replaced"):
                container.remove(force=True)
        (self._folder / SOCKET).unlink(missing_ok=True)
        with explained(f"The front {self.name} cannot be started"):
            container = self._engine.containers.run(
                image.id,
                ["-db", "-f", f"{MOUNTED}/{CONFIGURATION}"],
                entrypoint="haproxy",
                name=self.name,
                labels={"kinglet.front": wanted, OWNER: str(self._folder)},
                detach=True,
                # Not published by the engine: clients keep their own addresses, and containers are asked at theirs.
                network_mode="host",
                user=f"{os.getuid()}:{os.getgid()}",
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                mounts=[docker.types.Mount(MOUNTED, str(self._folder), type="bind")],
                restart_policy={"Name": "unless-stopped"},
            )
        self._wait_until_it_answers(container)

    def write_configuration(self, champion_port: int | None) -> None:
        """Write what the front reads when it starts again."""
        text = configuration(self._settings.address, self._settings.port, champion_port, f"{MOUNTED}/{SOCKET}")
        write_text(self._folder / CONFIGURATION, text)

    def container(self) -> Any:
        """Return the front's container, None if there is none."""
        with suppress(NotFound), explained("The front cannot be looked for"):
            return next(iter(self._engine.containers.list(all=True, filters={"name": f"^/{self.name}$"})), None)
        return None

    def states(self) -> dict[str, ServerState]:
        """Return what the front says of its servers; raises KingletError if it does not answer."""
        return read_states(self.ask("show stat"))

    def try_candidate(self, candidate_port: int, champion_port: int | None) -> None:
        """Send all requests to a candidate; what it does not answer goes to the champion instead."""
        # The fallback first: from here on requests go to the backend with both, and one of them must answer.
        if champion_port is not None:
            self._tell(point(FALLBACK, champion_port))
            # One that is not ready answers nobody now either, and must not keep its successor away.
            self._turns(lambda states: states[FALLBACK].is_up, SECONDS_FOR_THE_OLD)
        self.ask("clear counters all")
        self._tell(point(CANDIDATE, candidate_port))
        self._refuse_silent(CANDIDATE)

    def keep_candidate(self, candidate_port: int) -> None:
        """Make the candidate the champion, also for a front that starts again."""
        self.write_configuration(candidate_port)
        self._tell(point(CHAMPION, candidate_port))
        self._refuse_silent(CHAMPION)
        self.end_probation()
        self._tell(point(FALLBACK, candidate_port))

    def put_back(self, champion_port: int | None) -> None:
        """Send all requests to the container that was in production, whatever was tried since.

        champion_port: None if there was none; nothing is answered then.
        """
        self.write_configuration(champion_port)
        for server in (CHAMPION, FALLBACK):
            self._tell(close(server) if champion_port is None else point(server, champion_port))
        if champion_port is not None:
            self._turns(lambda states: states[CHAMPION].is_up, SECONDS_FOR_THE_OLD)
        self.end_probation()

    def end_probation(self) -> None:
        """Send all requests to the champion; what the candidate has under way it answers, or the fallback does."""
        self._tell(close(CANDIDATE))
        self._turns(probation_is_empty, self._settings.drain_seconds)

    def ask(self, command: str) -> str:
        """Return the front's answer to a command; raises KingletError if it does not answer."""
        # Through the folder's descriptor: the path of a socket may have no more than 107 letters.
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
                line.settimeout(10)
                line.connect(f"/proc/self/fd/{folder}/{SOCKET}")
                line.sendall(f"{command}\n".encode())
                return b"".join(iter(lambda: line.recv(65_536), b"")).decode()
        except OSError as error:
            raise KingletError(
                f"The front {self.name} takes no commands: {error}.", f"See `docker logs {self.name}`."
            ) from None
        finally:
            os.close(folder)

    def _tell(self, commands: Sequence[str]) -> None:
        for command in commands:
            answer = self.ask(command).strip()
            # What was done is told too, in these words.
            if answer and not answer.startswith(("IP changed", "port changed", "no need to change")):
                raise KingletError(f"The front {self.name} refuses {command!r}: {answer}.")

    def _refuse_silent(self, server: str) -> None:
        if not self._turns(lambda states: states[server].is_up, SECONDS_TO_TURN):
            raise KingletError(
                f"The new container does not say ready to the front: {server} is {self.states()[server].status}.",
                f"See `docker logs {self.name}`.",
            )

    def _turns(self, condition: Callable[[dict[str, ServerState]], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition(self.states()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _wait_until_it_answers(self, container: Any) -> None:
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            with suppress(KingletError):
                self.states()
                return
            with explained(f"The front {self.name} cannot be looked at"):
                container.reload()
                said = container.logs(tail=3).decode(errors="replace").strip()
            if container.status != "running" and "cannot bind" in said:
                raise KingletError(
                    f"{self._settings.address}:{self._settings.port} cannot be listened on: another program has it.",
                    "Name another port in deploy/settings.yaml, front.port.",
                )
            if time.monotonic() > deadline:
                raise KingletError(f"The front {self.name} does not start: {said or 'it says nothing'}.")
            time.sleep(0.1)
