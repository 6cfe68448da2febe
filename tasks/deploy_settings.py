"""`deploy/settings.yaml` as typed values: how the container is built, tried and put into service.

A file of its own and no section of params.yaml: nothing there says anything about the model, and no stage may run
again because a port or a registry changed.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from kinglet.errors import KingletError
from tasks.parameters import describe, read_yaml
from tasks.settings_section import Section

SETTINGS_FILE = Path("deploy") / "settings.yaml"
NAME = r"[a-z0-9]+([._-][a-z0-9]+)*"
# Host, port and path of a registry, without the name of an image.
REGISTRY = r"(|[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._/-]+)?)"
SET_BY_THE_IMAGE = ("KINGLET_BUNDLE", "KINGLET_HOST", "KINGLET_PORT")


class ImageSettings(Section):
    """What the image is built from and called.

    name: without its tag, which is the version of the bundle. base: the image that it starts from. registry: where a
    tried image is pushed to; empty if it stays on this machine.
    """

    name: str = Field(default="kinglet-serving", pattern=f"^{NAME}$", max_length=40)
    base: str = Field(default="python:3.11-slim-bookworm", min_length=1)
    registry: str = Field(default="", pattern=f"^{REGISTRY}$")


class ContainerSettings(Section):
    """What a container may use. environment: settings of the server, KINGLET_..."""

    cpus: float = Field(default=0.5, gt=0)
    memory_mb: int = Field(default=256, ge=32)
    environment: dict[str, str] = Field(default_factory=dict)

    @field_validator("environment")
    @classmethod
    def only_settings_of_the_server(cls, value: dict[str, str]) -> dict[str, str]:
        """Refuse what is not the server's, or what front and image rely on."""
        for name in value:
            if not name.startswith("KINGLET_") or name in SET_BY_THE_IMAGE:
                raise ValueError(f"KINGLET_... but none of {', '.join(SET_BY_THE_IMAGE)}")
        return value


class SmokeTestSettings(Section):
    """What a container has to show before it gets a request of anybody else's.

    test_images: how many must be answered as offline. requests, requests_per_second: of the load under which the
    latency is measured. ready_seconds, p99_ms, memory_mb: the most that is good.
    """

    test_images: int = Field(default=200, ge=1)
    requests: int = Field(default=500, ge=1)
    requests_per_second: float = Field(default=50, gt=0)
    ready_seconds: float = Field(default=10, gt=0)
    p99_ms: float = Field(default=100, gt=0)
    memory_mb: float = Field(default=200, gt=0)


class FrontSettings(Section):
    """The port that clients know, and HAProxy behind it.

    probation_seconds: how long the predecessor stays beside a promoted container. drain_seconds: for the last answers
    of a container that is replaced.
    """

    image: str = Field(default="haproxy:2.8", min_length=1)
    address: str = Field(default="127.0.0.1", pattern=r"^[0-9a-fA-F.:]+$")
    port: int = Field(default=8080, ge=1, le=65535)
    probation_seconds: float = Field(default=30, ge=0)
    drain_seconds: int = Field(default=30, ge=1)


class DeploySettings(Section):
    """All of deploy/settings.yaml."""

    image: ImageSettings = ImageSettings()
    container: ContainerSettings = ContainerSettings()
    smoke_test: SmokeTestSettings = SmokeTestSettings()
    front: FrontSettings = FrontSettings()


def load_deploy_settings(path: Path = SETTINGS_FILE) -> DeploySettings:
    """Return the checked settings; raises KingletError that names the file, the key, what it got and what it takes."""
    content = read_yaml(path)
    try:
        return DeploySettings.model_validate(content)
    except ValidationError as error:
        raise KingletError(
            f"{path}: " + "; ".join(describe(item, DeploySettings) for item in error.errors()) + "."
        ) from None
