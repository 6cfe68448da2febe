"""A container engine for tests: what they need of it, or the reason why they are skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from flows.s3_server import free_port
from kinglet.errors import KingletError
from kinglet.runtime import bundles
from tasks.container_engine import open_engine
from tests.unit.serving.running_server import encoded
from tests.unit.tasks.small_project import noisy_quadrants

ROOT = Path(__file__).resolve().parents[2]
BASE = "python:3.11-slim-bookworm"
# `.ci/run` makes one of Debian's packages where the usual image cannot be pulled.
FRONTS = ("haproxy:2.8", "kinglet-test/haproxy:bookworm")
# For a command on a machine that is busy with other tests.
SECONDS = 600
PNG = encoded(noisy_quadrants(1, 16, 3, seed=5)[0][0])
WHITE = encoded(np.full((16, 16, 3), 255, np.uint8))


def engine_or_skip(*, front: bool = False) -> tuple[Any, str]:
    """Return the engine and the name of the front's image; skip with the reason where they are not to be had."""
    try:
        engine = open_engine()
    except KingletError as error:
        pytest.skip(error.message)
    names = {name for image in engine.images.list() for name in image.tags}
    if BASE not in names:
        pytest.skip(f"there is no base image {BASE} on this machine")
    found = [name for name in FRONTS if name in names]
    if front and not found:
        pytest.skip(f"there is no image of a front on this machine: {', '.join(FRONTS)}")
    return engine, found[0] if found else ""


def checkout(folder: Path, service: str, front_image: str = "", **changed: dict[str, Any]) -> Path:
    """Make a folder look like this checkout, with settings of deployment of its own; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("kinglet", "tasks", "flows", "pyproject.toml", "requirements.lock", "README.md", "LICENSE"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "deploy").mkdir()
    for name in ("Dockerfile", "image.lock"):
        shutil.copy(ROOT / "deploy" / name, folder / "deploy")
    wheels = ROOT / ".kinglet" / "wheelhouse"
    wheels.mkdir(parents=True, exist_ok=True)
    (folder / ".kinglet").mkdir()
    (folder / ".kinglet" / "wheelhouse").symlink_to(wheels)
    settings: dict[str, Any] = {
        "image": {"name": service, "base": BASE},
        "smoke_test": {
            "test_images": 20,
            "requests": 40,
            # A machine that is busy with other tests is no reason to refuse a model.
            "ready_seconds": 120,
            "p99_ms": 20_000,
        },
        "front": {"image": front_image or FRONTS[0], "port": free_port(), "probation_seconds": 1},
    }
    for section, values in changed.items():
        settings.setdefault(section, {}).update(values)
    (folder / "deploy" / "settings.yaml").write_text(yaml.safe_dump(settings))
    return folder


def start_kinglet(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the `kinglet` command in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=folder,
        env=dict(os.environ),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def with_card(bundle: Path, folder: Path, card: str) -> Path:
    """Copy a bundle with another model card, so that it is another version."""
    shutil.copytree(bundle, folder)
    (folder / bundles.CARD).write_text(card)
    bundles.seal(folder)
    return folder


def with_wrong_answers(bundle: Path, folder: Path) -> Path:
    """Copy a bundle whose model does not give its golden answers."""
    shutil.copytree(bundle, folder)
    with np.load(folder / bundles.GOLDEN) as golden:
        arrays = {name: golden[name] for name in golden.files}
    arrays["probabilities"] = arrays["probabilities"][:, ::-1].copy()
    (folder / bundles.GOLDEN).write_bytes(bundles.npz_bytes(arrays))
    bundles.seal(folder)
    return folder


def that_fails_at_white(bundle: Path, folder: Path) -> Path:
    """Copy a bundle whose model answers all images as before but fails at bright ones: no smoke test sees it."""
    shutil.copytree(bundle, folder)
    model = onnx.load(folder / bundles.MODEL)
    graph = model.graph
    (source,), (output,) = graph.input, graph.output
    for node in graph.node:
        for position, name in enumerate(node.output):
            if name == output.name:
                node.output[position] = "answers"
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(1.5, np.float32), "bright"),
            numpy_helper.from_array(np.zeros(1, np.float32), "nothing"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("ReduceMean", [source.name], ["mean"], keepdims=0),
            helper.make_node("Greater", ["mean", "bright"], ["is_bright"]),
            helper.make_node("Cast", ["is_bright"], ["place"], to=TensorProto.INT64),
            # The second of one element: what onnxruntime refuses while it computes.
            helper.make_node("Gather", ["nothing", "place"], ["zero"]),
            helper.make_node("Add", ["answers", "zero"], [output.name]),
        ]
    )
    onnx.save(model, folder / bundles.MODEL)
    bundles.seal(folder)
    return folder


class Clients:
    """Clients that ask a front without pause. answered: the status of every answer; lost: requests without one."""

    def __init__(self) -> None:
        self.answered: list[int] = []
        self.lost: list[str] = []
        self.versions: set[str] = set()

    def ask(self, address: str, content: bytes, until: threading.Event) -> None:
        with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
            while not until.is_set():
                try:
                    answer = client.post("/predict", content=content)
                    self.answered.append(answer.status_code)
                    self.versions.add(answer.json()["version"] if answer.is_success else "none")
                except httpx.HTTPError as error:
                    self.lost.append(repr(error))
                time.sleep(0.02)


@contextmanager
def requests_running(address: str, contents: tuple[bytes, ...] = (PNG, PNG, PNG)) -> Iterator[Clients]:
    """Ask a front for the time of the block, one client for each content; yield what comes of it."""
    clients, until = Clients(), threading.Event()
    threads = [threading.Thread(target=clients.ask, args=(address, content, until)) for content in contents]
    for thread in threads:
        thread.start()
    try:
        yield clients
    finally:
        until.set()
        for thread in threads:
            thread.join(70)


def remove_service(engine: Any, service: str) -> None:
    """Remove the containers and images of a service."""
    for container in engine.containers.list(all=True, ignore_removed=True):
        if container.name.startswith(f"{service}-"):
            container.remove(force=True)
    for image in engine.images.list():
        if any(tag.startswith(f"{service}:") or f"/{service}:" in tag for tag in image.tags):
            engine.images.remove(image.id, force=True)
