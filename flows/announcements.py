"""What scheduled runs tell the Prefect server beside their states: events, for automations to act on."""

from __future__ import annotations

from prefect.events import emit_event
from prefect.runtime import deployment

from flows.stages import Outcome
from kinglet.atomic import read_json
from tasks.artifacts import GATE, VERDICT

GATE_ACCEPTED = "kinglet.gate.accepted"
GATE_REFUSED = "kinglet.gate.refused"


def model_resource(model: str) -> str:
    """Return the id under which events speak of a model, called as its deployments are."""
    return f"kinglet.model.{model}"


def announce_verdict(outcomes: dict[str, str]) -> None:
    """Emit the gate's verdict as an event, with its paragraph, if a deployment's run has a new one.

    outcomes: {stage: what became of it} of the run. A verdict that no stage had to make again is no news.
    """
    is_new = outcomes.get(GATE.name, Outcome.UNCHANGED) != Outcome.UNCHANGED
    if not is_new or not deployment.id:
        return
    verdict = read_json(VERDICT)
    emit_event(
        GATE_ACCEPTED if verdict["verdict"] == "accepted" else GATE_REFUSED,
        resource={"prefect.resource.id": model_resource(deployment.name), "prefect.resource.name": deployment.name},
        payload={"verdict": verdict["verdict"], "paragraph": verdict["paragraph"]},
    )
