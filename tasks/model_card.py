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


@dataclass(frozen=True)
class CardWords:
    """What a card calls things.

    one, several: what is sorted. timed: what a latency is of. input: the section on it, after its heading. before: a
    paragraph before the scores. described: what besides the camera may be other.
    """

    one: str
    several: str
    timed: str
    input: str
    before: str = ""
    described: str = "light or framing"


def words_of_images(preprocessing: Preprocessing) -> CardWords:
    """Return the words of a card on images."""
    text = (
        f"uint8 image, {colour_of(preprocessing)}, any size; brought to {preprocessing.input_size} x "
        f"{preprocessing.input_size} pixels ({preprocessing.fit}) and normalized by `kinglet.runtime` as "
        "`preprocessing.json` says."
    )
    return CardWords("image", "images", "image", text)


def colour_of(preprocessing: Preprocessing) -> str:
    """Return the colour of the model's input in words."""
    return "gray" if preprocessing.channels == 1 else "RGB"


def model_card(
    card: ModelCard, preprocessing: Preprocessing, evidence: CardEvidence, words: CardWords | None = None
) -> str:
    """Return the model card as Markdown. words: those of images, if none are given."""
    words = words or words_of_images(preprocessing)
    scores, latency, reference = evidence.scores, evidence.latency, evidence.reference
    test, newline = scores["test"], "\n"
    images = ", ".join(f"{sum(of_class.values()):,} {split}" for split, of_class in sorted(evidence.counts.items()))
    scored = [(label, of_class) for label, of_class in test["per_class"].items() if of_class["support"]]
    worst = sorted(scored, key=lambda item: (item[1]["f1"], item[0]))[:3]
    threads = f"{evidence.threads} thread{'s' if evidence.threads > 1 else ''}"
    faster = evidence.reference_latency["p50_ms"] / latency["p50_ms"]
    return f"""# {card.name}

Sorts {"an" if words.one[0] in "aeiou" else "a"} {words.one} into one of {len(card.classes)} classes: \
{", ".join(card.classes)}.

## Scores

{words.before}| | validation | test |
|---|---|---|
| {words.several} | {scores["validation"]["n"]:,} | {test["n"]:,} |
| accuracy | {percent(scores["validation"]["accuracy"])} | {percent(test["accuracy"])} |
| F1, macro | {percent(scores["validation"]["f1_macro"])} | {percent(test["f1_macro"])} |
| points to the {reference} | {points(scores["difference_to_teacher"]["validation"])} \
| {points(scores["difference_to_teacher"]["test"])} |
| expected calibration error | {scores["validation"]["ece"]:.3f} | {test["ece"]:.3f} |

In brackets: intervals from resampling the {words.several}. The model was chosen on the validation \
{words.several}; the test {words.several} chose nothing. Weakest classes on the test {words.several} (F1): \
{", ".join(f"{label} {100 * of_class['f1']:.1f} %" for label, of_class in worst)}.

## Speed and size

{latency["p50_ms"]:.3g} ms per {words.timed} at the median \
({latency["p50_low_ms"]:.3g} to {latency["p50_high_ms"]:.3g}), \
{latency["p99_ms"]:.3g} ms at the 99th percentile, batch 1, {threads}; \
{faster:.1f} times as fast as the {reference} in the same measurement. \
{latency["size_bytes"] / 1e6:.2f} MB on disk, {latency["peak_memory_mb"]:.0f} MB of memory above an empty runtime. \
Measured on {evidence.device["cpu"]} with \
{latency.get("runtime", f"onnxruntime {evidence.device['onnxruntime']}")}.

{other_processors(scores, words.several)}{other_runtime(card)}## How it was made

Step `{card.step}`{f" from `{card.parent}`" if card.parent else ""}, {card.precision}, {card.parameters:,} parameters. \
{evidence.reason}

## Input

{words.input}

## Data

{len(card.classes)} classes{f"; {words.several}: {images}" if images else ""}. Names and order: `labels.json`.

## Limits

- It answers with one of its classes for any {words.one}, also for one that shows none of them.
- The scores hold for {words.several} like those of the test split; other cameras, {words.described} were not tested.
- Latency was measured on the machine named above and is another on any other.
- Neither robustness to disturbed {words.several} nor fairness between groups of people was examined.
{"".join(f"- {limit}{newline}" for limit in evidence.limits)}"""


def other_processors(scores: dict[str, Any], several: str = "images") -> str:
    """Return the model card's words on x86 processors without VNNI; nothing for a model that has no int8 there.

    several: what it sorts.
    """
    found = scores.get("without_vnni")
    if not found:
        return ""
    other = found["file"] != bundles.MODEL
    said = (
        f"`{bundles.MODEL}` alone would have {percent(found['model_onnx'])} there; `{found['file']}` is opened "
        "in its place."
        if other
        else f"The same file, `{bundles.MODEL}`, is opened there."
    )
    return f"""## x86 processors without VNNI

They add 8-bit products in 16 bits, which can saturate. Accuracy there, on {found["n"]:,} test {several}, is \
{percent(found["accuracy"])}. {said}

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
