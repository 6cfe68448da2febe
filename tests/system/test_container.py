"""The image, built by a real engine: what it holds, what it lacks, and that the same inputs make the same one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from kinglet.deployment.deployed import Deployed
from kinglet.errors import KingletError
from tasks.build_image import Image, build_image
from tasks.deploy_settings import load_deploy_settings
from tasks.deployment import Place, push_image
from tasks.serving_containers import find_container, start_container, wait_until_ready
from tests.system.containers import PNG, checkout, engine_or_skip, remove_service
from tests.unit.serving.running_server import build_bundle

SERVICE = "kinglet-built"
MOST_MB_OVER_BASE = 180
pytestmark = pytest.mark.timeout(1800)


@dataclass
class Built:
    engine: Any
    folder: Path
    bundle: Path
    image: Image

    def run(self, *command: str) -> str:
        return self.engine.containers.run(
            self.image.id, list(command[1:]), entrypoint=command[0], remove=True, network_mode="none", read_only=True
        ).decode()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    engine, _ = engine_or_skip()
    root = tmp_path_factory.mktemp("built")
    remove_service(engine, SERVICE)
    folder = checkout(root / "checkout", SERVICE)
    bundle = build_bundle(root / "bundle")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        try:
            image = build_image(bundle, load_deploy_settings().image, data_version="data-1")
            yield Built(engine, folder, bundle, image)
        finally:
            remove_service(engine, SERVICE)


def test_the_same_inputs_make_the_same_image_without_the_engine_remembering(built: Built) -> None:
    again = build_image(built.bundle, load_deploy_settings().image, data_version="data-1", cache=False)
    assert again == built.image


def test_it_is_small_and_holds_no_compiler_no_pip_and_no_torch(built: Built) -> None:
    assert (built.image.bytes - built.image.base_bytes) / 1e6 <= MOST_MB_OVER_BASE
    code = (
        "import importlib.util as u, shutil; "
        "print([n for n in ('torch', 'pip', 'onnx', 'pandas', 'prefect') if u.find_spec(n)], "
        "[p for p in ('gcc', 'cc', 'g++', 'make') if shutil.which(p)])"
    )
    assert built.run("python", "-c", code).strip() == "[] []"


def test_it_says_what_it_is(built: Built) -> None:
    configuration = built.engine.images.get(built.image.id).attrs["Config"]
    assert configuration["User"] == "10001:10001"
    assert "kinglet.serving.health" in configuration["Healthcheck"]["Test"]
    labels = configuration["Labels"]
    assert labels["kinglet.data-version"] == "data-1"
    assert labels["kinglet.bundle-sha256"] == built.image.bundle_sha256
    assert len(labels["kinglet.model-sha256"]) == 64
    assert labels["org.opencontainers.image.version"] == built.image.version
    # The checkout of the test is no repository.
    assert labels["org.opencontainers.image.revision"] == "unknown"


def test_the_bill_of_materials_is_valid_and_complete(built: Built) -> None:
    text = Path(built.image.bill).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    purls = {item.get("purl", "") for item in json.loads(text)["components"]}
    installed = built.run("python", "-c", "import importlib.metadata as m; print(*[d.name for d in m.distributions()])")
    listed = {purl.split("/")[1].split("@")[0] for purl in purls if purl.startswith("pkg:pypi/")}
    assert {name.lower().replace("_", "-") for name in installed.split()} == {name.replace("_", "-") for name in listed}
    assert any(purl.startswith("pkg:deb/debian/libc6@") for purl in purls)


def test_it_serves_read_only_and_without_privileges_under_its_quota(built: Built) -> None:
    settings = load_deploy_settings().container
    serving = start_container(built.engine, built.image.id, SERVICE, settings)
    try:
        wait_until_ready(built.engine, serving, 120)
        answer = httpx.post(f"{serving.url}/predict", content=PNG, timeout=60)
        assert answer.status_code == 200
        container = find_container(built.engine, serving.name)
        ready = next(line for line in container.logs().decode().splitlines() if '"ready"' in line)
        # Half a processor is one thread, however many the machine has.
        assert (json.loads(ready)["threads"], json.loads(ready)["workers"]) == (1, 1)
        assert container.exec_run(["touch", "/opt/kinglet/x"]).exit_code != 0
        assert container.exec_run(["id", "-u"]).output.strip() == b"10001"
        assert container.exec_run(["python", "-m", "kinglet.serving.health"]).exit_code == 0
        container.stop(timeout=60)
        container.reload()
        assert container.attrs["State"]["ExitCode"] == 0
    finally:
        find_container(built.engine, serving.name).remove(force=True)


def test_a_registry_that_does_not_answer_is_named(built: Built) -> None:
    settings = load_deploy_settings()
    registry = settings.image.model_copy(update={"registry": "127.0.0.1:9/models"})
    settings = settings.model_copy(update={"image": registry})
    place = Place(settings, Deployed(), None)
    with pytest.raises(KingletError, match=r"127\.0\.0\.1:9/models/kinglet-built:\w+ cannot be pushed: .*refused"):
        push_image(place, built.image.reference)


def test_a_damaged_bundle_and_a_base_that_is_not_there_are_refused(built: Built, tmp_path: Path) -> None:
    with pytest.raises(KingletError, match="does not exist"):
        build_image(tmp_path / "none", load_deploy_settings().image)
    settings = load_deploy_settings().image.model_copy(update={"base": "127.0.0.1:9/none:1"})
    with pytest.raises(KingletError, match=r"127\.0\.0\.1:9/none:1 is not on this machine and cannot be pulled"):
        build_image(built.bundle, settings)


def test_without_an_engine_it_says_so(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(KingletError, match="No container engine answers") as raised:
        build_image(built.bundle, load_deploy_settings().image)
    assert "apt-get install docker.io" in raised.value.hint
