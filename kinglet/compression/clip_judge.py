"""How the int8 files of clip classifiers are judged: as classifiers are, by what the recurrent part makes of a clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.compression.classification_judge import LabelledRows, Logits
from kinglet.compression.saturation import Emulator
from kinglet.runtime.engines.onnxruntime import engine_of
from kinglet.runtime.preprocessing import InputTensor, Preprocessing, model_input
from kinglet.runtime.processors import available_processors
from kinglet.runtime.recurrence import Recurrence
from kinglet.runtime.sessions import FEATURES_NAME, open_session

Features = NDArray[np.float32]
Result = TypeVar("Result")


@dataclass(frozen=True)
class OfClips:
    """The answers to clips of a frame part and this recurrent part; an `Answering`."""

    recurrence: Recurrence

    def logits(self, model: onnx.ModelProto, rows: LabelledRows, preprocessing: Preprocessing) -> Logits:
        """See `Answering`. model: the frame part."""
        return logits_of_clips(features_of_clips(model, rows, preprocessing), self.recurrence)

    def logits_without_vnni(
        self, model: onnx.ModelProto, rows: LabelledRows, preprocessing: Preprocessing
    ) -> tuple[Logits, Counter[str]]:
        """See `Answering`. The recurrent part has 7-bit weights at the most, whose sums do not saturate."""
        emulator = Emulator(model)
        if not emulator.layers_at_risk:
            return self.logits(model, rows, preprocessing), Counter()
        found = over_clips(emulator.run_all, rows, preprocessing)
        saturated: Counter[str] = Counter()
        for _, counts in found:
            saturated.update(counts)
        return logits_of_clips(np.stack([outputs[0] for outputs, _ in found]), self.recurrence), saturated


def features_of_clips(model: onnx.ModelProto, rows: LabelledRows, preprocessing: Preprocessing) -> Features:
    """Return what a frame part makes of clips, float32 (n_clips, frames, feature_size), frame by frame as served."""
    engine = engine_of(open_session(model.SerializeToString(), threads=1, outputs=(FEATURES_NAME,)))

    def compute(frames: InputTensor) -> Features:
        return np.concatenate([engine.run(frames[place : place + 1]) for place in range(len(frames))])

    return np.stack(over_clips(compute, rows, preprocessing))


def over_clips(
    compute: Callable[[InputTensor], Result], rows: LabelledRows, preprocessing: Preprocessing
) -> list[Result]:
    """Return what is computed of the frames of each clip. compute: takes them as the frame part does."""
    with ThreadPoolExecutor(available_processors()) as pool:
        return list(
            pool.map(lambda row: compute(model_input(np.asarray(rows.packed[row]), preprocessing)), rows.rows.tolist())
        )


def logits_of_clips(features: Features, recurrence: Recurrence) -> Logits:
    """Return the logits after the last frame of each clip, float32 (n_clips, n_classes).

    features: float32 (n_clips, frames, feature_size), at least one frame. One clip at a time: in 8 bits the recurrent
    part scales what it takes by the largest of a batch.
    """
    found = np.empty((len(features), recurrence.n_classes), np.float32)
    for number, of_clip in enumerate(features):
        found[number] = recurrence.along(frame[None] for frame in of_clip)[-1]
    return found
