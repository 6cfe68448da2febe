"""The commands around the container: `kinglet image build`, `wheels`, `lock`; `kinglet deploy`; `kinglet rollback`."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from flows.publish_commands import Address, AsJson
from kinglet.atomic import read_json
from kinglet.errors import KingletError
from tasks.artifacts import BUNDLE

Bundle = Annotated[Path, typer.Argument(help="Folder of the bundle.")]
DataVersion = Annotated[
    str, typer.Option(help="Version of the data, for the image's label; known for the bundle of the last run.")
]
# For the last answers of a container, its removal, and the pointer of the store.
SECONDS_TO_UNDO = 120.0

image = typer.Typer(help="Build the container image of a bundle.", no_args_is_help=True)


@image.command()
def build(
    bundle: Bundle = BUNDLE,
    data_version: DataVersion = "",
    wheelhouse: Annotated[Path | None, typer.Option(help="Folder of wheels; .kinglet/wheelhouse if absent.")] = None,
    cache: Annotated[bool, typer.Option(help="Take steps that the engine has built before.")] = True,
    as_json: AsJson = False,
) -> None:
    """Build the image of a bundle and the list of what it holds; the same inputs give the same image."""
    # Imported when it is asked for: the other commands need no container engine.
    from tasks.build_image import build_image
    from tasks.deploy_settings import load_deploy_settings
    from tasks.wheelhouse import WHEELHOUSE

    settings = load_deploy_settings().image
    built = build_image(bundle, settings, data_version=data_version, wheelhouse=wheelhouse or WHEELHOUSE, cache=cache)
    said = f"{built.bytes / 1e6:.0f} MB, {(built.bytes - built.base_bytes) / 1e6:.0f} MB more than {settings.base}"
    show(f"built: {built.reference}, {said}; what it holds is listed in {built.bill}.", asdict(built), as_json)


@image.command()
def wheels(
    wheelhouse: Annotated[Path | None, typer.Argument(help="Folder of wheels; .kinglet/wheelhouse if absent.")] = None,
    architecture: Annotated[str, typer.Option(help="Processor of the image: x86_64 or aarch64.")] = platform.machine(),
) -> None:
    """Download the wheels of deploy/image.lock, so that later builds need no network."""
    from tasks.wheelhouse import ARCHITECTURES, WHEELHOUSE, fill_wheelhouse, read_image_lock

    if architecture not in ARCHITECTURES:
        raise KingletError(f"--architecture is {architecture!r}; known are {', '.join(ARCHITECTURES)}.")
    folder = wheelhouse or WHEELHOUSE
    found = fill_wheelhouse(folder, read_image_lock(), architecture)
    show(f"complete: {folder} holds {len(found)} wheels, each as deploy/image.lock has it.", {}, False)


@image.command()
def lock() -> None:
    """Write deploy/image.lock anew: what the server needs out of requirements.lock, with the hashes of its wheels."""
    from tasks.wheelhouse import IMAGE_LOCK, write_image_lock

    packages = write_image_lock()
    show(f"written: {IMAGE_LOCK} with {len(packages)} packages. Commit it.", {}, False)


def deploy(
    bundle: Bundle = BUNDLE,
    store: Address = "",
    images: Annotated[
        Path | None, typer.Option(help="Folder of images to try it with; the test images of the last run if absent.")
    ] = None,
    data_version: DataVersion = "",
    as_json: AsJson = False,
) -> None:
    """Build, start, try, push and promote a bundle on this machine; on any failure the last good one goes on."""
    from flows.supervise import supervise
    from tasks.deploy_settings import load_deploy_settings
    from tasks.deployment_state import FOLDER, only_deployment

    # The flow does so itself; here it costs no seconds before the user is told.
    load_deploy_settings()
    with only_deployment():
        pass
    options = [f"--store={store}", f"--data-version={data_version}", *([f"--images={images}"] if images else [])]
    exit_code = supervise("flows.deploy", str(bundle), *options, seconds_to_end=SECONDS_TO_UNDO)
    if exit_code:
        raise typer.Exit(exit_code)
    outcome = read_json(FOLDER / "outcome.json")
    found = outcome["smoke_test"]
    show(
        f"deployed: {outcome['image']['reference']} answers at {outcome['address']}. Ready after "
        f"{outcome['ready_seconds']:.1f} s; {found['golden_images']} golden and {found['test_images']} test images "
        f"answered as offline; p99 {found['p99_ms']:.1f} ms, {found['memory_mb']:.0f} MB.",
        outcome,
        as_json,
    )


def rollback(
    store: Address = "",
    as_json: AsJson = False,
    here: Annotated[
        bool, typer.Option("--here/--not-here", help="Whether the container of this machine goes back too.")
    ] = True,
) -> None:
    """Go back to the version before: the container of this machine, the champion of the store, or both as one."""
    from tasks.roll_back import roll_back_both

    done = roll_back_both(store, here)
    clauses = [
        f"{done.container} answers on this machine again" if done.container else "",
        f"the champion of {done.place} is {done.champion} again" if done.champion else "",
    ]
    show(f"rolled back: {'; '.join(filter(None, clauses))}.", asdict(done), as_json)


def show(sentence: str, result: dict[str, Any], as_json: bool) -> None:
    """Print what was done for people, and for programs if asked."""
    Console(stderr=True, highlight=False).print(sentence, soft_wrap=True, markup=False)
    if as_json:
        print(json.dumps(result, indent=2, sort_keys=True))
