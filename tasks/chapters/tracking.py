"""The chapter `tracking`: what the teacher's and the chosen model's tracks of the test sequences are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kinglet.atomic import read_json
from tasks.artifacts import TRACK
from tasks.chapters.detections import jpeg_uri
from tasks.report_rows import signed, signed_between

RESULTS = TRACK / "results"
# Where those lie as seen from the page.
LINKS = "../track/results"
WORDS = {"mota": "MOTA", "idf1": "IDF1", "hota": "HOTA"}
STRIPS_SHOWN = 6


def chapter(results: Path = RESULTS) -> dict[str, Any]:
    """Return what the template shows of a run that follows objects."""
    scores = read_json(TRACK / "scores.json")
    names = list(scores["models"])
    return {
        **scores,
        "names": names,
        "words": WORDS,
        "verdict": verdict(scores),
        "rows": [row_of(sequence, scores, names) for sequence in scores["files"]],
        "strips": [
            {"uri": strip_uri(results / files["strip"]), "sequence": sequence}
            for sequence, files in list(scores["files"].items())[:STRIPS_SHOWN]
        ],
        "links": LINKS,
    }


def verdict(scores: dict[str, Any]) -> str:
    """Return in a sentence what the chosen model's tracks lose to the teacher's, if they are others."""
    if scores["teacher"] == scores["chosen"]:
        return f"{scores['teacher']}, the teacher itself, is what follows the objects."
    found = []
    for name, value in scores["difference"]["values"].items():
        interval = scores["difference"]["intervals"][name]
        between = f" ({signed_between(interval)})" if interval else ""
        found.append(f"{WORDS[name]} {signed(value)} points{between}")
    return f"{scores['chosen']} follows objects by {', '.join(found)} against {scores['teacher']}."


def row_of(sequence: str, scores: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return the scores of one sequence by every model, and its files."""
    return {
        "name": sequence,
        "models": [scores["models"][name]["sequences"][sequence] for name in names],
        "files": scores["files"][sequence],
    }


def strip_uri(file: Path) -> str:
    """Return a strip of frames as a data URI."""
    with Image.open(file) as picture:
        return jpeg_uri(np.asarray(picture.convert("RGB")))
