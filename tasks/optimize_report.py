"""What `kinglet optimize` shows and packs: the page with the evidence, and the bundle of the chosen model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kinglet.atomic import write_text
from tasks.bundle import GOLDEN_IMAGES, pack
from tasks.bundle_evidence import one_of_each_class
from tasks.evidence_settings import Evaluate, Report
from tasks.model_card import CardEvidence, model_card
from tasks.optimize_evidence import Comparison, without_vnni_of
from tasks.optimize_inputs import Given
from tasks.optimize_options import Options
from tasks.report_page import Evidence, page_of, render

PAGE, BUNDLE = "report.html", "bundle"
FLATTERY = (
    "The network was trained elsewhere: images that it was trained on flatter the float file and the int8 file alike, "
    "and what counts is the difference between the two."
)


def write_report(
    work: Path,
    comparison: Comparison,
    quantization: dict[str, Any],
    given: Given,
    counts: dict[str, dict[str, int]],
    options: Options,
) -> None:
    """Write the page; where nothing fits the budget it is about the int8 model, and says so."""
    int8 = list(comparison.cards)[-1]
    page = page_of(
        Evidence(
            title="Kinglet",
            scores=comparison.scores,
            latency=comparison.latency,
            classes=given.classes,
            reference=comparison.reference,
            word="float model",
            chosen=comparison.chosen or int8,
            chosen_word="chosen" if comparison.chosen else "int8",
            reason=f"{comparison.reason} {FLATTERY}",
            front=comparison.front,
            budget=comparison.budget,
            answers=comparison.answers,
            packed=given.images.packed,
            counts=counts,
            confidence=Evaluate().confidence,
            seed=options.seed,
            sample_errors=Report().sample_errors,
        )
    )
    if comparison.chosen is None:
        page["verdict"] = {"headline": "Neither file fits the budget.", "claim": comparison.reason}
    page |= {
        "quarantined": given.images.left_out,
        "ladder": {"verdict": guard_in_words(quantization["guard"]), **quantization},
        "adoption": adoption_rows(given, options),
        "origin": f"{options.model.name} and its images",
    }
    write_text(work / PAGE, render(page))


def guard_in_words(guard: dict[str, Any]) -> str:
    """Return what the guard of quantization found, in one sentence."""
    difference = guard["accuracy_difference"]
    bounds = f"{100 * difference['low']:+.2f} to {100 * difference['high']:+.2f}"
    verdict = "good enough" if guard["within_tolerance"] else "not good enough, and no step was left"
    return (
        f"Step by step, the cheapest first, until the int8 model is good enough on {guard['images']:,} validation "
        f"images: {100 * difference['value']:+.2f} points ({bounds}), with {100 * guard['tolerance']:g} points "
        f"allowed, judged by the {guard['judged_by']}: {verdict}."
    )


def adoption_rows(given: Given, options: Options) -> dict[str, str]:
    """Return what is to be known about the given file, by title."""
    preprocessing, scale = given.preprocessing, given.scale
    mean = ", ".join(f"{value:g}" for value in preprocessing.mean)
    std = ", ".join(f"{value:g}" for value in preprocessing.std)
    tried = ", ".join(f"{name} {100 * value.value:.1f} %" for name, value in scale.discovery.accuracies.items())
    return {
        "File": options.model.name,
        "Input": f"{preprocessing.input_size} x {preprocessing.input_size} pixels, "
        f"{'gray' if preprocessing.channels == 1 else 'RGB'}; other images are brought to it by {preprocessing.fit}",
        "Scale of the pixels": f"{scale.sentence}; mean {mean}; standard deviation {std} (of pixels from 0 to 1)",
        "Accuracy under each scale": f"{tried} (on {scale.discovery.n_images:,} images that are not the test images)",
        "Images": FLATTERY,
    }


def write_bundle(
    work: Path, file: Path, comparison: Comparison, given: Given, counts: dict[str, dict[str, int]]
) -> None:
    """Pack the chosen model as the pipeline packs its own. file: of that model."""
    name, test = file.stem, given.parts["test"]
    card = comparison.cards[name]
    taken = one_of_each_class(test.rows, test.labels, GOLDEN_IMAGES)
    models = comparison.latency["models"]
    evidence = CardEvidence(
        scores=comparison.scores[name],
        latency=models[name],
        reference_latency=models[comparison.reference],
        device=comparison.latency["device"],
        threads=comparison.latency["threads"],
        reference=comparison.budget.reference,
        counts=counts,
        reason=comparison.reason,
        limits=(FLATTERY,),
    )
    images = np.asarray(given.images.packed[test.rows[taken]])
    text = model_card(card, given.preprocessing, evidence)
    pack(work / BUNDLE, file, without_vnni_of(file), card.precision == "int8", images, test.labels[taken], text)
