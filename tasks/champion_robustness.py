"""The champion on the corrupted images that the challenger was scored on, through its own preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow.parquet import ParquetFile

from kinglet.atomic import read_json
from kinglet.errors import KingletError
from kinglet.evidence.corruptions.kinds import KINDS
from kinglet.evidence.corruptions.severities import SEVERITIES
from kinglet.evidence.gate import CHAMPION_ROBUSTNESS, NOT_JUDGED, Check, robustness_check
from kinglet.evidence.robustness import robustness_differences
from kinglet.runtime.clips import ClipPredictor
from kinglet.runtime.engines import Engine
from tasks.artifacts import ROBUSTNESS, SOURCE_FACTS, base_size, packed_clips, packed_images
from tasks.bundle_answers import Part, SortingPredictor
from tasks.clip_answers import as_model
from tasks.corrupted_answers import Task, answers_of
from tasks.opened_models import OpenedModel
from tasks.parameters import Parameters
from tasks.progress import progress


@dataclass(frozen=True)
class Corrupted:
    """How a model answered the images of `robustness`: shares, each of shape (n_images,).

    rows: of the packed files. clean: 1 where the image itself was answered right. corrupted: of its 75 versions.
    """

    rows: NDArray[np.int64]
    clean: NDArray[np.float64]
    corrupted: NDArray[np.float64]


def champion_robustness_check(
    challenger: str, champion: SortingPredictor, part: Part, classes: Sequence[str], parameters: Parameters
) -> Check:
    """Return whether the challenger keeps the champion's accuracy on corrupted images, paired image by image.

    challenger: the name of its model. champion: knows the same classes. part: the test images.
    Not judged where there is no limit, where the challenger was not scored on corrupted images, and where the packed
    images are not what the champion would see.
    """
    policy = parameters.gate
    if policy.max_champion_robustness_drop is None:
        return Check(CHAMPION_ROBUSTNESS, NOT_JUDGED, "No limit is set for robustness lost to the champion.")
    kept = read_answers(challenger)
    if kept is None:
        return Check(CHAMPION_ROBUSTNESS, NOT_JUDGED, "Corrupted images were not scored for this model.")
    problem = other_pictures(champion, parameters.data.fit)
    if problem:
        return Check(CHAMPION_ROBUSTNESS, NOT_JUDGED, problem)
    of_champion = score(champion, kept.rows, part, classes, parameters.seed)
    difference, beyond_clean = robustness_differences(
        kept.corrupted - of_champion.corrupted,
        kept.clean - of_champion.clean,
        confidence=parameters.evaluate.confidence,
        seed=parameters.seed,
    )
    return robustness_check(
        difference,
        beyond_clean,
        policy.max_champion_robustness_drop,
        accept_unestablished=policy.not_established == "accept",
        reference="champion",
    )


def read_answers(model: str) -> Corrupted | None:
    """Return what `robustness` found for a model; None if it did not score this one."""
    with ParquetFile(ROBUSTNESS / "answers.parquet") as opened:
        table = opened.read()
    table = table.filter(pc.equal(table["model"], model))
    if not len(table):
        return None
    corrupted = table["corrupted"].to_numpy() / (len(KINDS) * len(SEVERITIES))
    return Corrupted(table["index"].to_numpy(), table["clean"].to_numpy().astype(np.float64), corrupted)


def other_pictures(champion: SortingPredictor, fit: str) -> str:
    """Return, in one sentence, why the packed images are not what the champion would see; empty if they are."""
    preprocessing, edge = champion.preprocessing, base_size()
    if preprocessing.fit != fit:
        return f"The champion makes images square by {preprocessing.fit}, the corrupted ones are by {fit}."
    wanted = min(preprocessing.input_size, read_json(SOURCE_FACTS)["short_side"])
    if edge < wanted:
        return f"The champion takes {preprocessing.input_size} pixels, the corrupted images have only {edge}."
    return ""


def score(
    champion: SortingPredictor, rows: NDArray[np.int64], part: Part, classes: Sequence[str], seed: int
) -> Corrupted:
    """Return how the champion answers these images, clean and corrupted.

    Raises KingletError if one of the rows is not among the images of `part`.
    """
    number = {label: index for index, label in enumerate(champion.classes)}
    own_numbers = np.array([number[label] for label in classes], np.int64)
    label_of = dict(zip(part.rows.tolist(), own_numbers[part.labels].tolist(), strict=True))
    if not label_of.keys() >= set(rows.tolist()):
        raise KingletError("Other images were corrupted than are test images now.", "Run `dvc repro`.")
    labels = np.array([label_of[row] for row in rows.tolist()], np.int64)
    packed, opened = corrupted_for(champion)
    with progress("champion's robustness") as report:
        answers = answers_of(Task(packed, rows, labels, {"champion": opened}, tuple(KINDS), seed), report)["champion"]
    return Corrupted(rows, answers.clean_correct.astype(np.float64), answers.by_image)


def corrupted_for(champion: SortingPredictor) -> tuple[NDArray[np.uint8], OpenedModel]:
    """Return the packed images or clips that are corrupted, and the champion as what answers them."""
    preprocessing, size = champion.preprocessing, champion.preprocessing.input_size
    if isinstance(champion, ClipPredictor):
        packed = np.load(packed_clips(base_size()), mmap_mode="r")
        return packed, as_model(champion.network, packed.shape[1], preprocessing, champion.classes)
    engine = Engine(champion.logits, (preprocessing.channels, size, size))
    return np.load(packed_images(base_size()), mmap_mode="r"), OpenedModel(engine, preprocessing, champion.classes)
