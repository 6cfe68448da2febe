"""Step `compare`: hold every model against the teacher, image by image: is it worse, and for whom?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from kinglet.atomic import atomic_path, read_json, write_json, write_text
from kinglet.errors import KingletError
from kinglet.evidence.mcnemar import disagreement, mcnemar_p
from kinglet.evidence.non_inferiority import verdict
from kinglet.evidence.score_intervals import Resampling, ScoreIntervals, difference_intervals
from kinglet.evidence.slices import (
    NEGATIVE_FLIP,
    POSITIVE_FLIP,
    Slice,
    SliceChange,
    slice_changes,
    slices_of,
)
from tasks.artifacts import COMPARE, EVALUATE
from tasks.detection_compare import compare_detectors
from tasks.image_slices import slice_columns, slices_csv
from tasks.image_tables import read_parquet
from tasks.parameters import Parameters
from tasks.segmentation_compare import compare_segmenters
from tasks.stage import run_stage

SLICE_COLUMNS = (
    "column",
    "value",
    "images",
    "teacher_accuracy",
    "accuracy",
    "change",
    "change_low",
    "change_high",
    "negative_flips",
    "positive_flips",
    "p",
    "p_corrected",
    "is_established",
)
FLIPS = pa.schema(
    [
        ("model", pa.string()),
        ("flip", pa.string()),
        ("index", pa.int64()),
        ("path", pa.string()),
        ("label", pa.int64()),
        ("teacher_predicted", pa.int64()),
        ("teacher_confidence", pa.float32()),
        ("predicted", pa.int64()),
        ("confidence", pa.float32()),
    ]
)


@dataclass(frozen=True)
class TestAnswers:
    """What every model answered to the test images.

    index: rows of the packed files, paths, labels: of shape (n_images,). probabilities: {model: float32 (n_images,
    n_classes)}.
    """

    index: NDArray[np.int64]
    paths: list[str]
    labels: NDArray[np.int64]
    probabilities: dict[str, NDArray[np.float32]]


def run(parameters: Parameters) -> None:
    """Write comparisons.json, differences.json, slices.csv and flips.parquet."""
    COMPARING[parameters.network](parameters)


def compare_classifiers(parameters: Parameters) -> None:
    """Write how every classifier's answers differ from the teacher's."""
    evaluation = read_json(EVALUATE / "scores.json")
    teacher, classes = evaluation["teacher"], evaluation["classes"]
    answers = read_answers()
    slices, too_small = slices_of(
        {"class": np.array(classes)[answers.labels], **slice_columns(answers.index)},
        parameters.compare.min_slice_images,
    )
    settings = parameters.evaluate
    differences = difference_intervals(
        answers.labels,
        answers.probabilities,
        teacher,
        top_k=min(settings.top_k, len(classes)),
        n_bins=settings.calibration_bins,
        resampling=Resampling(settings.interval, settings.stratified, settings.confidence, seed=parameters.seed),
    )
    changes = {name: changes_of(name, teacher, answers, slices, parameters) for name in differences}
    comparisons = {
        "teacher": teacher,
        "test_images": len(answers.labels),
        "margin": parameters.select.max_accuracy_drop,
        "confidence": settings.confidence,
        "power": parameters.plan.power,
        "correction": parameters.compare.correction,
        "slices": len(slices),
        "slices_too_small": too_small,
        "models": {
            name: comparison(name, teacher, answers, found, changes[name], parameters)
            for name, found in differences.items()
        },
    }
    rows = {name: [slice_row(item) for item in of_model] for name, of_model in changes.items()}
    write_text(COMPARE / "slices.csv", slices_csv(SLICE_COLUMNS, rows))
    write_flips(answers, teacher, list(differences))
    write_json(COMPARE / "differences.json", {name: json_of(found, classes) for name, found in differences.items()})
    write_json(COMPARE / "comparisons.json", comparisons)


def read_answers() -> TestAnswers:
    """Return the predictions on test images; raises KingletError if the models saw different ones."""
    path = EVALUATE / "predictions.parquet"
    table = read_parquet(path, ["model", "index", "path", "label", "probabilities"], "test")
    models = table["model"].to_numpy()
    probabilities, common = {}, None
    for name in dict.fromkeys(models.tolist()):
        rows = table.take(np.flatnonzero(models == name))
        index = rows["index"].to_numpy().astype(np.int64)
        if common is not None and not np.array_equal(index, common["index"].to_numpy()):
            raise KingletError(f"{path}: {name} was scored on other images than the other models.", "Run `dvc repro`.")
        common = rows
        flat = rows["probabilities"].combine_chunks().flatten().to_numpy()
        probabilities[name] = flat.reshape(len(rows), -1)
    if common is None:
        raise KingletError(f"{path} holds no test image.", "Run `dvc repro evaluate`.")
    return TestAnswers(
        common["index"].to_numpy().astype(np.int64),
        common["path"].to_pylist(),
        common["label"].to_numpy().astype(np.int64),
        probabilities,
    )


def right(name: str, answers: TestAnswers) -> NDArray[np.bool_]:
    """Return which test images a model has right, bool (n_images,)."""
    return np.asarray(answers.probabilities[name].argmax(axis=1) == answers.labels)


def changes_of(
    name: str, teacher: str, answers: TestAnswers, slices: list[Slice], parameters: Parameters
) -> list[SliceChange]:
    """Return what became of every slice under a model, worst first."""
    return slice_changes(
        right(name, answers),
        right(teacher, answers),
        slices,
        correction=parameters.compare.correction,
        confidence=parameters.evaluate.confidence,
    )


def comparison(
    name: str,
    teacher: str,
    answers: TestAnswers,
    differences: ScoreIntervals,
    changes: list[SliceChange],
    parameters: Parameters,
) -> dict[str, Any]:
    """Return what is known about a model beside the teacher, JSON-ready."""
    own, of_teacher = right(name, answers), right(teacher, answers)
    counts = disagreement(own, of_teacher)
    judged = verdict(
        own,
        of_teacher,
        parameters.select.max_accuracy_drop,
        same_model=np.array_equal(answers.probabilities[name], answers.probabilities[teacher]),
        confidence=parameters.evaluate.confidence,
        power=parameters.plan.power,
    )
    hurt = [item for item in changes if item.is_established and item.change.value < 0]
    return {
        "accuracy": round(float(own.mean()), 6),
        "difference": differences.overall["accuracy"].to_dict(),
        "difference_f1_macro": differences.overall["f1_macro"].to_dict(),
        **judged.to_dict(),
        "mcnemar_p": float(f"{mcnemar_p(counts.only_first, counts.only_second):.4g}"),
        "disagreement": round(counts.share, 6),
        "negative_flips": counts.only_second,
        "negative_flip_rate": round(counts.only_second / counts.n, 6),
        "positive_flips": counts.only_first,
        "positive_flip_rate": round(counts.only_first / counts.n, 6),
        "slices_hurt": len(hurt),
        "worst_slice": slice_row(changes[0]) if changes else None,
    }


def slice_row(item: SliceChange) -> dict[str, Any]:
    """Return one slice as a row: numbers rounded, p-values to 4 digits."""
    return {
        "column": item.column,
        "value": item.value,
        "images": item.n,
        "teacher_accuracy": round(item.reference_accuracy, 6),
        "accuracy": round(item.accuracy, 6),
        "change": round(item.change.value, 6),
        "change_low": round(item.change.low, 6),
        "change_high": round(item.change.high, 6),
        "negative_flips": item.negative_flips,
        "positive_flips": item.positive_flips,
        "p": float(f"{item.p:.4g}"),
        "p_corrected": float(f"{item.p_corrected:.4g}"),
        "is_established": item.is_established,
    }


def json_of(found: ScoreIntervals, classes: list[str]) -> dict[str, Any]:
    """Return all differences of a model by score, and by class and score."""
    return {
        **{score: interval.to_dict() for score, interval in found.overall.items()},
        "per_class": {
            label: {score: intervals[index].to_dict() for score, intervals in found.by_class.items()}
            for index, label in enumerate(classes)
        },
    }


def write_flips(answers: TestAnswers, teacher: str, models: list[str]) -> None:
    """Write a row for every model and image of which only it or only the teacher is right."""
    of_teacher, right_of_teacher = answers.probabilities[teacher], right(teacher, answers)
    parts = [FLIPS.empty_table()]
    for name in models:
        own, rows = answers.probabilities[name], np.flatnonzero(right(name, answers) != right_of_teacher)
        columns = {
            "model": [name] * len(rows),
            "flip": [NEGATIVE_FLIP if right_of_teacher[row] else POSITIVE_FLIP for row in rows],
            "index": answers.index[rows],
            "path": [answers.paths[row] for row in rows],
            "label": answers.labels[rows],
            "teacher_predicted": of_teacher[rows].argmax(axis=1),
            "teacher_confidence": of_teacher[rows].max(axis=1),
            "predicted": own[rows].argmax(axis=1),
            "confidence": own[rows].max(axis=1),
        }
        parts.append(pa.table(columns, schema=FLIPS))
    with atomic_path(COMPARE / "flips.parquet") as temporary:
        pa.parquet.write_table(pa.concat_tables(parts), temporary, compression="zstd")


COMPARING = {
    "classification": compare_classifiers,
    "detection": compare_detectors,
    "segmentation": compare_segmenters,
    "video": compare_classifiers,
}

if __name__ == "__main__":
    run_stage(run)
