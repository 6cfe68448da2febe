"""What int8 means for clip classifiers: frames that calibrate, clips that judge, and the recurrent part beside."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.atomic import write_bytes
from kinglet.compression.classification_judge import ClassificationJudge, LabelledRows
from kinglet.compression.clip_judge import OfClips, features_of_clips
from kinglet.compression.guard import set_aside
from kinglet.compression.latency import Latency
from kinglet.compression.recurrent_quantization import Judgement, accuracy_of_step, quantize_step
from kinglet.data.batches import open_packed
from kinglet.runtime.bundles import RECURRENT
from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.recurrence import open_recurrence
from tasks.artifacts import ModelCard, packed_clips
from tasks.clip_benchmark import open_step
from tasks.compression_settings import Quantize
from tasks.models import read_manifest
from tasks.untrained_latency import measured

# Training clips that no calibration sees, at most. They judge whether a model is good enough; the first of them choose
# between variants.
CHOICE_CLIPS, FIRST_CLIPS = 500, 100


def judged_clip_classifiers(
    folder: Path, model: onnx.ModelProto, card: ModelCard, settings: Quantize, seed: int
) -> tuple[NDArray[np.uint8], ClassificationJudge]:
    """Give the clips of the training split their roles; return the frames that calibrate, packed, and the judge."""
    calibration, choice = parts_of(card, settings, seed)
    recurrence = open_recurrence(folder / RECURRENT, threads=1)
    judge = ClassificationJudge(model, choice, card.preprocessing, OfClips(recurrence), FIRST_CLIPS)
    return frames_of(calibration, settings.calibration_images, seed), judge


def parts_of(card: ModelCard, settings: Quantize, seed: int) -> tuple[LabelledRows, LabelledRows]:
    """Return the clips of the training split that calibrate, and those that judge."""
    manifest, packed = read_manifest(), open_packed(packed_clips(card.input_size))
    training = manifest[manifest["split"] == "train"]
    rows, labels = (training[name].to_numpy(np.int64, copy=True) for name in ("index", "label_index"))
    calibration, choice, _ = set_aside(len(rows), settings.calibration_images, CHOICE_CLIPS, seed)
    return (
        LabelledRows(packed, rows[calibration], labels[calibration]),
        LabelledRows(packed, rows[choice], labels[choice]),
    )


def frames_of(clips: LabelledRows, count: int, seed: int) -> NDArray[np.uint8]:
    """Return so many frames, uint8 (count, size, size, channels): of all clips in turn, from anywhere in them."""
    rows = clips.rows[np.arange(count) % len(clips.rows)]
    places = np.random.default_rng(seed).integers(0, clips.packed.shape[1], count)
    return np.stack([np.asarray(clips.packed[row, place]) for row, place in zip(rows, places, strict=True)])


def quantize_recurrence(
    folder: Path,
    output: Path,
    frame_part: onnx.ModelProto,
    preprocessing: Preprocessing,
    card: ModelCard,
    settings: Quantize,
    seed: int,
) -> dict[str, Any]:
    """Write the recurrent part of a model into `output`, in int8 if that is as good and as fast; return notes on it.

    folder: of the float model. frame_part, preprocessing: of the int8 model, whose features it takes.
    """
    model = onnx.load(folder / RECURRENT)
    quantized = quantize_step(model)
    _, choice = parts_of(card, settings, seed)
    features = features_of_clips(frame_part, choice, preprocessing)
    accuracy, float_accuracy = (accuracy_of_step(step, features, choice.labels) for step in (quantized, model))
    contents = [step.SerializeToString() for step in (quantized, model)]
    latency, float_latency = step_latencies(contents)
    judgement = Judgement(accuracy, float_accuracy, latency, float_latency)
    write_bytes(output / RECURRENT, contents[0] if judgement.is_kept else contents[1])
    return {"recurrent": {**judgement.to_dict(), "clips": len(choice.rows)}}


def step_latencies(contents: list[bytes]) -> list[Latency]:
    """Return the latency of one step of each of these files, in int8 and in float, on one thread, measured in turns."""
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    found = measured(dict(zip(digests, contents, strict=True)), 1, open_step)
    return [
        Latency.of_row(found[digest], precision) for digest, precision in zip(digests, ("int8", "fp32"), strict=True)
    ]
