"""The steps of a deployment on this machine, each of which leaves the container in production as it was if it fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import docker
from docker.errors import ImageNotFound

from kinglet.deployment.deployed import Deployed, Deployment
from kinglet.deployment.haproxy import CANDIDATE
from kinglet.errors import KingletError
from tasks.container_engine import explained, first_line, open_engine, refusal
from tasks.deploy_settings import DeploySettings
from tasks.deployment_state import FOLDER, read_deployed, write_deployed
from tasks.front import Front
from tasks.serving_containers import (
    Serving,
    end_container,
    end_others,
    is_failing,
    running_container,
    start_container,
    wait_until_ready,
)

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Place:
    """Where a deployment happens: the settings, and what was deployed when it began.

    Plain values, so that Prefect's transaction can keep it: engine and front are opened when they are asked for.
    """

    settings: DeploySettings
    deployed: Deployed
    champion: Serving | None

    @property
    def engine(self) -> docker.DockerClient:
        """The machine's container engine."""
        return open_engine()

    @property
    def front(self) -> Front:
        """The front of the service."""
        return Front(self.engine, f"{self.service}-front", FOLDER / "front", self.settings.front)

    @property
    def champion_port(self) -> int | None:
        """The port of the container in production, None if there is none."""
        return self.champion.port if self.champion else None

    @property
    def service(self) -> str:
        """The name that all containers share."""
        return self.settings.image.name


def open_place(settings: DeploySettings) -> Place:
    """Return the place, with the front running and what a killed deployment left put right.

    The front sends requests to what deployed.json names, and no other container of the service is left.
    """
    engine, deployed = open_engine(), read_deployed()
    champion = running_container(engine, deployed.current.container) if deployed.current else None
    place = Place(settings, deployed, champion)
    front = place.front
    front.refuse_others()
    front.start(place.champion_port)
    front.put_back(place.champion_port)
    end_others(engine, place.service, champion.name if champion else None, settings.front.drain_seconds)
    return place


def push_image(place: Place, reference: str) -> str:
    """Push a tried image to the registry of the settings; return what it is called there, empty without a registry.

    Raises KingletError if the registry refuses or does not answer.
    """
    registry = place.settings.image.registry
    if not registry:
        return ""
    name, _, tag = reference.rpartition(":")
    repository = f"{registry}/{name}"
    hint = (
        f"Look at image.registry of deploy/settings.yaml and log in with `docker login {registry.partition('/')[0]}`."
    )
    engine = place.engine
    with explained(f"{repository}:{tag} cannot be pushed", hint):
        engine.images.get(reference).tag(repository, tag)
        for line in engine.images.push(repository, tag=tag, stream=True, decode=True):
            # A registry's refusal comes as a line of the answer, not as an error.
            if "error" in line:
                raise refusal(f"{repository}:{tag} cannot be pushed", first_line(line["error"]), hint)
    return f"{repository}:{tag}"


def watch_candidate(place: Place, candidate: Serving, seconds: float) -> None:
    """Watch a candidate that has the requests; raises KingletError as soon as it fails one or ends."""
    engine, front, deadline = place.engine, place.front, time.monotonic() + seconds
    while True:
        state = front.states()[CANDIDATE]
        if is_failing(engine, candidate.name):
            raise KingletError(f"The container {candidate.name} ended in production.", "Its predecessor answers.")
        if not state.is_up or state.errors:
            raise KingletError(
                f"The container {candidate.name} failed in production: {state.errors} answers of 500 and more or none "
                f"at all, {state.status} in the front's eyes.",
                "Its predecessor answers.",
            )
        if time.monotonic() > deadline:
            return
        time.sleep(POLL_SECONDS)


def keep(place: Place, deployed: Deployed, candidate: Serving) -> None:
    """Make a candidate the container in production and write it down; the one before it goes on until `retire`."""
    place.front.keep_candidate(candidate.port)
    write_deployed(deployed)


def retire(place: Place, kept: Serving) -> None:
    """End all containers of the service but one, each after its last answer."""
    end_others(place.engine, place.service, kept.name, place.settings.front.drain_seconds)


def roll_back(settings: DeploySettings, and_then: Callable[[], object] | None = None) -> Deployed:
    """Put the image before the one in production into production again, without a lost request.

    and_then: what goes back with it; if it fails, all stays as it is. A container of the image is started, checks its
    bundle and golden answers, and takes over.
    Raises KingletError if there is none to go back to, or it does not come up; then all stays as it is.
    """
    place = open_place(settings)
    target = refuse_nothing_before(place.deployed)
    candidate = start_container(place.engine, image_of(place, target), place.service, settings.container)
    try:
        wait_until_ready(place.engine, candidate, settings.smoke_test.ready_seconds)
        place.front.try_candidate(candidate.port, place.champion_port)
        deployed = place.deployed.rolled_back(Deployment(target.image, target.version, candidate.name))
        if and_then is not None:
            and_then()
        keep(place, deployed, candidate)
    except BaseException:
        place.front.put_back(place.champion_port)
        end_container(place.engine, candidate.name, settings.front.drain_seconds)
        raise
    retire(place, candidate)
    return deployed


def refuse_nothing_before(deployed: Deployed) -> Deployment:
    """Return the image before the one in production; raises KingletError if there is none."""
    if not deployed.previous:
        raise KingletError(
            "There is no deployment before this one to go back to.", "Deploy a good bundle instead: `kinglet deploy`."
        )
    return deployed.previous[-1]


def image_of(place: Place, deployment: Deployment) -> str:
    """Return the id of a deployment's image, pulled from the registry if it is not on this machine any more.

    Raises KingletError if it is nowhere, or the registry has another one under its name.
    """
    settings = place.settings.image
    try:
        return str(place.engine.images.get(deployment.image).id)
    except ImageNotFound:
        pass
    reference = f"{settings.registry}/{settings.name}:{deployment.version}" if settings.registry else ""
    if reference:
        with explained(f"{reference} cannot be pulled"):
            pulled = place.engine.images.pull(reference)
        if pulled.id == deployment.image:
            return str(pulled.id)
    raise KingletError(
        f"The image of version {deployment.version} is not on this machine any more, nor in a registry.",
        f"Build it again: `kinglet fetch FOLDER --version {deployment.version}`, `kinglet deploy FOLDER`.",
    )
