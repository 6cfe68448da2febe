"""The chapter `adaptation`: what a target domain costs, what adaptation wins back there, and what it forgets."""

from __future__ import annotations

from typing import Any

import numpy as np

from kinglet.atomic import read_json
from tasks.artifacts import ADAPT
from tasks.report_page import png_uri
from tasks.report_rows import between, percent, signed, signed_between
from tasks.select import ACCURACY, WORDS

METHODS = {
    "batch_norm": ("batch statistics", "{adaptation:,} without labels"),
    "self_training": ("self-training", "{adaptation:,} without labels"),
    "finetune": ("fine-tuning", "{labelled:,} with labels"),
}
SMALLEST_SMOOTH = 64  # pixels: pictures below this show their pixels


def chapter(confidence: float, several: str = "images") -> dict[str, Any] | None:
    """Return what the template shows, None where nothing was to be adapted.

    confidence: of the intervals. several: what is of a domain.
    """
    scores = read_json(ADAPT / "scores.json")
    if not scores["models"] and "reason" not in scores:
        return None
    pictures, name = np.load(ADAPT / "pictures.npy"), scores.get("headline", ACCURACY)
    models = {model: plain(of_model, name) for model, of_model in scores["models"].items()}
    word = WORDS[name]
    return {
        **scores,
        "word": word,
        "confidence": confidence,
        "reason": scores.get("reason", ""),
        "verdicts": [verdict(model, of_model, scores, word, several) for model, of_model in models.items()],
        "models": {model: rows(of_model) for model, of_model in models.items()},
        "images": {model: of_model["images"] for model, of_model in models.items()},
        "before": models,
        "pictures": [png_uri(np.concatenate(list(row), axis=1)) for row in pictures if len(row)],
        "small": pictures.shape[2] < SMALLEST_SMOOTH,
        "columns": pictures.shape[1],
    }


def plain(of_model: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the scores of a model without the name of what it is judged by: `target` and `source`."""

    def renamed(scores: dict[str, Any]) -> dict[str, Any]:
        return {key.removesuffix(f"_{name}"): value for key, value in scores.items()}

    methods = {method: renamed(scores) for method, scores in of_model["methods"].items()}
    return {**renamed(of_model), "methods": methods}


def rows(of_model: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row for every method."""
    found = []
    for method, scores in of_model["methods"].items():
        title, needs = METHODS[method]
        found.append({**scores, "title": title, "needs": needs.format(**of_model["images"])})
    return found


def verdict(name: str, of_model: dict[str, Any], scores: dict[str, Any], word: str, several: str) -> str:
    """Return in a few sentences what the domain cost a model, and what the best method made of it.

    of_model: as `plain` returns it. word: for the score. several: what is of a domain.
    """
    before = of_model["target"]
    method, best = max(of_model["methods"].items(), key=lambda item: item[1]["target"]["value"])
    title, needs = METHODS[method]
    where = "with the change" if scores["is_made"] else f"of the domain {scores['target']}"
    is_share = word == "accuracy"
    said = f"{percent(before['value'], 1)} % ({between(before, 1)})"
    said = f"{name} is right on {said} of" if is_share else f"{name} reaches an {word} of {said} on"
    said += f" the held-out {several} {where}"
    if of_model["cost"]:
        said += f", on {percent(of_model['source']['value'], 1)} % of the same {several} without it"
    else:
        there = f"{percent(of_model['source']['value'], 1)} %"
        said += f", and on {there} of" if is_share else f", and of {there} on"
        said += f" the test {several} of the others"
    after, change, forgotten = best["target"], best["target_change"], best["source_change"]
    said += (
        f". After {title} (on {needs.format(**of_model['images'])}) it {'is right on' if is_share else 'reaches'} "
        f"{percent(after['value'], 1)} %, {signed(change['value'], 1)} points ({signed_between(change, 1)})"
    )
    if best["recovered"]:
        recovered = best["recovered"]
        said += f": {percent(recovered['value'], 0)} % ({between(recovered, 0)}) of what the change cost is won back"
    elif scores["is_made"]:
        said += "; the change costs too little to say which share of it that is"
    return (
        f"{said}. Where it came from its {word} changes by {signed(forgotten['value'], 1)} points "
        f"({signed_between(forgotten, 1)})."
    )
