"""From the objects of each frame to tracks: which box is the same object as one before it.

A new way is a class with the method `update` of `Association`, and a line in `ASSOCIATIONS`. Objects of one class are
followed by themselves: a box of another class is never the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime.detection import Detections
from kinglet.tracking.sort import Sort
from kinglet.tracking.tracks import Tracks, tracks_of

# Identities of a frame's tracks (n,), places of their boxes among those given (n,), and xyxy (n, 4) of the tracks.
Followed = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True)
class Settings:
    """How boxes become tracks.

    association: a key of `ASSOCIATIONS`. sure_score: from which a box may begin a track. lowest_score: from which a
    box may go on with one, where the association knows such. min_frames: in which a track is found before it is
    shown. max_lost: frames without being found after which it ends. min_iou: overlap from which a box may belong to
    a track. None: what the association's authors take.
    """

    association: str = "bytetrack"
    sure_score: float = 0.5
    lowest_score: float = 0.1
    min_frames: int | None = None
    max_lost: int | None = None
    min_iou: float | None = None


class Association(Protocol):
    """Follows the objects of one class of one sequence."""

    def update(self, xyxy: NDArray[np.float64], scores: NDArray[np.float64], seconds: float | None) -> Followed:
        """Return the tracks that are shown in the next frame, of boxes (m, 4) with their scores (m,).

        seconds: when the frame was taken, None where all frames are as far apart.
        """
        ...


class SortAssociation:
    """SORT, which looks at sure boxes alone."""

    def __init__(self, settings: Settings, rate: float) -> None:
        self._sure_score, self._rate = settings.sure_score, rate
        self._sort = Sort(**given(settings, min_frames="min_frames", max_lost="max_lost", min_iou="min_iou"))
        self._before: float | None = None

    def update(self, xyxy: NDArray[np.float64], scores: NDArray[np.float64], seconds: float | None) -> Followed:
        """Return the tracks of the next frame."""
        step = 1.0 if seconds is None or self._before is None else (seconds - self._before) * self._rate
        self._before = seconds
        sure = np.flatnonzero(scores >= self._sure_score)
        identities, places, boxes = self._sort.update(xyxy[sure], step)
        return identities, sure[places], boxes


class ByteTrackAssociation:
    """ByteTrack, which goes on with boxes of low scores where a track would be lost.

    Source: Zhang et al. 2022, "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", algorithm 1, as
    in the package `trackers`.
    """

    def __init__(self, settings: Settings, rate: float) -> None:
        # Here, as the package takes a second to load, and SORT needs none of it.
        from trackers import ByteTrackTracker

        names = {"min_frames": "minimum_consecutive_frames", "min_iou": "minimum_iou_threshold"}
        chosen = given(settings, **names)
        if settings.max_lost is not None:
            # The package counts in frames of a thirtieth of a second.
            chosen["lost_track_buffer"] = round(settings.max_lost * 30 / rate)
        self._lowest_score = settings.lowest_score
        self._tracker: Any = ByteTrackTracker(
            frame_rate=rate,
            track_activation_threshold=settings.sure_score,
            high_conf_det_threshold=settings.sure_score,
            **chosen,
        )

    def update(self, xyxy: NDArray[np.float64], scores: NDArray[np.float64], seconds: float | None) -> Followed:
        """Return the tracks of the next frame."""
        import supervision

        seen = np.flatnonzero(scores >= self._lowest_score)
        boxes = supervision.Detections(
            xyxy=xyxy[seen].reshape(-1, 4), confidence=scores[seen], data={"place": seen.copy()}
        )
        found = self._tracker.update(boxes, timestamp=seconds)
        followed = np.flatnonzero(np.asarray(found.tracker_id) >= 0)
        if not len(followed):
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 4))
        places = np.asarray(found.data["place"], np.int64)[followed]
        return np.asarray(found.tracker_id, np.int64)[followed] + 1, places, xyxy[places]


ASSOCIATIONS: dict[str, Callable[[Settings, float], Association]] = {
    "bytetrack": ByteTrackAssociation,
    "sort": SortAssociation,
}


def given(settings: Settings, **names: str) -> dict[str, Any]:
    """Return the settings that are not left to the association, under the names that it has for them."""
    return {other: getattr(settings, own) for own, other in names.items() if getattr(settings, own) is not None}


class Follower:
    """Follows the objects of all classes of one sequence, frame by frame.

    rate: frames per second, above 0.
    Raises ValueError for an association that does not exist.
    """

    def __init__(self, settings: Settings, rate: float) -> None:
        if settings.association not in ASSOCIATIONS:
            raise ValueError(f"unknown association {settings.association!r}; known: {', '.join(ASSOCIATIONS)}")
        self._settings, self._rate = settings, rate
        self._of_class: dict[int, Association] = {}
        self._identities: dict[tuple[int, int], int] = {}

    def update(self, frame: int, found: Detections, seconds: float | None = None) -> Tracks:
        """Return the tracks that are shown in this frame; identities count from 1 over all classes.

        frame: its number, above that of the frame before. seconds: when it was taken, None where all frames are as
        far apart.
        """
        xyxy, scores = found.xyxy.astype(np.float64), found.scores.astype(np.float64)
        # Every class is asked in every frame, also in those that show none of it: its tracks grow older.
        for label in sorted(set(found.labels.tolist())):
            if label not in self._of_class:
                self._of_class[label] = ASSOCIATIONS[self._settings.association](self._settings, self._rate)
        ids, boxes, labels, sure = list[int](), list[NDArray[np.float64]](), list[int](), list[float]()
        for label, association in sorted(self._of_class.items()):
            own = np.flatnonzero(found.labels == label)
            identities, places, shown = association.update(xyxy[own], scores[own], seconds)
            ids += [self._identities.setdefault((label, one), len(self._identities) + 1) for one in identities.tolist()]
            boxes += list(shown)
            labels += [label] * len(identities)
            sure += scores[own][places].tolist()
        return tracks_of([frame] * len(ids), ids, np.reshape(boxes, (-1, 4)), labels, sure)


def follow(found: Iterable[tuple[int, Detections]], settings: Settings, rate: float) -> Tracks:
    """Return the tracks of a sequence whose frames are as far apart. found: (number of the frame, its objects)."""
    follower = Follower(settings, rate)
    return joined([follower.update(frame, objects) for frame, objects in found])


def joined(parts: list[Tracks]) -> Tracks:
    """Return the tracks of several frames as one."""
    if not parts:
        return tracks_of([], [], np.empty((0, 4)))
    return tracks_of(
        np.concatenate([part.frames for part in parts]),
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.xyxy for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )
