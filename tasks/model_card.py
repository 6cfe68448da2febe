"""The model card: what a model is, how good and how fast, and where that ends, as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kinglet.runtime import bundles
from kinglet.runtime.engines import ONNXRUNTIME, RUNTIMES
from kinglet.runtime.preprocessing import Preprocessing
from tasks.artifacts import ModelCard


@dataclass(frozen=True)
class CardEvidence:
    """What a model card tells beside the facts about the model.

    scores: as in scores.json, of the model. latency, reference_latency: as in latency.json, of the model and of the
    one it is compared with, measured in turns on `device` with `threads`. reference: what that one is ("teacher").
    counts: {part: {class: images}}. reason: why this model, in one sentence. limits: further ones, a sentence each.
    """

    scores: dict[str, Any]
    latency: dict[str, Any]
    reference_latency: dict[str, Any]
    device: dict[str, Any]
    threads: int
    reference: str
    counts: dict[str, dict[str, int]]
    reason: str
    limits: tuple[str, ...] = ()


def model_card(card: ModelCard, preprocessing: Preprocessing, evidence: CardEvidence) -> str:
    """Return the model card as Markdown."""
    scores, latency, reference = evidence.scores, evidence.latency, evidence.reference
    test, newline = scores["test"], "\n"
    images = ", ".join(f"{sum(of_class.values()):,} {split}" for split, of_class in sorted(evidence.counts.items()))
    scored = [(label, of_class) for label, of_class in test["per_class"].items() if of_class["support"]]
    worst = sorted(scored, key=lambda item: (item[1]["f1"], item[0]))[:3]
    threads = f"{evidence.threads} thread{'s' if evidence.threads > 1 else ''}"
    faster = evidence.reference_latency["p50_ms"] / latency["p50_ms"]
    return f"""# {card.name}

Sorts an image into one of {len(card.classes)} classes: {", ".join(card.classes)}.

## Scores

| | validation | test |
|---|---|---|
| images | {scores["validation"]["n"]:,} | {test["n"]:,} |
| accuracy | {percent(scores["validation"]["accuracy"])} | {percent(test["accuracy"])} |
| F1, macro | {percent(scores["validation"]["f1_macro"])} | {percent(test["f1_macro"])} |
| points to the {reference} | {points(scores["difference_to_teacher"]["validation"])} \
| {points(scores["difference_to_teacher"]["test"])} |
| expected calibration error | {scores["validation"]["ece"]:.3f} | {test["ece"]:.3f} |

In brackets: intervals from resampling the images. The model was chosen on the validation images; the test
images chose nothing. Weakest classes on the test images (F1): \
{", ".join(f"{label} {100 * of_class['f1']:.1f} %" for label, of_class in worst)}.

## Speed and size

{latency["p50_ms"]:.3g} ms per image at the median ({latency["p50_low_ms"]:.3g} to {latency["p50_high_ms"]:.3g}), \
{latency["p99_ms"]:.3g} ms at the 99th percentile, batch 1, {threads}; \
{faster:.1f} times as fast as the {reference} in the same measurement. \
{latency["size_bytes"] / 1e6:.2f} MB on disk, {latency["peak_memory_mb"]:.0f} MB of memory above an empty runtime. \
Measured on {evidence.device["cpu"]} with \
{latency.get("runtime", f"onnxruntime {evidence.device['onnxruntime']}")}.

{other_processors(scores)}{other_runtime(card)}## How it was made

Step `{card.step}`{f" from `{card.parent}`" if card.parent else ""}, {card.precision}, {card.parameters:,} parameters. \
{evidence.reason}

## Input

uint8 image, {"gray" if preprocessing.channels == 1 else "RGB"}, any size; brought to \
{preprocessing.input_size} x {preprocessing.input_size} pixels ({preprocessing.fit}) and normalized by \
`kinglet.runtime` as `preprocessing.json` says.

## Data

{len(card.classes)} classes{f"; images: {images}" if images else ""}. Names and order: `labels.json`.

## Limits

- It answers with one of its classes for any image, also for one that shows none of them.
- The scores hold for images like those of the test split; other cameras, light or framing were not tested.
- Latency was measured on the machine named above and is another on any other.
- Neither robustness to disturbed images nor fairness between groups of people was examined.
{"".join(f"- {limit}{newline}" for limit in evidence.limits)}"""


def other_processors(scores: dict[str, Any]) -> str:
    """Return the model card's words on x86 processors without VNNI; nothing for a model that has no int8 there."""
    emulated = scores.get("without_vnni")
    if not emulated:
        return ""
    other = emulated["file"] != bundles.MODEL
    said = (
        f"`{bundles.MODEL}` alone would have {percent(emulated['model_onnx'])} there; `{emulated['file']}` is opened "
        "in its place."
        if other
        else f"The same file, `{bundles.MODEL}`, is opened there."
    )
    return f"""## x86 processors without VNNI

They add 8-bit products in 16 bits, which can saturate. Emulated on {emulated["n"]:,} test images, accuracy there is \
{percent(emulated["accuracy"])}. {said}

"""


def other_runtime(card: ModelCard) -> str:
    """Return the model card's words on a model that was converted for another runtime; nothing for an ONNX file."""
    if card.runtime == ONNXRUNTIME:
        return ""
    runtime, fidelity = RUNTIMES[card.runtime], card.notes["fidelity"]
    tolerance = bundles.tolerance_of_converted(card.precision)
    differs = f" The arithmetic differs: {card.notes['arithmetic']}" if "arithmetic" in card.notes else ""
    return f"""## {runtime.title}

Converted from the ONNX file of `{card.parent}` and computed by {runtime.title} \
({", ".join(f"`{name}`" for name in runtime.files)}). On {fidelity["images"]:,} validation images it gives that \
file's class for {100 * fidelity["agreement"]:.2f} %; its logits differ by {fidelity["mean_difference"]:.2g} on \
average and by {fidelity["largest_difference"]:.2g} at most, where they spread by \
{fidelity["spread"]:.2g}.{differs} Its probabilities for the golden images may differ by {tolerance:g} elsewhere.

"""


def percent(interval: dict[str, float]) -> str:
    """Return a share with its interval, in percent."""
    return f"{100 * interval['value']:.2f} % ({100 * interval['low']:.2f} to {100 * interval['high']:.2f})"


def points(interval: dict[str, float]) -> str:
    """Return a difference of shares with its interval, in percentage points with a sign."""
    return f"{100 * interval['value']:+.2f} ({100 * interval['low']:+.2f} to {100 * interval['high']:+.2f})"
