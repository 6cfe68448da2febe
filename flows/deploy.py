"""The flow `deploy`: build, start, smoke test, push, promote; taken back as one Prefect transaction if a step fails.

Run by `kinglet deploy` as a process of its own, so that whatever ends the command ends the flow in order.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.transactions import Transaction, transaction

from flows.publish_commands import STORE
from flows.retrain import quiet_prefect
from flows.run import end_with_command
from flows.server import wait_for_server
from kinglet.atomic import write_json
from kinglet.deployment.deployed import Deployment
from tasks.artifacts import BUNDLE
from tasks.build_image import Image, build_image
from tasks.deploy_settings import DeploySettings, load_deploy_settings
from tasks.deployment import Place, keep, open_place, push_image, retire, watch_candidate
from tasks.deployment_state import FOLDER, only_deployment, write_deployed
from tasks.parameters import load_parameters
from tasks.publish import Outcome, publish, rollback
from tasks.serving_containers import Serving, end_container, start_container, wait_until_ready
from tasks.smoke_test import Findings, images_of_folder, smoke_test, test_images
from tasks.stage import exit_code_of

# Where the flow leaves what it did, for the command that started it.
OUTCOME = FOLDER / "outcome.json"
# Names under which the steps leave for the transaction what is to be undone.
PLACE, CANDIDATE, PUBLISHED = "place", "candidate", "published"


@dataclass(frozen=True)
class Request:
    """What is to be deployed. images: a folder to try it with; None for the test images of the last run. store: where
    the version is published too, empty for nowhere.
    """

    bundle: Path
    images: Path | None
    store: str
    data_version: str


def step(name: str) -> Any:
    """Return the decorator of a step: a Prefect task that keeps nothing and is not tried again."""
    return task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)


@step("build")
def build(request: Request, settings: DeploySettings) -> Image:
    """Build the image."""
    return build_image(request.bundle, settings.image, data_version=request.data_version)


@step("start")
def start(place: Place, image: Image) -> Serving:
    """Start a container beside the one in production."""
    return start_container(place.engine, image.id, place.service, place.settings.container)


@start.on_rollback
def remove_candidate(done: Transaction) -> None:
    """Remove the container again, once it has answered what it has under way."""
    place: Place = done.get(PLACE)
    end_container(place.engine, done.get(CANDIDATE).name, place.settings.front.drain_seconds)


@step("smoke test")
def try_out(place: Place, candidate: Serving, request: Request, images: list[bytes]) -> tuple[Serving, Findings]:
    """Ask the container until it is ready, and then everything that it has to know."""
    ready = wait_until_ready(place.engine, candidate, place.settings.smoke_test.ready_seconds)
    return ready, smoke_test(place.engine, ready, request.bundle, images, place.settings.smoke_test)


@step("push")
def push(place: Place, image: Image) -> str:
    """Push the image to the registry. It stays there whatever comes after: nobody is told to use it."""
    return push_image(place, image.reference)


@step("promote")
def promote(place: Place, candidate: Serving) -> None:
    """Send the requests to the new container, with the old one behind it."""
    try:
        place.front.try_candidate(candidate.port, place.champion_port)
    except BaseException:
        # A step that fails itself has no hook run for it.
        place.front.put_back(place.champion_port)
        raise


@promote.on_rollback
def put_back(done: Transaction) -> None:
    """Send the requests to the container of before, and write that down."""
    place: Place = done.get(PLACE)
    place.front.put_back(place.champion_port)
    write_deployed(place.deployed)


@step("probation")
def watch(place: Place, candidate: Serving) -> None:
    """Watch the new container answer."""
    watch_candidate(place, candidate, place.settings.front.probation_seconds)


@step("publish")
def publish_bundle(request: Request) -> Outcome | None:
    """Make the bundle the champion of the store, if one is named."""
    return publish(request.bundle, request.store) if request.store else None


@publish_bundle.on_rollback
def unpublish(done: Transaction) -> None:
    """Make the champion of before the champion of the store again; the version stays there, without being used."""
    outcome: Outcome | None = done.get(PUBLISHED, None)
    if outcome is not None and outcome.changed:
        rollback(outcome.place)


@step("keep")
def keep_candidate(place: Place, image: Image, candidate: Serving) -> None:
    """Make the new container the one in production."""
    keep(place, place.deployed.followed_by(Deployment(image.id, image.version, candidate.name)), candidate)


@flow(name="deploy", validate_parameters=False, persist_result=False)
def deploy(request: Request | None = None, settings: DeploySettings | None = None) -> dict[str, Any]:
    """Deploy a bundle on this machine; return what was done.

    request, settings: without them the bundle of the last run, the store that KINGLET_STORE names, and
    deploy/settings.yaml, as a schedule or an event asks for it.
    Raises KingletError for the first step that failed; all before it are taken back by then.
    """
    request = request or Request(BUNDLE, None, os.environ.get(STORE, ""), "")
    settings = settings or load_deploy_settings()
    with only_deployment():
        n_images = settings.smoke_test.test_images
        images = (
            images_of_folder(request.images, n_images)
            if request.images is not None
            else test_images(request.bundle, load_parameters().data, n_images)
        )
        image = build(request, settings)
        place = open_place(settings)
        with transaction() as steps:
            steps.set(PLACE, place)
            candidate = start(place, image)
            steps.set(CANDIDATE, candidate)
            candidate, findings = try_out(place, candidate, request, images)
            pushed = push(place, image)
            promote(place, candidate)
            watch(place, candidate)
            published = publish_bundle(request)
            steps.set(PUBLISHED, published)
            keep_candidate(place, image, candidate)
        retire(place, candidate)
    return {
        "image": asdict(image),
        "pushed": pushed,
        "published": f"{published.place}/{published.version}" if published else "",
        "replaced": place.deployed.current.version if place.deployed.current else "",
        "address": place.front.address,
        "ready_seconds": round(candidate.ready_seconds, 3),
        "smoke_test": asdict(findings),
    }


def run_here(request: Request) -> None:
    """Run the flow and leave its outcome; raises KingletError for all that a user can mend."""
    quiet_prefect()
    settings = load_deploy_settings()
    wait_for_server()
    write_json(OUTCOME, deploy(request, settings))


def main() -> int:
    """Run the flow as a process; return its exit code."""
    end_with_command()
    parser = argparse.ArgumentParser(description="Deploy a bundle on this machine, as `kinglet deploy` does.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--store", default="")
    parser.add_argument("--data-version", default="")
    OUTCOME.unlink(missing_ok=True)
    return exit_code_of(lambda: run_here(Request(**vars(parser.parse_args()))))


if __name__ == "__main__":
    sys.exit(main())
