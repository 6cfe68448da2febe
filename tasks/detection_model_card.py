"""The model card of a detector: what it finds, how well and how fast, and where that ends, as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kinglet.runtime.bundles import MODEL
from kinglet.runtime.thresholds import Thresholds
from tasks.artifacts import ModelCard
from tasks.model_card import percent

PARTS = ("validation", "test")
# How many classes, from the weakest, are named.
WEAKEST = 3


@dataclass(frozen=True)
class DetectionEvidence:
    """What a detector's card tells beside the facts about the model.

    scores: as in scores.json, of the model. latency, reference_latency: as in latency.json, of the model and of the
    teacher, measured in turns on `device` with `threads`. counts: images of each part. reason: why this model, in one
    sentence.
    """

    scores: dict[str, Any]
    latency: dict[str, Any]
    reference_latency: dict[str, Any]
    device: dict[str, Any]
    threads: int
    counts: dict[str, Any]
    reason: str


def detection_model_card(card: ModelCard, thresholds: Thresholds, evidence: DetectionEvidence) -> str:
    """Return the model card as Markdown."""
    latency = evidence.latency
    faster = evidence.reference_latency["p50_ms"] / latency["p50_ms"]
    threads = f"{evidence.threads} thread{'s' if evidence.threads > 1 else ''}"
    colour = "gray" if card.channels == 1 else "RGB"
    return f"""# {card.name}

Finds objects of {len(card.classes)} {"class" if len(card.classes) == 1 else "classes"} in an image: \
{", ".join(card.classes)}.

## Scores

{score_table(evidence.scores)}

mAP is the mean over classes of the average precision, at an overlap (IoU) of 0.5, and as the mean over overlaps of \
0.50 to 0.95, by COCO's rules. In brackets: intervals from resampling the images. The model was chosen on the \
validation images; the test images chose nothing.{weakest(evidence.scores)}

## Speed and size

{latency["p50_ms"]:.3g} ms per image at the median ({latency["p50_low_ms"]:.3g} to {latency["p50_high_ms"]:.3g}), \
{latency["p99_ms"]:.3g} ms at the 99th percentile, batch 1, {threads}; \
{faster:.1f} times as fast as the teacher in the same measurement.{decoding(latency)} \
{latency["size_bytes"] / 1e6:.2f} MB on disk, {latency["peak_memory_mb"]:.0f} MB of memory above an empty runtime. \
Measured on {evidence.device["cpu"]} with onnxruntime {evidence.device["onnxruntime"]}.

## How it was made

Step `{card.step}`{f" from `{card.parent}`" if card.parent else ""}, {card.precision}, {card.parameters:,} parameters. \
{evidence.reason}

## Input and answer

uint8 image, {colour}, any size; brought to {card.input_size} x {card.input_size} pixels ({card.fit}) and normalized \
by `kinglet.runtime` as `preprocessing.json` says. The answer is a list of objects: class, score, and box (left, top, \
right, bottom) in pixels of the image. Boxes with a score below {thresholds.score:g} are left out; of two boxes of a \
class that overlap by more than {thresholds.iou:g}, the surer one stays; at most {thresholds.most} of an image. \
`model-with-nms.onnx` does the same inside the file, for one image at a time.

## Data

{len(card.classes)} classes{images(evidence.counts)}. Names and order: `labels.json`.

{other_processors(evidence.scores)}## Limits

- It knows its classes only, and finds no other object.
- The scores hold for images like those of the test split; other cameras, light or framing were not tested.
- Latency was measured on the machine named above and is another on any other.
- A score is no probability: how often boxes of a score are right was not calibrated.
"""


def score_table(scores: dict[str, Any]) -> str:
    """Return the scores of both parts as a table in Markdown."""
    rows = ["| | validation | test |", "|---|---|---|"]
    rows.append("| images | " + " | ".join(f"{scores[part]['n']:,}" for part in PARTS) + " |")
    for title, name in (("mAP at IoU 0.5", "map_50"), ("mAP, 0.50 to 0.95", "map")):
        rows.append(f"| {title} | " + " | ".join(percent(scores[part][name]) for part in PARTS) + " |")
    return "\n".join(rows)


def other_processors(scores: dict[str, Any]) -> str:
    """Return the words on x86 processors without VNNI; nothing for a model that was not scored there."""
    there = scores.get("without_vnni")
    if not there or there["score"] is None:
        return ""
    said = (
        f"`{MODEL}` alone would have {percent(there['model_onnx'])} there; `{there['file']}` is opened in its place."
        if there["file"] != MODEL
        else f"The same file, `{MODEL}`, is opened there."
    )
    return f"""## x86 processors without VNNI

They add 8-bit products in 16 bits, which can saturate. On {there["n"]:,} test images, mAP at IoU 0.5 there is \
{percent(there["score"])}. {said}

"""


def weakest(scores: dict[str, Any]) -> str:
    """Return the weakest classes on the test images in words."""
    known = [
        (of_class["map_50"]["value"], label)
        for label, of_class in scores["test"]["per_class"].items()
        if of_class["map_50"] is not None
    ]
    named = ", ".join(f"{label} {100 * value:.1f} %" for value, label in sorted(known)[:WEAKEST])
    return f" Weakest classes on the test images (AP at IoU 0.5): {named}." if named else ""


def decoding(latency: dict[str, Any]) -> str:
    """Return the words on what turning the network's answer into objects costs, which is no part of the latency."""
    decode = latency["decode"]
    return (
        f" Beside the network, {decode['p50_ms']:.2g} ms turn its answer into objects (median of {decode['images']} "
        "validation images)."
    )


def images(counts: dict[str, Any]) -> str:
    """Return how many images the parts have, in words."""
    numbers = {
        part: sum(of_part.values()) if isinstance(of_part, dict) else of_part for part, of_part in counts.items()
    }
    return "; images: " + ", ".join(f"{n:,} {part}" for part, n in sorted(numbers.items())) if numbers else ""
