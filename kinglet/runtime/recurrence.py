"""A network over the frames of a clip, in two ONNX files: one makes features of a frame, one carries them on.

The frame part takes `images` and gives `features`. The recurrent part is one step: `features` and `state` in, `logits`
and `next_state` out. The state before the first frame is zeros, and the answer to a clip is that after its last frame.

Both parts see one frame at a time, whoever asks. In 8 bits the recurrent part scales its inputs by the largest of a
batch, and kernels add in another order for several rows: so a clip's answer would depend on its neighbours, and a
stream's not be that of its clip.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from kinglet.errors import KingletError
from kinglet.runtime.engines import Engine
from kinglet.runtime.preprocessing import InputTensor, Preprocessing, model_input
from kinglet.runtime.sessions import FEATURES_NAME, OUTPUT_NAME, called, load_session

STATE_NAME, NEXT_STATE_NAME = "state", "next_state"
INPUTS, OUTPUTS = (FEATURES_NAME, STATE_NAME), (OUTPUT_NAME, NEXT_STATE_NAME)

State = NDArray[np.float32]


@dataclass(frozen=True)
class Recurrence:
    """The recurrent part, opened; safe to call from several threads.

    feature_size, state_size: numbers of a frame's features and of a state. n_classes: numbers of an answer.
    """

    session: onnxruntime.InferenceSession
    feature_size: int
    state_size: int
    n_classes: int

    def first_state(self) -> State:
        """Return the state before the first frame, float32 (1, state_size)."""
        return np.zeros((1, self.state_size), np.float32)

    def step(self, features: NDArray[np.float32], state: State) -> tuple[NDArray[np.float32], State]:
        """Return the logits after a frame, float32 (1, n_classes), and the state to go on with.

        features: of the frame, float32 (1, feature_size). state: after the frame before it, (1, state_size).
        """
        logits, following = self.session.run(OUTPUTS, {FEATURES_NAME: features, STATE_NAME: state})
        return np.asarray(logits, np.float32), np.asarray(following, np.float32)

    def along(self, features: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the logits after each frame of a clip, float32 (n_frames, n_classes).

        features: of each frame, float32 (1, feature_size), at least one.
        """
        state, found = self.first_state(), []
        for of_frame in features:
            logits, state = self.step(of_frame, state)
            found.append(logits[0])
        return np.stack(found)


@dataclass(frozen=True)
class ClipNetwork:
    """Both parts, opened. frame_part: its answer is features, float32 (n, feature_size)."""

    frame_part: Engine
    recurrence: Recurrence

    def step(self, tensor: InputTensor, state: State) -> tuple[NDArray[np.float32], State]:
        """Return the logits after a frame, and the state to go on with. tensor: the frame as the model takes it."""
        return self.recurrence.step(self.frame_part.run(tensor), state)

    def logits_after_frames(self, frames: InputTensor) -> NDArray[np.float32]:
        """Return the logits after each frame of a clip, float32 (n_frames, n_classes).

        frames: at least one, as the model takes them.
        """
        return self.recurrence.along(self.frame_part.run(frames[place : place + 1]) for place in range(len(frames)))

    def logits_of_clips(self, frames: InputTensor, n_frames: int) -> NDArray[np.float32]:
        """Return the logits after the last frame of each clip, float32 (n, n_classes).

        frames: of n clips one after the other, (n * n_frames, ...), n at least 1, as the model takes them.
        """
        starts = range(0, len(frames), n_frames)
        return np.stack([self.logits_after_frames(frames[start : start + n_frames])[-1] for start in starts])


def open_recurrence(file: Path | bytes, threads: int | None = None, *, exact_sums: bool = True) -> Recurrence:
    """Return the recurrent part of an ONNX file or its bytes; threads and exact_sums as for `open_session`.

    Raises KingletError if it is no ONNX model, or has other inputs, outputs or shapes than one step of a recurrence.
    """
    session = load_session(file, threads, exact_sums=exact_sums)
    inputs, outputs = (
        {item.name: item.shape[-1] for item in items} for items in (session.get_inputs(), session.get_outputs())
    )
    sizes = (inputs.get(FEATURES_NAME), inputs.get(STATE_NAME), outputs.get(OUTPUT_NAME))
    widths = [size for size in sizes if isinstance(size, int)]
    if set(inputs) != set(INPUTS) or set(outputs) != set(OUTPUTS) or len(widths) < len(sizes):
        raise KingletError(
            f"{called(file)} is no step of a recurrence: it has inputs {sorted(inputs)} and outputs {sorted(outputs)}; "
            f"needed are {' and '.join(INPUTS)}, {' and '.join(OUTPUTS)}, of fixed widths."
        )
    return Recurrence(session, *widths)


def require_fitting(frame_part: Engine, recurrence: Recurrence, preprocessing: Preprocessing, file: Path) -> None:
    """Raise KingletError if a frame part gives another number of features than a recurrence takes. file: the latter."""
    edge = preprocessing.input_size
    image = model_input(np.zeros((1, edge, edge, preprocessing.channels), np.uint8), preprocessing)
    width = frame_part.run(image).shape[-1]
    if width != recurrence.feature_size:
        raise KingletError(
            f"{file} takes {recurrence.feature_size} features of a frame; the model beside it gives {width}.",
            "The files are not of one model: make them anew with `dvc repro`.",
        )
