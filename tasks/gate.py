"""Step `gate`: one decision, challenger against champion, by the policy in params.yaml.

A refused model is a result, not an error: the step ends well, so that DVC keeps the verdict and the report is made.
`kinglet gate` and `kinglet run --gate` turn it into an exit code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from kinglet.atomic import read_json, write_json, write_text
from kinglet.errors import KingletError
from kinglet.evidence.bootstrap import Interval, accuracy_interval
from kinglet.evidence.gate import (
    CHAMPION_ROBUSTNESS,
    PASSED,
    Answers,
    Check,
    accuracy_check,
    class_drop_check,
    class_floor_check,
    incomparable,
    is_accepted,
)
from kinglet.runtime.device import this_device
from tasks.artifacts import (
    BENCHMARK,
    BUNDLE,
    EVALUATE,
    GATE,
    SELECT,
    SOURCE_FACTS,
    SPLIT,
    VERDICT,
)
from tasks.benchmark import latencies_of
from tasks.bundle_answers import Part, SortingPredictor, answers_of, open_sorting, other_clips, read_part
from tasks.champion import bundle_digest, open_champion, opened_model, other_classes, subject_of
from tasks.champion_robustness import champion_robustness_check
from tasks.detection_gate import judge_detector
from tasks.gate_policy import (
    budget_checks,
    champion_digest,
    data_check_of,
    golden_check_of,
    latency_of,
    policy_of,
    robustness_of,
    sealed_checks,
)
from tasks.gate_words import markdown, paragraph
from tasks.image_tables import read_parquet
from tasks.opened_models import digest_of
from tasks.parameters import Parameters
from tasks.segmentation_gate import judge_segmenter
from tasks.stage import run_stage

CHAMPION, TEACHER_WORD = "champion", "teacher"


@dataclass(frozen=True)
class Challenger:
    """The bundle that asks to be let through. name: of its model; latency: its entry in latency.json."""

    bundle: SortingPredictor
    name: str
    latency: dict[str, Any]


@dataclass(frozen=True)
class Reference:
    """What the challenger is held against.

    word: "champion" or "teacher". champion: its bundle, None where there is none. digest: of the champion's bundle, or
    of the teacher's model. predicted: its answers to the test images, None where it knows other classes; problem then
    says so. latency_ms: of the challenger and of the reference, from one measurement.
    """

    word: str
    champion: SortingPredictor | None
    digest: str
    predicted: NDArray[np.int64] | None
    problem: str
    same_model: bool
    latency_ms: tuple[Interval, Interval]


def run(parameters: Parameters) -> None:
    """Write verdict.json and verdict.md."""
    verdict = JUDGES[parameters.network](parameters)
    write_json(VERDICT, verdict)
    write_text(GATE / "verdict.md", markdown(verdict))
    print(verdict["paragraph"], file=sys.stderr)


def judge(parameters: Parameters) -> dict[str, Any]:
    """Return the content of verdict.json."""
    classes, part, challenger = read_json(SPLIT / "classes.json"), read_part("test"), read_challenger(parameters)
    predicted = answers_of(challenger.bundle, part, classes, parameters.data)
    reference = read_reference(challenger, part, classes, parameters, kept_answers)
    checks = [
        *comparison_checks(predicted, part, reference, classes, parameters),
        robustness_of(challenger.name, parameters),
        *champion_robustness(challenger.name, reference, part, classes, parameters),
        *budget_checks(challenger.latency, reference.latency_ms, reference.word, parameters),
        golden_check_of(challenger.bundle),
        data_check_of(parameters),
        *sealed_checks(reference.digest, parameters),
    ]
    found = {
        "verdict": "accepted" if is_accepted(checks) else "refused",
        "challenger": {"model": challenger.name, "bundle": bundle_digest(BUNDLE)},
        "champion": {"folder": parameters.gate.champion, "bundle": champion_digest(parameters)},
        "reference": reference.word,
        "images": len(part.rows),
        "accuracy": {
            "challenger": accuracy_of(predicted, part, parameters),
            "reference": None if reference.predicted is None else accuracy_of(reference.predicted, part, parameters),
        },
        "checks": [check.to_dict() for check in checks],
        "policy": policy_of(parameters),
        **shown_beside(parameters),
    }
    return {**found, "paragraph": paragraph(found)}


def read_challenger(parameters: Parameters) -> Challenger:
    """Return the bundle of this run with its latency.

    Raises KingletError if it is damaged, or holds another model than was chosen.
    """
    name = read_json(SELECT / "choice.json")["chosen"]
    latency = read_json(BENCHMARK / "latency.json")["models"][name]
    bundle = open_sorting(BUNDLE, parameters.network)
    if digest_of(subject_of(BUNDLE, bundle).files) != latency["sha256"]:
        raise KingletError(f"{BUNDLE} does not hold {name}, the chosen model.", "Run `dvc repro`.")
    return Challenger(bundle, name, latency)


def read_reference(
    challenger: Challenger,
    part: Part,
    classes: Sequence[str],
    parameters: Parameters,
    answers_of_teacher: Callable[[Part], NDArray[np.int64]],
) -> Reference:
    """Return the champion, scored on these images of this run; the teacher if there is no champion.

    answers_of_teacher: what the teacher answers to them.
    """
    folder = Path(parameters.gate.champion)
    champion = open_champion(folder, parameters.network)
    if champion is None:
        return teacher_reference(challenger, answers_of_teacher(part))
    problem = other_classes(champion.classes, classes) or other_clips(champion, parameters.data.fit)
    return Reference(
        word=CHAMPION,
        champion=champion,
        digest=bundle_digest(folder),
        predicted=None if problem else answers_of(champion, part, classes, parameters.data),
        problem=problem,
        same_model=opened_model(folder, champion) == opened_model(BUNDLE, challenger.bundle),
        latency_ms=side_by_side(challenger, champion, folder, parameters),
    )


def kept_answers(part: Part) -> NDArray[np.int64]:
    """Return the teacher's answers to the test images, which `evaluate` has kept.

    Raises KingletError if those were other images.
    """
    teacher = read_json(EVALUATE / "scores.json")["teacher"]
    table = read_parquet(EVALUATE / "predictions.parquet", ["model", "index", "predicted"], "test")
    of_teacher = table.filter(pc.equal(table["model"], teacher))
    if not np.array_equal(of_teacher["index"].to_numpy(), part.rows):
        raise KingletError("The teacher was scored on other test images than the split lists.", "Run `dvc repro`.")
    return np.asarray(of_teacher["predicted"].to_numpy(), np.int64)


def teacher_reference(challenger: Challenger, predicted: NDArray[np.int64]) -> Reference:
    """Return the teacher with these answers."""
    teacher = read_json(EVALUATE / "scores.json")["teacher"]
    latency = read_json(BENCHMARK / "latency.json")["models"][teacher]
    return Reference(
        word=TEACHER_WORD,
        champion=None,
        digest=latency["sha256"],
        predicted=predicted,
        problem="",
        same_model=challenger.name == teacher,
        latency_ms=(latency_of(challenger.latency), latency_of(latency)),
    )


def side_by_side(
    challenger: Challenger, champion: SortingPredictor, folder: Path, parameters: Parameters
) -> tuple[Interval, Interval]:
    """Return the latencies of challenger and champion in ms, from one measurement in turns, if need be a kept one."""
    subjects = {"challenger": subject_of(BUNDLE, challenger.bundle), CHAMPION: subject_of(folder, champion)}
    found = latencies_of(subjects, parameters.benchmark, this_device())["models"]
    return latency_of(found["challenger"]), latency_of(found[CHAMPION])


def accuracy_of(predicted: NDArray[np.int64], part: Part, parameters: Parameters) -> dict[str, float]:
    """Return the share of right answers with its interval."""
    right = predicted == part.labels
    return accuracy_interval(right, confidence=parameters.evaluate.confidence, seed=parameters.seed).to_dict()


def comparison_checks(
    predicted: NDArray[np.int64],
    part: Part,
    reference: Reference,
    classes: Sequence[str],
    parameters: Parameters,
) -> list[Check]:
    """Return what the images say about the challenger: against the reference, and class by class."""
    policy, confidence = parameters.gate, parameters.evaluate.confidence
    of_reference = predicted if reference.predicted is None else reference.predicted
    answers = Answers(part.labels, predicted, of_reference, reference.word, reference.same_model, parameters.several)
    floor = class_floor_check(answers, classes, policy.min_class_accuracy)
    if reference.predicted is None:
        return [incomparable("accuracy", reference.problem), floor]
    margin = policy_of(parameters)["max_accuracy_drop"]
    accept = policy.not_established == "accept"
    return [
        accuracy_check(answers, margin, accept_unestablished=accept, confidence=confidence),
        floor,
        class_drop_check(answers, classes, policy.max_class_drop, confidence=confidence),
    ]


def champion_robustness(
    name: str, reference: Reference, part: Part, classes: Sequence[str], parameters: Parameters
) -> list[Check]:
    """Return what the corrupted images say beside the champion; nothing where no champion can be compared."""
    if reference.champion is None or reference.problem:
        return []
    if reference.same_model:
        return [Check(CHAMPION_ROBUSTNESS, PASSED, "The challenger is the champion itself.")]
    return [champion_robustness_check(name, reference.champion, part, classes, parameters)]


def shown_beside(parameters: Parameters) -> dict[str, Any]:
    """Return what the verdict's words call the images, where they are none; nothing for images."""
    if parameters.several == "images":
        return {}
    generated = "generated " if "generated" in read_json(SOURCE_FACTS) else ""
    return {"shown": f"{generated}test {parameters.several}"}


JUDGES = {
    "classification": judge,
    "detection": judge_detector,
    "segmentation": judge_segmenter,
    "video": judge,
}

if __name__ == "__main__":
    run_stage(run)
