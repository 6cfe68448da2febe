"""The bundle of a network over clips: its two parts, and golden clips with their answers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.atomic import read_json, write_bytes
from kinglet.compression.saturation import unknown_operators
from kinglet.runtime import bundles
from kinglet.runtime.sessions import FEATURES_NAME, open_session, read_metadata, softmax
from kinglet.runtime.sketches import Reference
from tasks.artifacts import BUNDLE, SOURCE_FACTS, ModelCard, packed_clips
from tasks.bundle_evidence import golden_rows, read_evidence
from tasks.clip_answers import open_clip_network
from tasks.detection_bundle import is_int8
from tasks.generated_data import GENERATED_SENTENCE
from tasks.model_card import CardWords, colour_of, model_card
from tasks.monitoring_reference import monitoring_reference
from tasks.sealed_bundle import seal_and_open

GOLDEN_CLIPS = 8
# The state carries a rounding on from frame to frame, where another processor rounds another way.
FLOAT_TOLERANCE, INT8_TOLERANCE = bundles.GOLDEN_TOLERANCE, bundles.INT8_TOLERANCE


def bundle_clip_network(chosen: Path, card: ModelCard, reason: str) -> None:
    """Write the bundle of the chosen network over clips. reason: why it was chosen, in a sentence."""
    rows, labels = golden_rows(GOLDEN_CLIPS)
    clips = np.asarray(np.load(packed_clips(card.input_size), mmap_mode="r")[rows])
    facts = read_json(SOURCE_FACTS)
    rate = float(facts["clips"]["frames_per_second"])
    words = words_of_clips(card, clips.shape[1], rate, facts.get("generated"))
    text = model_card(card, card.preprocessing, read_evidence(card.name, reason), words)
    pack_clip_network(BUNDLE, chosen.parent, clips, labels, rate, text, monitoring_reference(chosen, card))


def words_of_clips(card: ModelCard, frames: int, rate: float, generated: dict[str, Any] | None) -> CardWords:
    """Return the words of a card on clips of so many frames, `rate` of them a second.

    generated: what made the videos, None for videos that cameras took.
    """
    size = card.input_size
    text = (
        f"{frames} frames, {rate:.4g} a second, each a uint8 image, {colour_of(card.preprocessing)}, any size; brought "
        f"to {size} x {size} pixels ({card.preprocessing.fit}) and normalized by `kinglet.runtime` as "
        "`preprocessing.json` says. The answer to a clip is that after its last frame; a stream has one "
        "after every frame."
    )
    return CardWords("clip", "clips", "frame", text, generated_paragraph(generated), "speeds, light or framing")


def generated_paragraph(generated: dict[str, Any] | None) -> str:
    """Return what stands before scores on videos that a program made; nothing for others."""
    return f"{GENERATED_SENTENCE} Made by {generated['made_by']}.\n\n" if generated else ""


def pack_clip_network(
    bundle: Path,
    folder: Path,
    clips: NDArray[np.uint8],
    labels: NDArray[np.int64],
    rate: float,
    text: str,
    reference: Reference | None = None,
) -> None:
    """Write a bundle and open it once; its checksums come last, so a half-written one is never opened.

    folder: the model's, with model.onnx and recurrent.onnx, and for processors without VNNI a third file if need be.
    clips, labels: the golden ones, packed as the model takes them. rate: frames per second of a clip. text: the card.
    reference: what monitoring compares with.
    """
    # Nothing of an earlier bundle may stay: the checksums would seal it in.
    shutil.rmtree(bundle, ignore_errors=True)
    for name in (bundles.MODEL, bundles.RECURRENT, bundles.WITHOUT_VNNI):
        if (folder / name).is_file() or name != bundles.WITHOUT_VNNI:
            write_bytes(bundle / name, (folder / name).read_bytes())
    preprocessing, classes = read_metadata(open_session(bundle / bundles.MODEL, threads=1, outputs=(FEATURES_NAME,)))
    in_integers = is_int8(folder / bundles.MODEL)
    golden: dict[str, NDArray[Any]] = {
        bundles.GOLDEN_CLIPS: clips,
        "labels": labels,
        bundles.EXACT: answers(folder, bundles.MODEL, clips, saturate=False),
        bundles.TOLERANCE: np.array([INT8_TOLERANCE if in_integers else FLOAT_TOLERANCE]),
    }
    if in_integers and not unknown_operators(onnx.load(folder / bundles.MODEL)):
        served = bundles.WITHOUT_VNNI if (folder / bundles.WITHOUT_VNNI).is_file() else bundles.MODEL
        golden[bundles.SATURATED] = answers(folder, served, clips, saturate=True)
    further = {bundles.CLIP: {"frames": clips.shape[1], "frames_per_second": rate}}
    seal_and_open(
        bundle,
        preprocessing,
        classes,
        golden,
        text,
        problem=bundles.VIDEO,
        further=further,
        reference=reference,
    )


def answers(folder: Path, file: str, clips: NDArray[np.uint8], *, saturate: bool) -> NDArray[np.float32]:
    """Return the probabilities of packed clips, on x86 without VNNI if `saturate`, elsewhere if not."""
    opened = open_clip_network(folder, file, saturate=saturate)
    return softmax(opened.logits(clips, np.arange(len(clips)), workers=1)[:, -1])
