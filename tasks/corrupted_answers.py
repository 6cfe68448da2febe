"""What models answer to corrupted images, and to those that another camera would take: each made once for all."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kinglet.errors import KingletError
from kinglet.evidence.corruptions.kinds import FAMILIES, KINDS, corrupt
from kinglet.evidence.corruptions.pixels import resize_batch
from kinglet.evidence.corruptions.severities import SEVERITIES
from kinglet.evidence.corruptions.shifts import SHIFTS
from kinglet.evidence.corruptions.streams import image_keys
from kinglet.evidence.robustness import Answers
from kinglet.runtime.preprocessing import InputTensor, match_channels, model_input
from kinglet.runtime.processors import available_processors
from kinglet.runtime.sessions import softmax
from tasks.opened_models import OpenedModel
from tasks.progress import Report

WAYS = (*KINDS, *SHIFTS)
# Images that one worker has in hand: the more, the less time goes to calls (BATCH), but few images are still divided
# among the workers (SHARES, SMALLEST_BATCH), and large ones must fit into memory (BATCH_VALUES).
BATCH, SMALLEST_BATCH, SHARES, BATCH_VALUES = 128, 16, 16, 3_000_000
# Of the pictures that the report shows, pixels.
PICTURE_SIZE = 64

# Of one batch: whether each image was answered right, and the confidence of the class that was predicted; the rows are
# the clean images, then every way in every severity.
Part = tuple[NDArray[np.bool_], NDArray[np.float32]]


@dataclass(frozen=True)
class Task:
    """What is asked: which images, of which packed file, in which ways changed, of which models.

    packed: uint8 (n, edge, edge, channels), or clips (n, frames, edge, edge, channels), memory-mapped; models of clips
    take the frames of all clips of a batch one after the other. rows, labels: int64 of shape (n_images,).
    """

    packed: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    models: dict[str, OpenedModel]
    ways: tuple[str, ...]
    seed: int


def answers_of(task: Task, report: Report) -> dict[str, Answers]:
    """Return every model's answers to the images, clean and in every way; each is corrupted once for all models."""
    batch = batch_size(task)
    in_all = (1 + len(task.ways) * len(SEVERITIES)) * len(task.rows)
    lock, done = threading.Lock(), 0

    def answers_from(start: int) -> dict[str, Part]:
        nonlocal done
        images = np.asarray(task.packed[task.rows[start : start + batch]])
        labels = task.labels[start : start + batch]
        found: dict[str, list[Part]] = {name: [] for name in task.models}
        for changed in every_way(images, task.ways, task.seed):
            for name, probabilities in answers_to(changed, task.models):
                found[name].append((probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)))
            with lock:
                done += len(images)
                report(done, in_all)
        return {
            name: (np.stack([correct for correct, _ in pairs]), np.stack([sure for _, sure in pairs]))
            for name, pairs in found.items()
        }

    with ThreadPoolExecutor(available_processors()) as pool:
        parts = list(pool.map(answers_from, range(0, len(task.rows), batch)))
    return {name: gathered([part[name] for part in parts]) for name in task.models}


def batch_size(task: Task) -> int:
    """Return how many images a worker takes at once; the number of workers has no part in it."""
    edge = max(task.packed.shape[-2], *(model.preprocessing.input_size for model in task.models.values()))
    frames = task.packed.shape[1] if task.packed.ndim == 5 else 1
    fitting = BATCH_VALUES // (edge * edge * task.packed.shape[-1] * frames)
    return max(1, min(BATCH, fitting, max(SMALLEST_BATCH, len(task.rows) // SHARES)))


def gathered(parts: list[Part]) -> Answers:
    """Return the answers of all batches."""
    correct, confidence = (np.concatenate([part[index] for part in parts], axis=1) for index in (0, 1))
    shape = -1, len(SEVERITIES), correct.shape[1]
    return Answers(correct[1:].reshape(shape), confidence[1:].reshape(shape), correct[0], confidence[0])


def every_way(images: NDArray[np.uint8], ways: Iterable[str], seed: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the images as they are, then in each of these ways, in every severity.

    images: uint8 (n, edge, edge, channels), or clips (n, frames, edge, edge, channels). What is drawn at random is
    drawn once for all frames of a clip: weather and lenses stay; but noise is new in every frame, as a sensor's is.
    """
    frames = images.shape[1] if images.ndim == 5 else 1
    flat = images.reshape(-1, *images.shape[-3:])
    of_frames = image_keys(flat)
    of_clips = np.repeat(of_frames[::frames], frames)
    yield images
    for way in ways:
        keys = of_frames if way in FAMILIES["noise"] else of_clips
        for severity in SEVERITIES:
            yield corrupt(flat, way, severity, keys, seed).reshape(images.shape)


def answers_to(images: NDArray[np.uint8], models: dict[str, OpenedModel]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield every model's name and probabilities (n, n_classes); what models share is computed once."""
    inputs: dict[Any, InputTensor] = {}
    for name, model in models.items():
        preprocessing = model.preprocessing
        if preprocessing not in inputs:
            size = preprocessing.input_size
            # A square has the same pixels after every fit, and these are the server's, bit for bit.
            seen = with_channels(images.reshape(-1, *images.shape[-3:]), preprocessing.channels)
            inputs[preprocessing] = model_input(
                resize_batch(seen, size, size, Image.Resampling.BILINEAR), preprocessing
            )
        logits = model.engine.run(inputs[preprocessing])
        if not np.isfinite(logits).all():
            raise KingletError(f"The model {name} gives NaN or infinite logits on corrupted test images.")
        yield name, softmax(logits)


def with_channels(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Return the images with 1 or 3 channels, as the server makes them."""
    n, height, width, _ = images.shape
    # Pixels know nothing of each other here, so a whole batch is one tall picture.
    tall = match_channels(images.reshape(n * height, width, -1), channels)
    return tall.reshape(n, height, width, channels)


def pictures(image: NDArray[np.uint8], ways: Sequence[str], seed: int) -> NDArray[np.uint8]:
    """Return one image in every way and severity, uint8 (ways, severities, size, size, channels).

    image: uint8 (1, edge, edge, channels). size: the image's, but at most PICTURE_SIZE pixels.
    """
    _, *changed = every_way(image, ways, seed)
    stacked = np.concatenate(changed)
    size = min(PICTURE_SIZE, stacked.shape[1])
    small = resize_batch(stacked, size, size, Image.Resampling.BILINEAR)
    return small.reshape(len(ways), len(SEVERITIES), size, size, -1)
