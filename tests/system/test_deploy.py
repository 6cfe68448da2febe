"""The deployment drill: what is broken is refused, what fails later is taken back, and no request is lost by either."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.deploy import Request, deploy
from flows.server import API_URL, start_server, wait_for_server
from kinglet.errors import KingletError
from tasks.deploy_settings import load_deploy_settings
from tasks.roll_back import roll_back_both
from tests.system.containers import (
    PNG,
    SECONDS,
    WHITE,
    checkout,
    engine_or_skip,
    remove_service,
    requests_running,
    start_kinglet,
    that_fails_at_white,
    with_card,
    with_wrong_answers,
)
from tests.unit.serving.running_server import build_bundle

SERVICE = "kinglet-drill"
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One real Prefect server for all commands, which would start one each."""
    engine_or_skip(front=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("server"))
        patched.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        started = start_server()
        if started is None:
            yield
            return
        server, address = started
        patched.setenv(API_URL, address)
        try:
            wait_for_server()
            with temporary_settings({PREFECT_API_URL: address}):
                yield
        finally:
            server.terminate()
            server.wait(60)


@dataclass
class Drill:
    """A checkout with a first bundle deployed. images: a folder to try containers with."""

    engine: Any
    folder: Path
    address: str
    first: Path
    images: Path
    version: str

    def deploy(self, bundle: Path, store: str = "", **changed: Any) -> dict[str, Any]:
        """Run the flow in this process, as `kinglet deploy` does in one of its own."""
        settings = load_deploy_settings()
        image = settings.image.model_copy(update=changed)
        return deploy(Request(bundle, self.images, store, ""), settings.model_copy(update={"image": image}))

    def current(self) -> str:
        return str(json.loads((self.folder / ".kinglet/deploy/deployed.json").read_text())["current"]["version"])

    def serving(self) -> list[str]:
        return [
            container.name for container in self.engine.containers.list(filters={"label": f"kinglet.service={SERVICE}"})
        ]


@pytest.fixture(scope="module")
def drill(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    engine, front = engine_or_skip(front=True)
    root = tmp_path_factory.mktemp("drill")
    remove_service(engine, SERVICE)
    folder = checkout(root / "checkout", SERVICE, front)
    first = build_bundle(root / "first")
    images = root / "images"
    images.mkdir()
    for number in range(3):
        (images / f"{number}.png").write_bytes(PNG)
    drill = Drill(engine, folder, "", first, images, "")
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.chdir(folder)
            outcome = drill.deploy(first)
        drill.address, drill.version = outcome["address"], outcome["image"]["version"]
        assert outcome["smoke_test"]["golden_images"] == 10
        assert outcome["smoke_test"]["test_images"] == 3
        assert outcome["replaced"] == ""
        yield drill
    finally:
        remove_service(engine, SERVICE)


@pytest.fixture(autouse=True)
def in_checkout(drill: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(drill.folder)


def test_a_broken_model_is_refused_and_its_predecessor_answers_throughout(drill: Drill, tmp_path: Path) -> None:
    before = drill.serving()
    broken = with_wrong_answers(drill.first, tmp_path / "broken")
    with requests_running(drill.address) as clients, pytest.raises(KingletError, match="ends before it is ready"):
        drill.deploy(broken)
    assert (clients.lost, set(clients.answered)) == ([], {200})
    assert clients.versions == {drill.version[:12]}
    assert (drill.serving(), drill.current()) == (before, drill.version)


def test_a_model_that_passes_and_then_fails_is_rolled_back_and_every_request_is_answered(
    drill: Drill, tmp_path: Path
) -> None:
    before = drill.serving()
    fails = that_fails_at_white(drill.first, tmp_path / "fails")
    with (
        requests_running(drill.address, (PNG, PNG, WHITE)) as clients,
        pytest.raises(KingletError, match="failed in production"),
    ):
        drill.deploy(fails)
    # Also those that it failed at: its predecessor was asked instead.
    assert (clients.lost, set(clients.answered)) == ([], {200})
    assert (drill.serving(), drill.current()) == (before, drill.version)


def test_a_model_whose_container_is_killed_in_production_is_rolled_back_and_costs_an_answer_under_way_at_most(
    drill: Drill, tmp_path: Path
) -> None:
    before = drill.serving()
    second = with_card(drill.first, tmp_path / "killed", "# a student with too little memory\n")
    with requests_running(drill.address) as clients:

        def kill_when_it_answers() -> None:
            deadline = time.monotonic() + SECONDS
            while len(clients.versions) < 2 and time.monotonic() < deadline:
                time.sleep(0.02)
            for name in set(drill.serving()) - set(before):
                drill.engine.containers.get(name).kill()

        killer = threading.Thread(target=kill_when_it_answers)
        killer.start()
        with pytest.raises(KingletError, match="in production"):
            drill.deploy(second)
        killer.join()
    assert len(clients.versions) == 2
    assert set(clients.answered) == {200}
    # What had begun to answer cannot be asked elsewhere: one answer of each client at most.
    assert len(clients.lost) <= 3
    assert all("without sending complete message body" in error for error in clients.lost)
    assert (drill.serving(), drill.current()) == (before, drill.version)


def test_a_promotion_and_the_way_back_by_hand_lose_no_request(drill: Drill, tmp_path: Path) -> None:
    second = with_card(drill.first, tmp_path / "second", "# a second student\n")
    with requests_running(drill.address) as clients:
        outcome = drill.deploy(second)
        time.sleep(0.5)
        assert drill.current() == outcome["image"]["version"] != drill.version
        assert outcome["replaced"] == drill.version
        back = roll_back_both("")
        time.sleep(0.5)
    assert back.container == drill.current() == drill.version
    assert (clients.lost, set(clients.answered)) == ([], {200})
    assert clients.versions == {drill.version[:12], outcome["image"]["version"][:12]}
    assert len(drill.serving()) == 1
    with pytest.raises(KingletError, match="no deployment before this one"):
        roll_back_both("")


def test_a_deployment_that_is_asked_to_end_takes_back_what_it_did(drill: Drill, tmp_path: Path) -> None:
    second = with_card(drill.first, tmp_path / "third", "# a third student\n")
    before = drill.serving()
    with requests_running(drill.address) as clients:
        command = start_kinglet(drill.folder, "deploy", str(second), f"--images={drill.images}")
        deadline = time.monotonic() + SECONDS
        while len(drill.serving()) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        # Of two at once the second is refused.
        with pytest.raises(KingletError, match=r"Another deployment \(process"):
            roll_back_both("")
        command.send_signal(signal.SIGTERM)
        _, said = command.communicate(timeout=SECONDS)
    assert command.returncode == 128 + signal.SIGTERM, said
    assert (clients.lost, set(clients.answered)) == ([], {200})
    assert (drill.serving(), drill.current()) == (before, drill.version)
