"""What is deployed on a machine: the container that answers, and the images that a rollback can reach."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from kinglet.errors import KingletError, other_format

FORMAT = 1
# Images that a rollback can reach.
KEPT = 5
IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Deployment:
    """An image in production. image: its id. version: of its bundle. container: its name, never used twice."""

    image: str
    version: str
    container: str


@dataclass(frozen=True)
class Deployed:
    """What answers now, None if nothing does; and what did before, the latest last."""

    current: Deployment | None = None
    previous: tuple[Deployment, ...] = ()

    def followed_by(self, deployment: Deployment) -> Deployed:
        """Return the state after a promotion; of an image that is there already only the container changes."""
        if self.current is None or self.current.image == deployment.image:
            return Deployed(deployment, self.previous)
        return Deployed(deployment, (*self.previous, self.current)[-KEPT:])

    def rolled_back(self, deployment: Deployment) -> Deployed:
        """Return the state after a rollback to the latest image before this one, now in another container."""
        return Deployed(deployment, self.previous[:-1])


def to_json(deployed: Deployed) -> dict[str, Any]:
    """Return the state as it is written."""
    return {"format": FORMAT, **asdict(deployed)}


def from_text(text: str, origin: str) -> Deployed:
    """Return the state that a file holds; raises KingletError if it is damaged or of a newer format."""
    try:
        value = json.loads(text)
        if value["format"] != FORMAT:
            raise other_format(origin, value["format"], FORMAT)
        current = value["current"] and deployment_of(value["current"])
        return Deployed(current, tuple(deployment_of(item) for item in value["previous"]))
    except (ValueError, KeyError, TypeError):
        raise KingletError(
            f"{origin} does not say what is deployed: it was changed or damaged.",
            "Restore it, or delete it and deploy again: the next deployment takes the place of what runs.",
        ) from None


def deployment_of(value: dict[str, str]) -> Deployment:
    """Return a deployment from its JSON; raises KeyError, TypeError or ValueError if it is none."""
    if not IMAGE_ID.fullmatch(value["image"]):
        raise ValueError(value)
    return Deployment(str(value["image"]), str(value["version"]), str(value["container"]))
