"""A float file and its int8 file on the same images and the same machine: scores, latencies, and the choice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.compression.saturation import unknown_operators
from kinglet.evidence.budget import Budget, Candidate, Choice, choose, front_of, nearest_misses
from kinglet.runtime.device import this_device
from kinglet.runtime.engines import ONNXRUNTIME
from kinglet.runtime.processors import available_processors
from kinglet.runtime.sessions import logits_of, open_session, read_metadata, softmax
from tasks.artifacts import ModelCard
from tasks.benchmark import Subject, latencies_of
from tasks.evaluate import scores_of
from tasks.evidence_settings import Benchmark, Evaluate
from tasks.held_out import HeldOut
from tasks.optimize_options import Options, described
from tasks.progress import progress
from tasks.scored_models import HELD_OUT
from tasks.scored_models import facts_of as facts_of_card
from tasks.select import candidate
from tasks.without_vnni import accuracies_without_vnni

# The scores are shaped as those of a run, where the reference is the teacher.
RENAMED = {"difference_to_teacher": "difference_to_float"}


@dataclass(frozen=True)
class Comparison:
    """What was measured of the models, the float one first.

    cards: the facts about each. scores, latency: as in scores.json and latency.json. answers: {model: columns} of
    the predictions on test images. choice: None if no model fits the budget.
    """

    cards: dict[str, ModelCard]
    scores: dict[str, Any]
    latency: dict[str, Any]
    answers: dict[str, dict[str, Any]]
    choice: Choice | None
    candidates: list[Candidate]
    budget: Budget

    @property
    def reference(self) -> str:
        """The float model's name."""
        return next(iter(self.cards))

    @property
    def chosen(self) -> str | None:
        """The chosen model's name, None if none fits."""
        return None if self.choice is None else self.choice.chosen.name

    @property
    def models(self) -> list[dict[str, Any]]:
        """The row of every model in a table, JSON-ready, with all its scores and numbers."""
        measured = self.latency["models"]
        return [
            {
                "name": name,
                "validation_accuracy": self.scores[name]["validation"]["accuracy"]["value"],
                "test_accuracy": self.scores[name]["test"]["accuracy"]["value"],
                "times_faster": measured[self.reference]["p50_ms"] / measured[name]["p50_ms"],
                "chosen": name == self.chosen,
                "scores": {RENAMED.get(key, key): value for key, value in self.scores[name].items()},
                **measured[name],
            }
            for name in self.cards
        ]

    @property
    def front(self) -> list[str]:
        """The names of the models that no other is better than in speed, size and accuracy at once."""
        return front_of(self.candidates)

    @property
    def reason(self) -> str:
        """Why the chosen model, or how near the others came, in one sentence."""
        if self.choice is not None:
            return self.choice.reason
        near = "; ".join(nearest_misses(self.candidates, self.budget))
        return f"No model fits the budget ({described(self.budget)}). Nearest: {near}."


def without_vnni_of(model: Path) -> Path:
    """Return where the variant of a model for x86 processors without VNNI lies, if there is one."""
    return model.with_name(f"{model.stem}-without-vnni.onnx")


def compare_models(
    files: dict[str, Path], packed: NDArray[np.uint8], parts: dict[str, HeldOut], classes: list[str], options: Options
) -> Comparison:
    """Return what is measured of a float model and its int8 model. files: of both, in this order."""
    cards = cards_of(files, classes)
    probabilities = predict(files, packed, parts)
    reference, held_out = probabilities[next(iter(files))], {part: parts[part] for part in HELD_OUT}
    scores = {
        name: {
            **facts_of_card(cards[name]),
            **scores_of(answers, reference, held_out, classes, Evaluate(), options.seed),
        }
        for name, answers in probabilities.items()
    }
    for name, file in files.items():
        if cards[name].precision == "int8" and not unknown_operators(onnx.load(file)):
            emulated = accuracies_without_vnni(
                file, without_vnni_of(file), packed, parts["test"], Evaluate().confidence, options.seed
            )
            scores[name]["without_vnni"] = emulated
    subjects = {name: Subject(ONNXRUNTIME, [file], cards[name].input_shape) for name, file in files.items()}
    settings = Benchmark(threads=options.threads, seconds_per_model=options.seconds)
    latency = latencies_of(subjects, settings, this_device())
    candidates = [candidate(name, scores[name], latency["models"][name]) for name in files]
    answers = {name: columns(parts["test"], of_parts["test"]) for name, of_parts in probabilities.items()}
    return Comparison(cards, scores, latency, answers, choose(candidates, options.budget), candidates, options.budget)


def cards_of(files: dict[str, Path], classes: list[str]) -> dict[str, ModelCard]:
    """Return the facts about both models."""
    reference = next(iter(files))
    n_parameters = sum(int(np.prod(item.dims)) for item in onnx.load(files[reference]).graph.initializer if item.dims)
    cards = {}
    for name, file in files.items():
        preprocessing, _ = read_metadata(open_session(file, threads=1))
        given = name == reference
        cards[name] = ModelCard(
            name=name,
            step="given" if given else "quantize",
            parent="" if given else reference,
            precision="fp32" if given else "int8",
            problem="classification",
            architecture={},
            input_size=preprocessing.input_size,
            channels=preprocessing.channels,
            fit=preprocessing.fit,
            mean=list(preprocessing.mean),
            std=list(preprocessing.std),
            takes_pixels=preprocessing.takes_pixels,
            classes=classes,
            parameters=n_parameters,
            notes={},
        )
    return cards


def predict(
    files: dict[str, Path], packed: NDArray[np.uint8], parts: dict[str, HeldOut]
) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Return {model: {part: float32 (n, n_classes)}}, the probabilities on the parts that calibrated nothing."""
    total = len(files) * sum(len(parts[part].rows) for part in HELD_OUT)
    done = 0
    probabilities: dict[str, dict[str, NDArray[np.float32]]] = {}
    with progress("evaluate") as report:
        for name, file in files.items():
            session = open_session(file, threads=1)
            preprocessing, _ = read_metadata(session)
            probabilities[name] = {}
            for part in HELD_OUT:
                rows = parts[part].rows
                logits = logits_of(session, packed, rows, preprocessing, workers=available_processors())
                probabilities[name][part] = softmax(logits)
                done += len(rows)
                report(done, total, name)
    return probabilities


def columns(part: HeldOut, probabilities: NDArray[np.float32]) -> dict[str, Any]:
    """Return the predictions on a part as the report reads them."""
    return {
        "index": part.rows,
        "path": np.array(part.paths, object),
        "label": part.labels,
        "predicted": probabilities.argmax(axis=1),
        "confidence": probabilities.max(axis=1),
    }
