"""The model card of a segmenter: what it tells apart, how well and how fast, and where that ends, as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kinglet.evidence.mask_boundaries import TOLERANCE
from tasks.artifacts import ModelCard
from tasks.detection_model_card import PARTS, images
from tasks.model_card import percent

# How many classes, from the weakest, are named.
WEAKEST = 3
SCORES = (
    ("mIoU, mean over classes", "miou"),
    ("Dice, mean over classes", "dice"),
    ("pixels of the right class", "pixel_accuracy"),
    ("F1 of boundaries", "boundary_f1"),
)


@dataclass(frozen=True)
class SegmentationEvidence:
    """What a segmenter's card tells beside the facts about the model.

    scores: as in scores.json, of the model. latency, reference_latency: as in latency.json, of the model and of the
    teacher, measured in turns on `device` with `threads`. counts: images of each part. reason: why this model, in one
    sentence. golden_tolerance: the share of a golden image's pixels that may be of another class.
    """

    scores: dict[str, Any]
    latency: dict[str, Any]
    reference_latency: dict[str, Any]
    device: dict[str, Any]
    threads: int
    counts: dict[str, Any]
    reason: str
    golden_tolerance: float


def segmentation_model_card(card: ModelCard, evidence: SegmentationEvidence) -> str:
    """Return the model card as Markdown."""
    latency = evidence.latency
    faster = evidence.reference_latency["p50_ms"] / latency["p50_ms"]
    threads = f"{evidence.threads} thread{'s' if evidence.threads > 1 else ''}"
    colour = "gray" if card.channels == 1 else "RGB"
    return f"""# {card.name}

Says of every pixel of an image which of {len(card.classes)} {"class" if len(card.classes) == 1 else "classes"} it \
belongs to: {", ".join(card.classes)}.

## Scores

{score_table(evidence.scores)}

IoU is the intersection over the union of the predicted and the true pixels of a class, Dice twice the intersection \
over both areas, of all images together; pixels without a label count for nothing. A boundary is right within \
{100 * TOLERANCE:g} % of the image's diagonal. In brackets: intervals from resampling the images. The model was chosen \
on the validation images; the test images chose nothing.{weakest(evidence.scores)}

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
by `kinglet.runtime` as `preprocessing.json` says. The answer is a mask as high and wide as the image: of every pixel \
the number of its class in `labels.json`. The network's logits are enlarged bilinearly to the image's own pixels, and \
the largest is taken. `golden.npz` holds masks that the model has to give: at most \
{100 * evidence.golden_tolerance:g} % of an image's pixels may be of another class.

## Data

{len(card.classes)} classes{images(evidence.counts)}. Names and order: `labels.json`.

## Limits

- It knows its classes only, and gives every pixel one of them.
- Structures of less than a pixel of the input, {card.input_size} x {card.input_size}, cannot be told apart.
- The scores hold for images like those of the test split; other cameras, light or framing were not tested.
- Latency was measured on the machine named above and is another on any other.
"""


def score_table(scores: dict[str, Any]) -> str:
    """Return the scores of both parts as a table in Markdown."""
    rows = ["| | validation | test |", "|---|---|---|"]
    rows.append("| images | " + " | ".join(f"{scores[part]['n']:,}" for part in PARTS) + " |")
    for title, name in SCORES:
        cells = [percent(scores[part][name]) if scores[part][name] else "none" for part in PARTS]
        rows.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def weakest(scores: dict[str, Any]) -> str:
    """Return the weakest classes on the test images in words."""
    known = [
        (of_class["iou"]["value"], label)
        for label, of_class in scores["test"]["per_class"].items()
        if of_class["iou"] is not None
    ]
    named = ", ".join(f"{label} {100 * value:.1f} %" for value, label in sorted(known)[:WEAKEST])
    return f" Weakest classes on the test images (IoU): {named}." if named else ""


def decoding(latency: dict[str, Any]) -> str:
    """Return the words on what turning the network's answer into a mask costs, where that was measured."""
    if "decode" not in latency:
        return ""
    decode = latency["decode"]
    return (
        f" Beside the network, {decode['p50_ms']:.2g} ms turn its answer into a mask (median of {decode['images']} "
        "validation images)."
    )
