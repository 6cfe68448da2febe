"""The chapter `domains`: what a camera or site costs that the model never saw."""

from __future__ import annotations

from typing import Any

from kinglet.atomic import read_json
from tasks.artifacts import DOMAINS
from tasks.report_rows import percent, signed, signed_between


def chapter(confidence: float) -> dict[str, Any] | None:
    """Return what the template shows, None where no image has a domain. confidence: of the intervals."""
    scores = read_json(DOMAINS / "scores.json")
    if not scores["named"]:
        return None
    return {**scores, "confidence": confidence, "verdict": scores["reason"] or verdict(scores)}


def verdict(scores: dict[str, Any]) -> str:
    """Return in a sentence or two what unseen domains cost, and which costs most."""
    pooled, rows = scores["all"], scores["left_out"]
    worst = min(rows, key=lambda row: row["change"]["value"])
    return (
        f"On a domain that it was trained on the recipe is right about {percent(pooled['seen']['value'], 1)} % of the "
        f"test images, on one that it never saw about {percent(pooled['unseen']['value'], 1)} %: "
        f"{signed(pooled['change']['value'], 1)} points ({signed_between(pooled['change'], 1)}). "
        f"{worst['domain']} suffers most: {signed(worst['change']['value'], 1)} points "
        f"({signed_between(worst['change'], 1)})."
    )
