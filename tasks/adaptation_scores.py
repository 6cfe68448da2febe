"""What models are worth before and after the step `adapt`, where they answer with a class: images and clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.errors import KingletError
from kinglet.evidence.bootstrap import accuracy_interval, paired_interval
from kinglet.evidence.recovery import recovered_share
from kinglet.runtime.processors import available_processors
from kinglet.runtime.sessions import gather_logits
from tasks.artifacts import ModelCard
from tasks.clip_answers import open_clip_network
from tasks.opened_models import open_model
from tasks.parameters import Parameters
from tasks.target_domain import Domains


def logits_of_images(folder: Path, card: ModelCard, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the logits of the model in a folder, float32 (n, n_classes)."""
    model, rows = open_model(folder, card, threads=1), np.arange(len(images))
    workers = available_processors()
    return gather_logits(model.engine.run, len(model.classes), images, rows, model.preprocessing, workers=workers)


def logits_of_clips(folder: Path, _: ModelCard, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the logits of the network in a folder after each clip's last frame, float32 (n, n_classes)."""
    return open_clip_network(folder).logits(clips, np.arange(len(clips)))[:, -1]


LOGITS: dict[str, Callable[[Path, ModelCard, NDArray[np.uint8]], NDArray[np.float32]]] = {
    "classification": logits_of_images,
    "video": logits_of_clips,
}


@dataclass(frozen=True)
class Answers:
    """Whether a model is right, bool (n,): on the target's held-out images, and on the source's test images."""

    target: NDArray[np.bool_]
    source: NDArray[np.bool_]


class Judge:
    """Scores a model as it would be served, on the held-out images of the target and the test images of the source."""

    def __init__(self, domains: Domains, input_size: int, parameters: Parameters) -> None:
        self.domains = domains
        self.target = domains.target_images(domains.held_out, input_size)
        self.source = domains.source_images(domains.source, input_size)
        self.settings, self.seed = parameters.evaluate, parameters.seed

    def answers(self, folder: Path, card: ModelCard) -> Answers:
        """Return the answers of the model's files; raises KingletError if they are no numbers."""
        return Answers(
            correct_answers(folder, card, self.target, self.domains.held_out.labels),
            correct_answers(folder, card, self.source, self.domains.source.labels),
        )

    def scores_before(self, before: Answers) -> dict[str, Any]:
        """Return the scores of the model as it came; cost: of the change, where the target is made, paired."""
        cost = self._paired(before.source, before.target, "held_out") if self.domains.is_made else None
        return {**self._accuracies(before), "cost": cost}

    def scores(self, before: Answers, after: Answers) -> dict[str, Any]:
        """Return the scores of an adapted model, with its paired changes; recovered: share of the cost, if any."""
        recovered = None
        if self.domains.is_made:
            recovered = recovered_share(
                before.source, before.target, after.target, strata=self._strata("held_out"), **self._options()
            )
        return {
            **self._accuracies(after),
            "target_change": self._paired(after.target, before.target, "held_out"),
            "source_change": self._paired(after.source, before.source, "source"),
            "recovered": recovered.to_dict() if recovered else None,
        }

    def _accuracies(self, answers: Answers) -> dict[str, dict[str, float]]:
        options = {**self._options(), "method": self.settings.interval}
        of_target = accuracy_interval(answers.target, strata=self._strata("held_out"), **options)
        of_source = accuracy_interval(answers.source, strata=self._strata("source"), **options)
        return {"target_accuracy": of_target.to_dict(), "source_accuracy": of_source.to_dict()}

    def _paired(self, one: NDArray[np.bool_], other: NDArray[np.bool_], part: str) -> dict[str, float]:
        options = {**self._options(), "method": self.settings.interval}
        return paired_interval(one, other, strata=self._strata(part), **options).to_dict()

    def _strata(self, part: str) -> NDArray[np.int64] | None:
        labels: NDArray[np.int64] = getattr(self.domains, part).labels
        return labels if self.settings.stratified else None

    def _options(self) -> dict[str, Any]:
        return {"confidence": self.settings.confidence, "seed": self.seed}


def correct_answers(
    folder: Path, card: ModelCard, images: NDArray[np.uint8], labels: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return whether a model is right, bool (n,); raises KingletError if it gives no numbers."""
    logits = LOGITS[card.problem](folder, card, images)
    if not np.isfinite(logits).all():
        raise KingletError(f"{folder / card.file_names[0]} gives NaN or infinite logits in the step adapt.")
    return np.asarray(logits.argmax(axis=1) == labels, bool)
