"""The flow `monitor`: what servers saw since the last check, and an event where it drifted, which starts `retrain`."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.events import emit_event
from prefect.events.worker import EventsWorker

from kinglet.errors import KingletError
from tasks.monitor import DRIFT, check, remember
from tasks.parameters import load_parameters

EVENT = "kinglet.drift.detected"
RESOURCE = "kinglet.model."


@flow(name="monitor", validate_parameters=False, persist_result=False)
def monitor() -> dict[str, Any]:
    """Check with the settings of params.yaml in the current folder; return the result of `tasks.monitor.check`.

    Sketches count as checked once the event was handed over, so that a flow which is killed says it again.
    Raises KingletError if the sketches cannot be read or the event cannot be sent.
    """
    result = check(load_parameters())
    emit_drift(result)
    remember(result)
    return result


def emit_drift(result: dict[str, Any]) -> int:
    """Send an event for each model that drifted to Prefect's server; return how many.

    Raises KingletError if Prefect does not take one.
    """
    drifted = [model for model in result["models"] if model["verdict"] == DRIFT]
    for model in drifted:
        event = emit_event(
            EVENT,
            resource={
                "prefect.resource.id": f"{RESOURCE}{model['model']}",
                "prefect.resource.name": model["model"],
                "kinglet.version": model["version"],
            },
            payload={
                "sentence": model["sentence"],
                "images": model["images"],
                "moved": [finding["name"] for finding in model["findings"] if finding["verdict"] == "moved"],
            },
        )
        if event is None:
            raise KingletError(
                f"Prefect did not take the event {EVENT} of {model['model']}.", "Check PREFECT_API_URL and its server."
            )
    if drifted:
        # A process that ends at once would take what waits to be sent with it.
        EventsWorker.drain_all(timeout=30)
    return len(drifted)
