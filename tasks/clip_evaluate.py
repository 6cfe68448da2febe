"""What is otherwise in the step `evaluate` for networks over clips: frame by frame, and what they know early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.bootstrap import accuracy_interval
from tasks.artifacts import ModelCard, packed_clips
from tasks.clip_answers import open_clip_network
from tasks.held_out import HeldOut, on_held_out
from tasks.parameters import Parameters
from tasks.progress import Report
from tasks.scored_models import refuse_other_classes
from tasks.without_vnni import EMULATED_IMAGES, without_vnni

# Of a clip's frames, those after which an early answer is scored.
SHARES = (0.25, 0.5, 0.75, 1.0)


class ClipScoring:
    """The answers of networks over clips to what is held out, by model."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._after_frames: dict[str, NDArray[np.float32]] = {}

    def predict(
        self,
        folder: Path,
        card: ModelCard,
        classes: list[str],
        held_out: dict[str, HeldOut],
        report: Report,
        done: float,
        total: float,
    ) -> dict[str, NDArray[np.float32]]:
        """Return the probabilities after the last frame on every held-out split, {split: float32 (n, n_classes)}."""
        file, opened = folder / card.file_names[0], open_clip_network(folder)
        refuse_other_classes(file, opened.classes, classes)
        packed = np.load(packed_clips(opened.preprocessing.input_size), mmap_mode="r")
        after_frames = on_held_out(
            held_out, lambda rows, told: opened.logits(packed, rows, report=told), file, report, done, total
        )
        self._after_frames[card.name] = after_frames["test"]
        return {split: of_split[:, -1] for split, of_split in after_frames.items()}

    def beside(self, folder: Path, card: ModelCard, test: HeldOut) -> dict[str, Any]:
        """Return what scores.json says of a model besides: on processors without VNNI, and of early answers."""
        after_frames, settings = self._after_frames[card.name], self._parameters.evaluate
        some = test.first(max(1, EMULATED_IMAGES // after_frames.shape[1]))
        emulated = without_vnni(
            folder, card, packed_clips(card.input_size), some, self._parameters, clip_answers_without_vnni
        )
        return {
            **emulated,
            "early": early_scores(
                after_frames,
                test.labels,
                method=settings.interval,
                strata=test.labels if settings.stratified else None,
                confidence=settings.confidence,
                seed=self._parameters.seed,
            ),
        }


def early_scores(after_frames: NDArray[np.float32], labels: NDArray[np.int64], **drawing: Any) -> list[dict[str, Any]]:
    """Return how often the answer is right after a part of a clip's frames, JSON-ready, for each of SHARES.

    after_frames: probabilities, float32 (n, n_frames, n_classes). drawing: as for `accuracy_interval`.
    """
    n_frames, found = after_frames.shape[1], []
    for share in SHARES:
        seen = max(1, round(share * n_frames))
        right = after_frames[:, seen - 1].argmax(axis=1) == labels
        found.append({"share": share, "frames": seen, "accuracy": accuracy_interval(right, **drawing).to_dict()})
    return found


def clip_answers_without_vnni(file: Path, packed: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the predicted classes of these rows of packed clips on x86 without VNNI; file: of the frame part."""
    return open_clip_network(file.parent, file.name, saturate=True).predicted(packed, rows)
