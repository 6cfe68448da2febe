"""One decision about a detector: challenger against champion, or against the teacher while there is no champion.

The challenger's answers are those that `evaluate` kept of the chosen model, whose file the bundle holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kinglet.atomic import read_json
from kinglet.errors import KingletError
from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.detection_gate import MAP_50, Beside, class_drop_check, class_floor_check, map_check
from kinglet.evidence.detection_intervals import DrawnScores, detection_intervals
from kinglet.evidence.detection_matches import Objects
from kinglet.evidence.gate import NOT_JUDGED, Check, incomparable, is_accepted
from kinglet.runtime import bundles
from kinglet.runtime.detection import DETECTOR_OUTPUTS
from kinglet.runtime.device import this_device
from kinglet.runtime.engines import ONNXRUNTIME
from kinglet.runtime.sessions import open_session
from tasks.artifacts import BENCHMARK, BUNDLE, EVALUATE, SELECT, SPLIT
from tasks.benchmark import Subject, latencies_of
from tasks.bundle_answers import packed_for
from tasks.champion import bundle_digest, holds_bundle, other_classes
from tasks.detection_answers import BoxedImages, OpenedDetector, detector_of, find_objects, read_boxed, read_found
from tasks.detection_evaluate import draw, same_objects
from tasks.gate_policy import (
    budget_checks,
    champion_digest,
    data_check_of,
    latency_of,
    policy_of,
    robustness_of,
    sealed_checks,
)
from tasks.gate_words import paragraph
from tasks.opened_models import digest_of
from tasks.parameters import Parameters

CHAMPION, TEACHER_WORD = "champion", "teacher"


@dataclass(frozen=True)
class Reference:
    """What the challenger is held against.

    word: "champion" or "teacher". digest: of the champion's bundle, or of the teacher's model. found: what it finds in
    the test images, None where it cannot be compared; problem then says why, in one sentence. latency_ms: of
    challenger and reference, from one measurement.
    """

    word: str
    digest: str
    found: Objects | None
    problem: str
    latency_ms: tuple[Interval, Interval]


def judge_detector(parameters: Parameters) -> dict[str, Any]:
    """Return the content of verdict.json.

    Raises KingletError if the bundle is damaged, or holds another model than was chosen.
    """
    classes, name = read_json(SPLIT / "classes.json"), read_json(SELECT / "choice.json")["chosen"]
    latency = read_json(BENCHMARK / "latency.json")["models"][name]
    require_chosen(name, latency)
    images = read_boxed("test", classes)
    found = read_found([name], images, "test")[name]
    reference = read_reference(latency, images, classes, parameters)
    own = drawn_of(images, found, classes, parameters)
    theirs = None if reference.found is None else drawn_of(images, reference.found, classes, parameters)
    checks = [
        *comparison_checks(own, theirs, found, images, reference, classes, parameters),
        robustness_of(name, parameters),
        *budget_checks(latency, reference.latency_ms, reference.word, parameters),
        Check("golden answers", NOT_JUDGED, "The golden answers of a detector's bundle are not looked at here."),
        data_check_of(parameters),
        *sealed_checks(reference.digest, parameters),
    ]
    verdict = {
        "verdict": "accepted" if is_accepted(checks) else "refused",
        "challenger": {"model": name, "bundle": bundle_digest(BUNDLE)},
        "champion": {"folder": parameters.gate.champion, "bundle": champion_digest(parameters)},
        "reference": reference.word,
        "images": len(images),
        MAP_50: {
            "challenger": score_of(own, parameters),
            "reference": None if theirs is None else score_of(theirs, parameters),
        },
        "checks": [check.to_dict() for check in checks],
        "policy": policy_of(parameters),
    }
    return {**verdict, "paragraph": paragraph(verdict)}


def require_chosen(name: str, latency: dict[str, Any]) -> None:
    """Raise KingletError unless the bundle is whole and holds the chosen model."""
    bundles.verify(BUNDLE)
    if digest_of([BUNDLE / bundles.MODEL]) != latency["sha256"]:
        raise KingletError(f"{BUNDLE} does not hold {name}, the chosen model.", "Run `dvc repro`.")


def read_reference(
    latency: dict[str, Any], images: BoxedImages, classes: list[str], parameters: Parameters
) -> Reference:
    """Return the champion, scored on the test images of this run; the teacher if there is no champion.

    latency: the challenger's entry in latency.json.
    """
    folder = Path(parameters.gate.champion)
    if not folder.is_dir():
        raise KingletError(
            f"gate.champion: the folder {folder} does not exist.",
            "Name a folder with the bundle in production, or an empty folder if there is none yet.",
        )
    if not holds_bundle(folder):
        teacher = read_json(EVALUATE / "scores.json")["teacher"]
        of_teacher = read_json(BENCHMARK / "latency.json")["models"][teacher]
        found = read_found([teacher], images, "test")[teacher]
        return Reference(TEACHER_WORD, of_teacher["sha256"], found, "", (latency_of(latency), latency_of(of_teacher)))
    champion = open_champion(folder)
    problem = other_classes(champion.classes, classes) or other_pictures(champion, parameters.data.fit)
    found_there = None if problem else found_by_champion(champion, images, classes)
    return Reference(CHAMPION, bundle_digest(folder), found_there, problem, side_by_side(champion, folder, parameters))


def open_champion(folder: Path) -> OpenedDetector:
    """Return the champion's detector on one thread; raises KingletError if its bundle is damaged or no detector's."""
    bundles.verify(folder)
    return detector_of(open_session(folder / bundles.MODEL, threads=1, outputs=DETECTOR_OUTPUTS))


def other_pictures(champion: OpenedDetector, fit: str) -> str:
    """Return, in one sentence, why the packed images are not what the champion would see; empty if they are."""
    if packed_for(champion.preprocessing, fit) is not None:
        return ""
    preprocessing = champion.preprocessing
    return (
        f"The champion cannot be compared: it takes images of {preprocessing.input_size} pixels by "
        f"{preprocessing.fit}, which this run has not packed. "
        "Name an empty folder in gate.champion to hold the challenger against its teacher."
    )


def found_by_champion(champion: OpenedDetector, images: BoxedImages, classes: list[str]) -> Objects:
    """Return what the champion finds, its classes numbered as this run's."""
    found = find_objects(champion, images, "the champion")
    number = np.array([classes.index(label) for label in champion.classes], np.int64)
    return Objects(found.images, number[found.labels], found.xyxy, found.scores)


def side_by_side(champion: OpenedDetector, folder: Path, parameters: Parameters) -> tuple[Interval, Interval]:
    """Return the latencies of challenger and champion in ms, from one measurement in turns, if need be a kept one."""
    challenger = detector_of(open_session(BUNDLE / bundles.MODEL, threads=1, outputs=DETECTOR_OUTPUTS))
    subjects = {
        name: Subject(ONNXRUNTIME, [place / bundles.MODEL], input_shape(detector))
        for name, place, detector in (("challenger", BUNDLE, challenger), (CHAMPION, folder, champion))
    }
    measured = latencies_of(subjects, parameters.benchmark, this_device())["models"]
    return latency_of(measured["challenger"]), latency_of(measured[CHAMPION])


def input_shape(detector: OpenedDetector) -> tuple[int, int, int]:
    """Return channels, height and width of what a detector takes."""
    size = detector.preprocessing.input_size
    return detector.preprocessing.channels, size, size


def drawn_of(images: BoxedImages, found: Objects, classes: list[str], parameters: Parameters) -> DrawnScores:
    """Return a detector's scores over the test images and over resamples of them."""
    return draw(images, found, len(classes), parameters.evaluate, parameters.seed)


def score_of(drawn: DrawnScores, parameters: Parameters) -> dict[str, float]:
    """Return map_50 with its interval."""
    settings = parameters.evaluate
    found = detection_intervals(drawn, method=settings.interval, confidence=settings.confidence).overall[MAP_50]
    assert found is not None, "an image with a box defines it"
    return found.to_dict()


def comparison_checks(
    own: DrawnScores,
    theirs: DrawnScores | None,
    found: Objects,
    images: BoxedImages,
    reference: Reference,
    classes: list[str],
    parameters: Parameters,
) -> list[Check]:
    """Return what the images say about the challenger: against the reference, and class by class."""
    policy, confidence = parameters.gate, parameters.evaluate.confidence
    floor = class_floor_check(own, classes, policy.min_class_accuracy)
    if theirs is None or reference.found is None:
        return [incomparable("mAP50", reference.problem), floor]
    is_same = same_objects(found, reference.found)
    beside = Beside(own.minus(theirs, is_same=is_same), reference.word, len(images))
    margin, accept = policy_of(parameters)["max_accuracy_drop"], policy.not_established == "accept"
    return [
        map_check(beside, margin, accept_unestablished=accept, confidence=confidence),
        floor,
        class_drop_check(beside, classes, policy.max_class_drop, confidence=confidence),
    ]
