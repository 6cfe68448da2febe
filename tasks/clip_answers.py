"""What networks over clips answer to the packed clips of a run: frame by frame, as they are served."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.compression.saturation import Emulator, unknown_operators
from kinglet.runtime.bundles import MODEL, RECURRENT
from kinglet.runtime.engines import Engine
from kinglet.runtime.engines.onnxruntime import engine_of
from kinglet.runtime.preprocessing import Preprocessing, model_input
from kinglet.runtime.processors import available_processors
from kinglet.runtime.recurrence import ClipNetwork, open_recurrence, require_fitting
from kinglet.runtime.sessions import FEATURES_NAME, open_session, read_metadata
from kinglet.runtime.vnni import products_saturate
from tasks.opened_models import OpenedModel

# Counts the clips done.
Done = Callable[[float, float], None]


@dataclass(frozen=True)
class OpenedClipNetwork:
    """A network over clips, how a frame becomes its input, and the names of its classes."""

    network: ClipNetwork
    preprocessing: Preprocessing
    classes: list[str]

    def logits(
        self,
        packed: NDArray[np.uint8],
        rows: NDArray[np.integer[Any]],
        workers: int | None = None,
        report: Done | None = None,
    ) -> NDArray[np.float32]:
        """Return what `gather_clip_logits` does; workers: None for all processors."""
        workers = workers or available_processors()
        return gather_clip_logits(self.network, packed, rows, self.preprocessing, workers, report)

    def predicted(self, packed: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the classes that are answered to these rows of packed clips, int64 (len(rows),)."""
        return np.asarray(self.logits(packed, rows)[:, -1].argmax(axis=1), np.int64)


def open_clip_network(folder: Path, file: str = MODEL, *, saturate: bool = False) -> OpenedClipNetwork:
    """Return the network in a folder on one thread, with exact sums of 8-bit products.

    file: of its frame part. saturate: with those of x86 without VNNI in its frame part, emulated elsewhere.
    Raises KingletError if a file is missing, or the two are not of one model.
    """
    session = open_session(folder / file, threads=1, exact_sums=not saturate, outputs=(FEATURES_NAME,))
    engine = engine_of(session)
    model = onnx.load(folder / file)
    if saturate and not products_saturate() and not unknown_operators(model):
        emulator = Emulator(model)
        if emulator.layers_at_risk:
            engine = Engine(lambda tensor: emulator.run_all(tensor)[0][0], engine.input_shape, engine.takes_pixels)
    recurrence = open_recurrence(folder / RECURRENT, threads=1, exact_sums=not saturate)
    preprocessing, classes = read_metadata(session)
    require_fitting(engine, recurrence, preprocessing, folder / RECURRENT)
    return OpenedClipNetwork(ClipNetwork(engine, recurrence), preprocessing, classes)


def opened_clip_network(folder: Path, n_frames: int) -> OpenedModel:
    """Return the network in a folder as a model that answers whole clips of so many frames.

    Its engine takes the frames of n clips one after the other, and gives the logits after each clip's last frame.
    """
    opened = open_clip_network(folder)
    return as_model(opened.network, n_frames, opened.preprocessing, opened.classes)


def as_model(network: ClipNetwork, n_frames: int, preprocessing: Preprocessing, classes: list[str]) -> OpenedModel:
    """Return the same of a network that is open."""
    part = network.frame_part
    run = partial(network.logits_of_clips, n_frames=n_frames)
    return OpenedModel(Engine(run, part.input_shape, part.takes_pixels), preprocessing, classes)


def gather_clip_logits(
    network: ClipNetwork,
    packed: NDArray[np.uint8],
    rows: NDArray[np.integer[Any]],
    preprocessing: Preprocessing,
    workers: int,
    report: Done | None = None,
) -> NDArray[np.float32]:
    """Return the logits after every frame of these clips, float32 (len(rows), n_frames, n_classes).

    packed: uint8 (n, n_frames, input_size, input_size, channels), memory-mapped or not. workers: clips computed side by
    side; their number changes nothing. report is called with the clips done and all clips.
    """

    def answer(row: int) -> NDArray[np.float32]:
        return network.logits_after_frames(model_input(np.asarray(packed[row]), preprocessing))

    found = []
    with ThreadPoolExecutor(workers) as pool:
        for logits in pool.map(answer, rows.tolist()):
            found.append(logits)
            if report:
                report(len(found), len(rows))
    return np.stack(found) if found else np.empty((0, packed.shape[1], network.recurrence.n_classes), np.float32)
