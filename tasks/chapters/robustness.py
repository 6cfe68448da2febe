"""The chapter `robustness`: the chosen model and the teacher on corrupted images, and what those look like."""

from __future__ import annotations

from typing import Any

import numpy as np

from kinglet.atomic import read_json
from kinglet.evidence.corruptions.kinds import FAMILIES, KINDS
from kinglet.evidence.corruptions.severities import SEVERITIES
from kinglet.evidence.corruptions.shifts import SHIFTS
from kinglet.evidence.robustness import AS_CLEAN, KEPT, LOST
from kinglet.evidence.robustness_charts import Decline, accuracy_and_confidence
from tasks.artifacts import ROBUSTNESS
from tasks.report_page import png_uri
from tasks.report_rows import between, percent, signed, signed_between

SHOWN_SEVERITIES = (1, 3, 5)
WORDS = {
    KEPT: "robustness kept",
    LOST: "robustness lost",
    AS_CLEAN: "lost, as without corruption",
}
SMALLEST_SMOOTH = 64  # pixels: pictures below this show their pixels


def robustness_chapter(chosen: str, confidence: float, several: str = "images") -> dict[str, Any]:
    """Return what the template shows.

    chosen: the model that the page is about; confidence: of the intervals; several: what the models sort.
    """
    scores = read_json(ROBUSTNESS / "scores.json")
    models, teacher = scores["models"], scores["teacher"]
    shown = [teacher] if chosen == teacher or chosen not in models else [teacher, chosen]
    return {
        "images": scores["images"],
        "test_images": scores["test_images"],
        "published": scores["published"],
        "image_size": scores["image_size"],
        "confidence": confidence,
        "verdict": verdict(models, teacher, chosen, several),
        "models": [
            {
                **of_model,
                "name": name,
                "kind": kind_of(name, chosen, teacher),
                "word": word_of(of_model, name == teacher),
            }
            for name, of_model in models.items()
        ],
        "shown": shown,
        "severities": SEVERITIES,
        "groups": heat_groups(models, shown),
        "charts": charts(models, shown, chosen),
        "pictures": pictures(scores),
        "shown_severities": SHOWN_SEVERITIES,
    }


def kind_of(name: str, chosen: str, teacher: str) -> str:
    """Return the CSS class of a model."""
    return "chosen" if name == chosen else "teacher" if name == teacher else "other"


def word_of(of_model: dict[str, Any], is_teacher: bool) -> str:
    """Return what became of a model's robustness, in words; nothing for the teacher itself."""
    return "" if is_teacher else WORDS.get(of_model["robustness"], of_model["robustness"])


def verdict(models: dict[str, Any], teacher: str, chosen: str, several: str = "images") -> str:
    """Return in a sentence or two what the chapter shows of the chosen model."""
    shown = chosen if chosen in models else teacher
    of_model, of_teacher = models[shown], models[teacher]
    accuracy = of_model["mean_corruption_accuracy"]
    said = f"{shown} is right on {percent(accuracy['value'], 1)} % of the corrupted {several} ({between(accuracy, 1)})"
    if shown == teacher:
        other = "" if chosen in models else f" {chosen} was not scored on them (robustness.models)."
        clean = percent(of_model["clean_accuracy"], 1)
        return f"{said}, and on {clean} % of the same {several} without corruption.{other}"
    difference = of_model["difference_to_teacher"]
    said += (
        f", {teacher} on {percent(of_teacher['mean_corruption_accuracy']['value'], 1)} %: a difference of "
        f"{signed(difference['value'], 1)} points ({signed_between(difference, 1)}). On the same {several} without "
        f"corruption it is {signed(of_model['clean_difference_to_teacher']['value'], 1)} points."
    )
    if of_model["robustness"] == LOST:
        return f"{said} So it lost robustness, which clean {several} do not show."
    return said


def heat_groups(models: dict[str, Any], shown: list[str]) -> list[dict[str, Any]]:
    """Return the rows of the heat map by family: accuracy of every shown model, and the difference of two."""
    shifts = ("another camera", tuple(SHIFTS), "shifts")
    families = [*((family, kinds, "kinds") for family, kinds in FAMILIES.items()), shifts]
    groups = []
    for family, ways, key in families:
        rows = []
        for way in ways:
            accuracies = [models[name][key][way] for name in shown]
            changes = [] if len(shown) < 2 else [new - old for old, new in zip(*accuracies, strict=True)]
            rows.append({"name": way.replace("_", " "), "accuracies": accuracies, "changes": changes})
        groups.append({"family": family, "rows": rows})
    return groups


def charts(models: dict[str, Any], shown: list[str], chosen: str) -> dict[str, str]:
    """Return the chart of calibration under corruption, for a wide and for a narrow page."""
    declines = [
        Decline(
            name,
            [models[name]["clean_accuracy"], *models[name]["severities"]],
            [models[name]["mean_confidence"]["clean"], *models[name]["mean_confidence"]["severities"]],
            "chosen" if name == chosen else "teacher",
        )
        for name in shown
    ]
    return {
        "wide": accuracy_and_confidence(declines, width=760, height=330),
        "narrow": accuracy_and_confidence(declines, width=380, height=300),
    }


def pictures(scores: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a strip of pictures for every way, of growing severity."""
    stored = np.load(ROBUSTNESS / "pictures.npy")
    strips = []
    for way, of_way in zip((*KINDS, *SHIFTS), stored, strict=True):
        strip = np.concatenate([of_way[severity - 1] for severity in SHOWN_SEVERITIES], axis=1)
        steps = scores["shift_steps"].get(way)
        note = "" if steps is None else ", ".join(f"{steps[severity - 1]:g}" for severity in SHOWN_SEVERITIES)
        strips.append({"name": way.replace("_", " "), "note": note, "uri": png_uri(strip)})
    return [{**strip, "small": stored.shape[2] < SMALLEST_SMOOTH} for strip in strips]
