"""Step `evaluate`: score every model on the held-out images, exactly as it will be served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from kinglet.atomic import atomic_path, read_json, write_json
from kinglet.evidence.bootstrap import accuracy_interval, f1_macro_interval, paired_interval
from kinglet.evidence.metrics import (
    class_scores,
    confusion_matrix,
    expected_calibration_error,
    log_loss,
    top_k_accuracy,
)
from kinglet.evidence.score_intervals import Resampling, ScoreIntervals, score_intervals
from kinglet.runtime.processors import available_processors
from kinglet.runtime.sessions import gather_logits
from tasks.artifacts import EVALUATE, SPLIT, ModelCard, model_folders, packed_images, read_card, say_why_empty
from tasks.clip_evaluate import ClipScoring
from tasks.detection_evaluate import score_detectors
from tasks.domain_scores import Score, places_by_domain, scores_by_domain
from tasks.evidence_settings import Evaluate
from tasks.held_out import Done, HeldOut, on_held_out, read_held_out
from tasks.opened_models import open_model
from tasks.parameters import Parameters
from tasks.progress import Report, progress
from tasks.scored_models import (
    HELD_OUT,
    facts_of,
    refuse_other_classes,
    teacher_name,
)
from tasks.segmentation_answers import MASKS
from tasks.segmentation_evaluate import score_segmenters
from tasks.stage import run_stage
from tasks.without_vnni import without_vnni

# A model's probabilities on every split: {split: float32 (n, n_classes)}; see `predict` for what it is given.
Predict = Callable[
    [Path, ModelCard, list[str], dict[str, HeldOut], Report, float, float], dict[str, NDArray[np.float32]]
]
Beside = Callable[[Path, ModelCard, HeldOut], dict[str, Any]]


def run(parameters: Parameters) -> None:
    """Write scores.json, intervals.json, predictions.parquet, confusion.csv, and masks or a note without any."""
    SCORING[parameters.network](parameters)
    if parameters.network != "segmentation":
        say_why_empty(MASKS, f"Segmenters leave their masks here, and problem is {parameters.problem}.")


def score_classifiers(parameters: Parameters) -> None:
    """Write what the classifiers answer to held-out images, and what that is worth."""

    def beside(folder: Path, card: ModelCard, test: HeldOut) -> dict[str, Any]:
        return without_vnni(folder, card, packed_images(card.input_size), test, parameters)

    score_answers(parameters, predict, beside)


def score_clip_networks(parameters: Parameters) -> None:
    """Write the same of networks over clips, with what they know before a clip ends."""
    scoring = ClipScoring(parameters)
    score_answers(parameters, scoring.predict, scoring.beside)


def score_answers(parameters: Parameters, predict: Predict, beside: Beside) -> None:
    """Write what models that sort into classes answer to what is held out, and what that is worth.

    predict: a model's probabilities. beside: what scores.json says of it besides, from its folder and test images.
    """
    classes = read_json(SPLIT / "classes.json")
    held_out = {split: read_held_out(split) for split in HELD_OUT}
    folders = model_folders()
    teacher = teacher_name()
    images_in_all = len(folders) * sum(len(images.rows) for images in held_out.values())
    probabilities: dict[str, dict[str, NDArray[np.float32]]] = {}
    cards: dict[str, ModelCard] = {}
    further: dict[str, dict[str, Any]] = {}
    with progress("evaluate") as report:
        for position, folder in enumerate(folders):
            card = read_card(folder)
            cards[card.name] = card
            done = position * images_in_all / len(folders)
            probabilities[card.name] = predict(folder, card, classes, held_out, report, done, images_in_all)
            further[card.name] = beside(folder, card, held_out["test"])

    scores = {
        name: {
            **facts_of(cards[name]),
            **further[name],
            **scores_of(answers, probabilities[teacher], held_out, classes, parameters.evaluate, parameters.seed),
        }
        for name, answers in probabilities.items()
    }
    of_test = {name: of_split["test"] for name, of_split in probabilities.items()}
    test = held_out["test"]

    def score_of(name: str) -> Score:
        predicted = of_test[name].argmax(axis=1)
        return lambda places: accuracy_on(test.labels[places], predicted[places], parameters.evaluate, parameters.seed)

    scores = scores_by_domain(places_by_domain(test.rows), scores, "accuracy", score_of)
    intervals = score_intervals(
        held_out["test"].labels,
        of_test,
        top_k=min(parameters.evaluate.top_k, len(classes)),
        n_bins=parameters.evaluate.calibration_bins,
        resampling=resampling_of(parameters.evaluate, parameters.seed),
    )
    write_json(EVALUATE / "intervals.json", interval_document(intervals, scores, classes, parameters.evaluate))
    write_predictions(EVALUATE / "predictions.parquet", held_out, probabilities)
    write_confusion(EVALUATE / "confusion.csv", classes, held_out["test"].labels, probabilities[teacher]["test"])
    write_json(EVALUATE / "scores.json", {"classes": classes, "teacher": teacher, "models": scores})


def predict(
    folder: Path,
    card: ModelCard,
    classes: list[str],
    held_out: dict[str, HeldOut],
    report: Report,
    done: float,
    total: float,
) -> dict[str, NDArray[np.float32]]:
    """Return the model's probabilities on every held-out split, {split: float32 (n, n_classes)}."""
    file, model = folder / card.file_names[0], open_model(folder, card, threads=1)
    refuse_other_classes(file, model.classes, classes)
    packed = np.load(packed_images(model.preprocessing.input_size), mmap_mode="r")

    def logits_of(rows: NDArray[np.int64], told: Done) -> NDArray[np.float32]:
        run, workers = model.engine.run, available_processors()
        return gather_logits(run, len(classes), packed, rows, model.preprocessing, workers=workers, report=told)

    return on_held_out(held_out, logits_of, file, report, done, total)


def resampling_of(settings: Evaluate, seed: int) -> Resampling:
    """Return how the settings want intervals to be made."""
    return Resampling(settings.interval, settings.stratified, settings.confidence, seed=seed)


def interval_document(
    intervals: dict[str, ScoreIntervals], scores: dict[str, Any], classes: list[str], settings: Evaluate
) -> dict[str, Any]:
    """Return every score of every model on test images with its interval, JSON-ready.

    scores: what scores.json says of each model. Accuracy and macro F1 stand there too, with the same intervals.
    """
    return {
        "interval": settings.interval,
        "stratified": settings.stratified,
        "confidence": settings.confidence,
        "models": {
            name: {
                **{score: found.to_dict() for score, found in of_model.overall.items()},
                **{score: scores[name]["test"][score] for score in ("accuracy", "f1_macro")},
                "per_class": {
                    label: {score: found[index].to_dict() for score, found in of_model.by_class.items()}
                    for index, label in enumerate(classes)
                },
            }
            for name, of_model in intervals.items()
        },
    }


def scores_of(
    probabilities: dict[str, NDArray[np.float32]],
    of_reference: dict[str, NDArray[np.float32]],
    held_out: dict[str, HeldOut],
    classes: list[str],
    settings: Evaluate,
    seed: int,
) -> dict[str, Any]:
    """Return a model's scores on every split, and its paired differences to the reference, JSON-ready.

    probabilities, of_reference: {split: float32 (n, n_classes)} of the model and of the one it is compared with.
    """
    return {
        **{
            split: score(images.labels, probabilities[split], classes, settings, seed)
            for split, images in held_out.items()
        },
        "difference_to_teacher": {
            split: paired_interval(
                probabilities[split].argmax(axis=1) == images.labels,
                of_reference[split].argmax(axis=1) == images.labels,
                strata=images.labels if settings.stratified else None,
                method=settings.interval,
                confidence=settings.confidence,
                seed=seed,
            ).to_dict()
            for split, images in held_out.items()
        },
    }


def accuracy_on(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], settings: Evaluate, seed: int
) -> dict[str, float]:
    """Return the accuracy on some images with its interval, JSON-ready. predicted: int64 (n,), as the labels."""
    return accuracy_interval(
        predicted == labels,
        strata=labels if settings.stratified else None,
        method=settings.interval,
        confidence=settings.confidence,
        seed=seed,
    ).to_dict()


def score(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    classes: list[str],
    settings: Evaluate,
    seed: int,
) -> dict[str, Any]:
    """Return all scores of one model on one split, JSON-ready."""
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, len(classes))
    by_class = class_scores(confusion)
    named = {"precision": by_class.precision, "recall": by_class.recall, "f1": by_class.f1}
    top_k = min(settings.top_k, len(classes))
    drawing: dict[str, Any] = {"method": settings.interval, "confidence": settings.confidence, "seed": seed}
    plain = {
        **{f"{name}_macro": by_class.macro(values) for name, values in named.items()},
        **{f"{name}_weighted": by_class.weighted(values) for name, values in named.items()},
        f"top_{top_k}_accuracy": top_k_accuracy(labels, probabilities, top_k),
        "log_loss": log_loss(labels, probabilities),
        "ece": expected_calibration_error(labels, probabilities, settings.calibration_bins),
    }
    return {
        **{name: round(value, 6) for name, value in plain.items() if name != "f1_macro"},
        "n": len(labels),
        "accuracy": accuracy_on(labels, predicted, settings, seed),
        "f1_macro": f1_macro_interval(confusion, stratified=settings.stratified, **drawing).to_dict(),
        "per_class": {
            label: {
                **{name: round(float(values[index]), 6) for name, values in named.items()},
                "support": int(by_class.support[index]),
            }
            for index, label in enumerate(classes)
        },
        "confusion": confusion.tolist(),
    }


def write_predictions(
    path: Path, held_out: dict[str, HeldOut], probabilities: dict[str, dict[str, NDArray[np.float32]]]
) -> None:
    """Write one row per model, split and image."""
    parts = []
    for name, of_split in probabilities.items():
        for split, images in held_out.items():
            values = of_split[split]
            parts.append(
                pa.table(
                    {
                        "model": pa.array([name] * len(values)),
                        "split": pa.array([split] * len(values)),
                        "index": images.rows,
                        "path": images.paths,
                        "label": images.labels,
                        "predicted": values.argmax(axis=1),
                        "confidence": values.max(axis=1),
                        "probabilities": pa.FixedSizeListArray.from_arrays(values.ravel(), values.shape[1]),
                    }
                )
            )
    with atomic_path(path) as temporary:
        pa.parquet.write_table(pa.concat_tables(parts), temporary, compression="zstd")


def write_confusion(
    path: Path, classes: list[str], labels: NDArray[np.int64], probabilities: NDArray[np.float32]
) -> None:
    """Write the teacher's test answers for `dvc plots`; the report shows the chosen model's beside them."""
    names = pa.array(classes)
    table = pa.table(
        {"actual": names.take(pa.array(labels)), "predicted": names.take(pa.array(probabilities.argmax(1)))}
    )
    with atomic_path(path) as temporary:
        pa.csv.write_csv(table, temporary)


SCORING = {
    "classification": score_classifiers,
    "detection": score_detectors,
    "segmentation": score_segmenters,
    "video": score_clip_networks,
}

if __name__ == "__main__":
    run_stage(run)
