"""The chapter `domains`: what a camera or site costs that the model never saw."""

from __future__ import annotations

from typing import Any

from kinglet.atomic import read_json
from tasks.artifacts import DOMAINS
from tasks.report_rows import percent, signed, signed_between
from tasks.select import ACCURACY, WORDS


def chapter(confidence: float, several: str = "images") -> dict[str, Any] | None:
    """Return what the template shows, None where no image has a domain.

    confidence: of the intervals. several: what is of a domain.
    """
    scores = read_json(DOMAINS / "scores.json")
    if not scores["named"]:
        return None
    word = WORDS[scores.get("headline", ACCURACY)]
    return {
        **scores,
        "word": word,
        "is_share": word == WORDS[ACCURACY],
        "confidence": confidence,
        "verdict": scores["reason"] or verdict(scores, word, several),
    }


def verdict(scores: dict[str, Any], word: str, several: str = "images") -> str:
    """Return in a sentence or two what unseen domains cost, and which costs most.

    word: for the score. several: what is of a domain.
    """
    pooled, rows = scores["all"], scores["left_out"]
    worst = min(rows, key=lambda row: row["change"]["value"])
    seen, unseen = (f"{percent(pooled[key]['value'], 1)} %" for key in ("seen", "unseen"))
    known, new = "On a domain that it was trained on the recipe", "on one that it never saw"
    if word == WORDS[ACCURACY]:
        said = f"{known} is right about {seen} of the test {several}, {new} about {unseen}"
    else:
        said = f"{known} reaches an {word} of {seen} on the test images, {new} of {unseen}"
    return (
        f"{said}: {signed(pooled['change']['value'], 1)} points ({signed_between(pooled['change'], 1)}). "
        f"{worst['domain']} suffers most: {signed(worst['change']['value'], 1)} points "
        f"({signed_between(worst['change'], 1)})."
    )
