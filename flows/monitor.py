"""The flow `monitor`: what servers saw since the last check, and an event where it drifted, which starts `retrain`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from prefect import flow
from prefect.events import Event
from prefect.events.clients import get_events_client
from prefect.events.schemas.events import Resource

from kinglet.errors import KingletError
from kinglet.evidence.drift_test import MOVED
from tasks.monitor import DRIFT, check, remember
from tasks.parameters import load_parameters

EVENT = "kinglet.drift.detected"
RESOURCE = "kinglet.model."


@flow(name="monitor", validate_parameters=False, persist_result=False)
def monitor() -> dict[str, Any]:
    """Check with the settings of params.yaml in the current folder; return the result of `tasks.monitor.check`.

    Sketches count as checked once the server has taken the events, so that a flow which is killed says it again.
    Raises KingletError if the sketches cannot be read or an event cannot be sent.
    """
    result = check(load_parameters())
    emit_drift(result)
    remember(result)
    return result


def emit_drift(result: dict[str, Any]) -> int:
    """Send an event for each model that drifted to Prefect's server; return how many it has taken.

    Raises KingletError if it does not take them.
    """
    events = [event_of(model) for model in result["models"] if model["verdict"] == DRIFT]
    if events:
        try:
            asyncio.run(send(events))
        except Exception as error:
            raise KingletError(
                f"Prefect's server did not take the event {EVENT} ({type(error).__name__}: {error}).",
                "Check PREFECT_API_URL and the server; the next check sends it again.",
            ) from error
    return len(events)


def event_of(model: dict[str, Any]) -> Event:
    """Return the event of a model that drifted."""
    resource = {
        "prefect.resource.id": f"{RESOURCE}{model['model']}",
        "prefect.resource.name": model["model"],
        "kinglet.version": model["version"],
    }
    payload = {
        "sentence": model["sentence"],
        "images": model["images"],
        "moved": [finding["name"] for finding in model["findings"] if finding["verdict"] == MOVED],
    }
    return Event(event=EVENT, resource=Resource(resource), payload=payload)


async def send(events: Sequence[Event]) -> None:
    """Send events and wait until the server has confirmed each.

    `emit_event` would hand them to a thread that logs what it cannot send: a drift must not be lost.
    """
    async with get_events_client(reconnection_attempts=2, checkpoint_every=1) as client:
        for event in events:
            await client.emit(event)
