"""Answers to clips from a bundle: frames in, one after the other or a clip at once, the clip's class out.

Needs onnxruntime, numpy and Pillow only; to read video files, PyAV.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.cutting import Cutting, cut, shown_at
from kinglet.runtime.golden_probabilities import Answering, check_probabilities
from kinglet.runtime.opened_bundle import open_bundle
from kinglet.runtime.predictor import Predictions, predictions_of
from kinglet.runtime.preprocessing import InputTensor, prepare
from kinglet.runtime.recurrence import ClipNetwork, State, open_recurrence, require_fitting
from kinglet.runtime.sessions import softmax
from kinglet.runtime.videos import Video

# More than any video has room for.
ALL_CLIPS = 1_000_000

# The frames of a clip in order, uint8 (height, width) or (height, width, 1 or 3) each, of any size.
Clip = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class VideoClip:
    """A clip of a video. frames: as people see them, decoded one by one. seconds: of its first and last frame."""

    frames: Sequence[NDArray[np.uint8]]
    seconds: tuple[float, float]


def clips_in(video: Video, frames: int, frames_per_second: float) -> Iterator[VideoClip]:
    """Yield the clips that a video has room for, spread evenly and without overlap, as a data set's are cut.

    A video that is shorter than a clip gives one of the frames that it has. One clip is in memory at a time.
    Raises KingletError for a frame that cannot be decoded.
    """
    cutting = Cutting(frames, frames_per_second, ALL_CLIPS)
    places = cut(video.seconds, cutting)
    if not places:
        last = int(video.seconds[-1] * frames_per_second)
        places = [shown_at(video.seconds, np.arange(min(frames, last + 1)) / frames_per_second)]
    for own in places:
        seconds = video.seconds[own]
        yield VideoClip(
            [video.frame(place + 1).image for place in own.tolist()], (float(seconds[0]), float(seconds[-1]))
        )


def require_av() -> None:
    """Raise KingletError if PyAV, which reads video files, is not installed."""
    if find_spec("av") is None:
        raise KingletError(
            "PyAV, which reads video files, is not installed; `pip install 'kinglet[track]'` installs it.",
            "Without it, send the frames of a clip as images.",
        )


class ClipPredictor:
    """A network over clips opened from a bundle; safe to call from several threads at once.

    >>> predictor = ClipPredictor("artifacts/bundle")
    >>> predictor.predict([clip]).classes
    ['waving']
    >>> stream = predictor.stream()
    >>> for frame in camera:
    ...     probabilities = stream.push(frame)
    """

    problem = bundles.VIDEO

    def __init__(self, bundle: Path | str, threads: int | None = None, saturates: bool | None = None) -> None:
        """Open the bundle.

        threads, saturates: as for `Predictor`. `frames` is the number of frames of a clip, `frames_per_second` how far
        apart they are.
        Raises KingletError that names the file if one is missing, damaged or not what the checksums say, or says what
        opens the bundle if it is of another problem.
        """
        folder = Path(bundle)
        opened = open_bundle(folder, threads, saturates, self.problem)
        self.runtime, self.model_file, self.saturates = opened.runtime, opened.model_file, opened.saturates
        self.classes, self.preprocessing, self.facts = opened.classes, opened.preprocessing, opened.facts
        file = folder / bundles.RECURRENT
        recurrence = open_recurrence(file, threads, exact_sums=False)
        require_fitting(opened.engine, recurrence, opened.preprocessing, file)
        self.network = ClipNetwork(opened.engine, recurrence)
        clip = opened.facts[bundles.CLIP]
        self.frames, self.frames_per_second = int(clip["frames"]), float(clip["frames_per_second"])

    def stream(self) -> ClipStream:
        """Return what takes frames one after the other, from one camera or video, and begins anew."""
        return ClipStream(self)

    def predict(self, clips: Iterable[Clip]) -> Predictions:
        """Return the answer to each clip after its last frame.

        clips: of any number of frames, though the network has learned from `frames` of them.
        Raises ValueError that says which clip has no frames, and which frame has another shape or type.
        """
        rows = [self._last(clip, number) for number, clip in enumerate(clips)]
        return predictions_of(np.stack(rows) if rows else np.empty((0, len(self.classes)), np.float32), self.classes)

    def after_each_frame(self, clip: Clip) -> NDArray[np.float32]:
        """Return the probabilities after each frame of a clip, float32 (n_frames, n_classes); the last are its answer.

        Raises ValueError that says which frame has another shape or type.
        """
        stream = self.stream()
        rows = []
        for number, frame in enumerate(clip):
            try:
                rows.append(stream.push(frame))
            except ValueError as error:
                raise ValueError(f"frame {number}: {error}") from None
        return np.stack(rows) if rows else np.empty((0, len(self.classes)), np.float32)

    def outputs(self, tensors: InputTensor) -> NDArray[np.float32]:
        """Return the logits after each frame of one clip, float32 (n_frames, n_classes).

        tensors: its frames as `kinglet.runtime.preprocessing.prepare` makes them, at least one.
        """
        return self.network.logits_after_frames(tensors)

    def predict_video(self, file: Path | str) -> Predictions:
        """Return the answers to the clips of a video file, one after the other; see `clips_in`.

        Raises KingletError if it cannot be read, or PyAV is not installed.
        """
        require_av()
        return self.predict(clip.frames for clip in clips_in(Video(Path(file)), self.frames, self.frames_per_second))

    def check_golden(self, golden: Path, tolerance: float | None = None) -> float:
        """Answer the golden clips and return the largest difference from what this kind of processor answers.

        tolerance, and what is raised: as for `check_probabilities`.
        """
        answering = Answering(
            lambda clips: self.predict(clips).probabilities,
            self.classes,
            self.runtime,
            self.saturates,
            bundles.GOLDEN_CLIPS,
            "clip",
        )
        return check_probabilities(answering, golden, tolerance)

    def _last(self, clip: Clip, number: int) -> NDArray[np.float32]:
        if not len(clip):
            raise ValueError(f"clip {number} has no frames")
        try:
            last: NDArray[np.float32] = self.after_each_frame(clip)[-1]
        except ValueError as error:
            raise ValueError(f"clip {number}, {error}") from None
        return last


class ClipStream:
    """The frames of one camera or video so far, as the state that the network carries on; for one thread.

    frames: how many were pushed since the beginning, or since `restart`.
    """

    def __init__(self, predictor: ClipPredictor) -> None:
        self._predictor = predictor
        self._state: State = predictor.network.recurrence.first_state()
        self.frames = 0

    def push(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities after one more frame, float32 (n_classes,).

        frame: uint8 (height, width) or (height, width, 1 or 3), RGB, of any size; the frames of a clip lie
        1 / `frames_per_second` apart.
        Raises ValueError for a frame of another shape or type; the state is then what it was.
        """
        tensor: Any = prepare([np.asarray(frame)], self._predictor.preprocessing)
        logits, self._state = self._predictor.network.step(tensor, self._state)
        self.frames += 1
        return softmax(logits)[0]

    def restart(self) -> None:
        """Forget all frames, as at the beginning of another clip."""
        self._state, self.frames = self._predictor.network.recurrence.first_state(), 0
