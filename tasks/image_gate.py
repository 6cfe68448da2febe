"""One decision about a model whose score images are resampled for: challenger against champion, or the teacher.

Without a champion it is held against the teacher. The challenger's answers are those that `evaluate` kept of the chosen
model, whose file the bundle holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from kinglet.atomic import read_json
from kinglet.errors import KingletError
from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.gate import Check, incomparable, is_accepted
from kinglet.evidence.image_bootstrap import DrawnScores
from kinglet.evidence.image_gate import Beside, Headline, class_drop_check, class_floor_check, headline_check
from kinglet.runtime import bundles
from kinglet.runtime.device import this_device
from kinglet.runtime.engines import ONNXRUNTIME
from kinglet.runtime.preprocessing import Preprocessing
from tasks.artifacts import BENCHMARK, BUNDLE, EVALUATE, SELECT
from tasks.benchmark import Subject, latencies_of
from tasks.bundle_answers import packed_for
from tasks.champion import bundle_digest, holds_bundle, other_classes
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
from tasks.image_scores import defined, read_intervals
from tasks.opened_models import digest_of
from tasks.parameters import Parameters

CHAMPION, TEACHER_WORD = "champion", "teacher"


class Opened(Protocol):
    """A model ready to compute, as far as the gate looks at it."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes its input."""
        ...

    @property
    def classes(self) -> list[str]:
        """The names of its classes."""
        ...


Model = TypeVar("Model", bound=Opened)
Answers = TypeVar("Answers")


@dataclass(frozen=True)
class Judged(Generic[Model, Answers]):
    """What the gate needs to know of a problem to judge its models.

    classes, n_images: of the test images. open: opens the ONNX file of a bundle on one thread. read: what `evaluate`
    kept of a model. answer: what a champion answers to the test images, its classes numbered as this run's. draw: the
    scores of answers. is_same: whether two models answer the very same. golden: what the bundle's golden answers say.
    """

    headline: Headline
    classes: list[str]
    n_images: int
    open: Callable[[Path], Model]
    read: Callable[[str], Answers]
    answer: Callable[[Model], Answers]
    draw: Callable[[Answers], DrawnScores]
    is_same: Callable[[Answers, Answers], bool]
    golden: Callable[[], Check]


@dataclass(frozen=True)
class Reference(Generic[Answers]):
    """What the challenger is held against.

    word: "champion" or "teacher". digest: of the champion's bundle, or of the teacher's model. answers: to the test
    images, None where it cannot be compared; problem then says why, in one sentence. latency_ms: of challenger and
    reference, from one measurement.
    """

    word: str
    digest: str
    answers: Answers | None
    problem: str
    latency_ms: tuple[Interval, Interval]


def judge_model(judged: Judged[Model, Answers], parameters: Parameters) -> dict[str, Any]:
    """Return the content of verdict.json.

    Raises KingletError if the bundle is damaged, or holds another model than was chosen.
    """
    name = read_json(SELECT / "choice.json")["chosen"]
    latency = read_json(BENCHMARK / "latency.json")["models"][name]
    require_chosen(name, latency)
    answers = judged.read(name)
    reference = read_reference(judged, latency, parameters)
    own = judged.draw(answers)
    theirs = None if reference.answers is None else judged.draw(reference.answers)
    checks = [
        *comparison_checks(judged, own, theirs, answers, reference, parameters),
        robustness_of(name, parameters),
        *budget_checks(latency, reference.latency_ms, reference.word, parameters),
        judged.golden(),
        data_check_of(parameters),
        *sealed_checks(reference.digest, parameters),
    ]
    verdict = {
        "verdict": "accepted" if is_accepted(checks) else "refused",
        "challenger": {"model": name, "bundle": bundle_digest(BUNDLE)},
        "champion": {"folder": parameters.gate.champion, "bundle": champion_digest(parameters)},
        "reference": reference.word,
        "images": judged.n_images,
        judged.headline.name: {
            "challenger": score_of(own, judged.headline, parameters),
            "reference": None if theirs is None else score_of(theirs, judged.headline, parameters),
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
    judged: Judged[Model, Answers], latency: dict[str, Any], parameters: Parameters
) -> Reference[Answers]:
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
        pair = latency_of(latency), latency_of(of_teacher)
        return Reference(TEACHER_WORD, of_teacher["sha256"], judged.read(teacher), "", pair)
    bundles.verify(folder)
    champion = judged.open(folder / bundles.MODEL)
    problem = other_classes(champion.classes, judged.classes) or other_pictures(champion, parameters.data.fit)
    answers = None if problem else judged.answer(champion)
    pair = side_by_side(judged.open(BUNDLE / bundles.MODEL), champion, folder, parameters)
    return Reference(CHAMPION, bundle_digest(folder), answers, problem, pair)


def other_pictures(champion: Opened, fit: str) -> str:
    """Return, in one sentence, why the packed images are not what the champion would see; empty if they are."""
    preprocessing = champion.preprocessing
    if packed_for(preprocessing, fit) is not None:
        return ""
    return (
        f"The champion cannot be compared: it takes images of {preprocessing.input_size} pixels by "
        f"{preprocessing.fit}, which this run has not packed. "
        "Name an empty folder in gate.champion to hold the challenger against its teacher."
    )


def side_by_side(
    challenger: Opened, champion: Opened, folder: Path, parameters: Parameters
) -> tuple[Interval, Interval]:
    """Return the latencies of challenger and champion in ms, from one measurement in turns, if need be a kept one.

    folder: of the champion.
    """
    subjects = {
        name: Subject(ONNXRUNTIME, [place / bundles.MODEL], input_shape(model))
        for name, place, model in (("challenger", BUNDLE, challenger), (CHAMPION, folder, champion))
    }
    measured = latencies_of(subjects, parameters.benchmark, this_device())["models"]
    return latency_of(measured["challenger"]), latency_of(measured[CHAMPION])


def input_shape(model: Opened) -> tuple[int, int, int]:
    """Return channels, height and width of what a model takes."""
    size = model.preprocessing.input_size
    return model.preprocessing.channels, size, size


def score_of(drawn: DrawnScores, headline: Headline, parameters: Parameters) -> dict[str, float]:
    """Return the score that models are judged by, with its interval."""
    return defined(read_intervals(drawn, parameters.evaluate).overall[headline.name])


def comparison_checks(
    judged: Judged[Model, Answers],
    own: DrawnScores,
    theirs: DrawnScores | None,
    answers: Answers,
    reference: Reference[Answers],
    parameters: Parameters,
) -> list[Check]:
    """Return what the images say about the challenger: against the reference, and class by class."""
    policy, confidence = parameters.gate, parameters.evaluate.confidence
    headline, classes = judged.headline, judged.classes
    floor = class_floor_check(headline, own, classes, policy.min_class_accuracy)
    if theirs is None or reference.answers is None:
        return [incomparable(headline.word, reference.problem), floor]
    is_same = judged.is_same(answers, reference.answers)
    beside = Beside(own.minus(theirs, is_same=is_same), reference.word, judged.n_images)
    margin, accept = policy_of(parameters)["max_accuracy_drop"], policy.not_established == "accept"
    return [
        headline_check(headline, beside, margin, accept_unestablished=accept, confidence=confidence),
        floor,
        class_drop_check(headline, beside, classes, policy.max_class_drop, confidence=confidence),
    ]
