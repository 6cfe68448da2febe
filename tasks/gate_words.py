"""The gate's verdict in words: a paragraph for the person who signs, and a page of Markdown."""

from __future__ import annotations

from typing import Any

from kinglet.evidence.gate import FAILED, NOT_JUDGED, PASSED, percent
from kinglet.evidence.image_gate import MAP_50, MIOU

SIGNS = {PASSED: "passed", FAILED: "**failed**", NOT_JUDGED: "not judged"}
# What a model is judged by where it is not the accuracy.
HEADLINES = (MAP_50, MIOU)
COMPARED = ("accuracy", *(headline.word for headline in HEADLINES))
FIRST_RUN = "There is no champion yet, so it was held against its fp32 teacher."


def paragraph(verdict: dict[str, Any]) -> str:
    """Return the verdict as one paragraph. verdict: the content of verdict.json, without this paragraph."""
    return " ".join(
        filter(None, [decision(verdict), against(verdict), failures(verdict), flags(verdict), unjudged(verdict)])
    )


def decision(verdict: dict[str, Any]) -> str:
    """Return the decision in one sentence."""
    name = verdict["challenger"]["model"]
    may = "may" if verdict["verdict"] == "accepted" else "must not"
    place = "go into production" if verdict["reference"] != "champion" else "replace the champion"
    if verdict["challenger"]["bundle"] == verdict["champion"]["bundle"]:
        place = "stay in production"
    return f"{verdict['verdict'].capitalize()}: {name} {may} {place}."


def against(verdict: dict[str, Any]) -> str:
    """Return what the challenger was held against, and the scores of both."""
    word, said = verdict["reference"], measured(verdict)
    first = f" {FIRST_RUN}" if word != "champion" else ""
    comparison = next(check for check in verdict["checks"] if check["name"] in COMPARED)
    # What failed is told with the other failures.
    return f"{said}.{first}" + ("" if comparison["outcome"] == FAILED else f" {comparison['reason']}")


def measured(verdict: dict[str, Any]) -> str:
    """Return the scores of challenger and reference: the accuracy, or another headline."""
    word, n = verdict["reference"], f"{verdict['images']:,} {verdict.get('shown', 'test images')}"
    headline = next((headline for headline in HEADLINES if headline.name in verdict), None)
    if headline is not None:
        scores = verdict[headline.name]
        said, beside = f"Its {headline.word} is {share(scores['challenger'])} on {n}", f"that of the {word}"
    else:
        scores = verdict["accuracy"]
        said, beside = f"It is right on {share(scores['challenger'])} of {n}", f"the {word} on"
    return said if scores["reference"] is None else f"{said}, {beside} {share(scores['reference'])}"


def failures(verdict: dict[str, Any]) -> str:
    """Return how many checks failed, and each with its reason."""
    failed = [check for check in verdict["checks"] if check["outcome"] == FAILED]
    judged = sum(check["outcome"] != NOT_JUDGED for check in verdict["checks"])
    if not failed:
        return f"All {judged} checks that were judged passed."
    reasons = " ".join(f"{check['name'].capitalize()}: {check['reason']}" for check in failed)
    return f"{len(failed)} of {judged} checks failed. {reasons}"


def flags(verdict: dict[str, Any]) -> str:
    """Return what a person should read although it did not fail; nothing if there is no such thing."""
    flagged = [check for check in verdict["checks"] if check["flagged"] and check["outcome"] != FAILED]
    return " ".join(f"Look at {check['name']}: {check['reason']}" for check in flagged)


def unjudged(verdict: dict[str, Any]) -> str:
    """Return the names of the checks that were not judged; nothing if all were."""
    names = [check["name"] for check in verdict["checks"] if check["outcome"] == NOT_JUDGED]
    return f"Not judged: {', '.join(names)}." if names else ""


def share(interval: dict[str, float]) -> str:
    """Return a share with its interval in percent."""
    return f"{percent(interval['value'])} ({percent(interval['low'])} to {percent(interval['high'])})"


def markdown(verdict: dict[str, Any]) -> str:
    """Return the verdict as a page of Markdown: the paragraph, then every check. verdict: as in verdict.json."""
    rows = "\n".join(
        f"| {check['name']} | {SIGNS[check['outcome']]} | {in_a_cell(check['reason'])} |" for check in verdict["checks"]
    )
    champion = verdict["champion"]
    held = f"`{champion['folder']}`, bundle {champion['bundle'][:12]}" if champion["bundle"] else "none yet"
    return f"""# Verdict: {verdict["verdict"]}

{verdict["paragraph"]}

| check | outcome | reason |
|---|---|---|
{rows}

Challenger: `{verdict["challenger"]["model"]}`, bundle {verdict["challenger"]["bundle"][:12]}. Champion: {held}.
"""


def in_a_cell(sentence: str) -> str:
    """Return a sentence that cannot end a cell of a table: names of classes are anybody's."""
    return sentence.replace("|", "\\|").replace("\n", " ")
