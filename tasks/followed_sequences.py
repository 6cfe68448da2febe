"""What the detector of a bundle finds in the frames of a sequence, followed from frame to frame."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kinglet.errors import KingletError
from kinglet.runtime.detection import Detections
from kinglet.runtime.detection_predictor import DetectionPredictor
from kinglet.runtime.videos import Frame, Video
from kinglet.tracking.association import Follower, Settings, follow
from kinglet.tracking.frames import FrameFolder
from kinglet.tracking.sequences import Sequence
from kinglet.tracking.tracks import NO_CLASS, Tracks


@dataclass(frozen=True)
class Step:
    """One frame and the tracks in it. seconds: that reading, detecting and following took, by these names."""

    frame: Frame
    tracks: Tracks
    seconds: dict[str, float]


class SequenceTracker:
    """A bundle's detector and the association behind it, for the frames of one sequence after the other."""

    def __init__(self, bundle: Path, settings: Settings, threads: int | None = None) -> None:
        """Open the bundle. threads: as for `DetectionPredictor`.

        Raises KingletError if it is no detector's, or damaged.
        """
        self._predictor, self.settings = DetectionPredictor(bundle, threads), settings
        # An association may go on with objects that are not sure enough to be shown.
        lowest = min(settings.lowest_score, settings.sure_score)
        self._predictor.thresholds = replace(self._predictor.thresholds, score=lowest)
        # An association loads its package when it is made first: now, and not while a frame's time is measured.
        follow(
            [(1, Detections(np.array([[0, 0, 1, 1]], np.float32), np.zeros(1, np.int64), np.ones(1, np.float32)))],
            settings,
            1,
        )

    @property
    def classes(self) -> list[str]:
        """The names of the classes, by label."""
        return self._predictor.classes

    def steps(self, frames: Video | FrameFolder) -> Iterator[Step]:
        """Yield the frames one by one with the tracks in them."""
        follower = Follower(self.settings, frames.rate)
        for number in range(1, len(frames) + 1):
            started = time.perf_counter()
            frame = frames.frame(number)
            read = time.perf_counter()
            (found,) = self._predictor.predict([frame.image])
            detected = time.perf_counter()
            tracks = follower.update(number, found, None if frames.is_even else frame.seconds)
            followed = time.perf_counter()
            yield Step(
                frame, tracks, {"read": read - started, "detect": detected - read, "follow": followed - detected}
            )


def truth_for(sequence: Sequence, truth: Tracks, classes: list[str]) -> Tracks:
    """Return a true track's boxes with the labels that a model has for their classes.

    A class that the model does not know gets a number that none of its boxes has: its objects are missed. Where the
    truth names no classes, none have any: see `comparable`.
    """
    if (truth.labels == NO_CLASS).all():
        return truth
    known = {name: label for label, name in enumerate(classes)}
    names = {label: sequence.class_name(label) for label in np.unique(truth.labels).tolist()}
    others = [name for name in names.values() if name not in known]
    numbers = known | {name: len(classes) + place for place, name in enumerate(others)}
    labels = np.array([numbers[names[label]] for label in truth.labels.tolist()], np.int64)
    return replace(truth, labels=labels)


def comparable(truth: Tracks, tracks: Tracks) -> Tracks:
    """Return tracks as they are held against the truth: without classes where it has none."""
    return tracks.without_classes() if (truth.labels == NO_CLASS).all() else tracks


def refuse_unknown_classes(sequences: list[tuple[Sequence, Tracks]], classes: list[str], bundle: Path) -> None:
    """Raise KingletError if the true tracks are of classes, and the model knows none of them."""
    names = {
        sequence.class_name(label)
        for sequence, truth in sequences
        for label in np.unique(truth.labels[truth.labels != NO_CLASS]).tolist()
    }
    if names and not names & set(classes):
        raise KingletError(
            f"{bundle} finds {', '.join(classes)}, and the true tracks are of {', '.join(sorted(names))}.",
            "Name the classes alike: labels.txt beside gt.txt says what its numbers mean, a line each.",
        )
