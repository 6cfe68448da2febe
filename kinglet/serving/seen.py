"""What requests hand over to be noted, and what there is to count of it, by the problem that the model solves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime import bundles
from kinglet.runtime.preprocessing import TILE, InputTensor, Placement, denormalize, placement
from kinglet.runtime.sessions import softmax
from kinglet.runtime.sketches import INPUTS, SIZES, input_statistics
from kinglet.runtime.tiles import seen_tiles
from kinglet.runtime.watched_answers import (
    Answers,
    Values,
    class_answers,
    mask_answers,
    mask_facts,
    middle_of,
    object_answers,
)
from kinglet.serving.clip_answers import Answered
from kinglet.serving.inference import Answer
from kinglet.serving.object_answers import detector_of
from kinglet.serving.served_model import ServedModel

# Measured in one go: small arrays cost their calls, large ones their memory.
IMAGES_AT_ONCE, BYTES_AT_ONCE = 64, 4_000_000


@dataclass(frozen=True)
class Seen:
    """What one request hands over.

    pixels: the model's inputs, uint8 (n, size, size, channels), or as prepared tensors, float32 (n, channels, size,
    size): one of each image, of each tile of one, or of each clip. sizes: width and height of each of the n before it
    became the input; empty for tensors. outputs: what the model gave, the first axis of length n; of a clip, after its
    last frame. together: how many of the n belong to each independent image or video; empty where each is one.
    """

    id: bytes
    pixels: NDArray[Any]
    sizes: Sequence[tuple[int, int]]
    outputs: NDArray[np.float32]
    together: Sequence[int] = ()

    @property
    def n_bytes(self) -> int:
        """The memory that it holds."""
        return self.pixels.nbytes + self.outputs.nbytes

    @property
    def n_images(self) -> int:
        """How many independent images or videos it is of."""
        return len(self.together) or len(self.pixels)

    def images(self) -> NDArray[np.int64]:
        """Return the number of the image or video that each of the n is of, int64 (n,)."""
        return np.repeat(np.arange(self.n_images), self.together or 1)


def seen_images(model: ServedModel, request: bytes, answer: Answer) -> Seen:
    """Return what a request with images hands over; where they are cut into tiles, each tile has its own size."""
    facts = model.predictor.preprocessing
    sizes = [(image.width, image.height) for image in answer.images]
    if facts.fit != TILE:
        return Seen(request, answer.squares, sizes, answer.outputs)
    tiles = [seen_tiles(width, height, facts) for width, height in sizes]
    of_tiles = [(tile.width, tile.height) for own in tiles for tile in own]
    return Seen(request, answer.squares, of_tiles, answer.outputs, [len(own) for own in tiles])


def seen_clips(request: bytes, answered: Answered) -> Seen:
    """Return what a request with a video, or the frames of one clip, hands over: the middle frame of each clip."""
    clips = answered.clips
    sizes = [(int(clip.facts["width"]), int(clip.facts["height"])) for clip in clips]
    outputs = np.stack([clip.logits[-1] for clip in clips])
    return Seen(request, np.stack([clip.middle for clip in clips]), sizes, outputs, [len(clips)])


def seen_tensors(model: ServedModel, request: bytes, tensors: InputTensor, outputs: NDArray[np.float32]) -> Seen:
    """Return what a request with prepared tensors hands over: images, or the frames of one clip."""
    if model.predictor.problem != bundles.VIDEO:
        return Seen(request, tensors, (), outputs)
    return Seen(request, tensors[[middle_of(len(tensors))]], (), outputs[-1:])


def parts_of(waiting: Sequence[Seen]) -> list[list[Seen]]:
    """Return what waits in parts that are measured in one go."""
    parts: list[list[Seen]] = []
    images = size = 0
    for seen in waiting:
        if not parts or images + len(seen.pixels) > IMAGES_AT_ONCE or size + seen.n_bytes > BYTES_AT_ONCE:
            parts.append([])
            images = size = 0
        parts[-1].append(seen)
        images, size = images + len(seen.pixels), size + seen.n_bytes
    return parts


def images_of(part: Sequence[Seen]) -> NDArray[np.int64]:
    """Return the number of the image or video that each input of some requests is of, int64 (n,)."""
    starts = np.cumsum([0, *(seen.n_images for seen in part)])
    return np.concatenate([seen.images() + start for seen, start in zip(part, starts, strict=False)])


def inputs_of(part: Sequence[Seen], model: ServedModel) -> dict[str, Values]:
    """Return the values of each of INPUTS that the images of some requests gave."""
    squares = np.concatenate(
        [
            seen.pixels if seen.pixels.dtype == np.uint8 else denormalize(seen.pixels, model.predictor.preprocessing)
            for seen in part
        ]
    )
    images = images_of(part)
    has_size = np.concatenate([np.full(len(seen.pixels), len(seen.sizes) > 0) for seen in part])
    sizes = np.array([size for seen in part for size in seen.sizes], np.float64).reshape(-1, len(SIZES))
    values = {name: Values(found, images) for name, found in input_statistics(squares).items()}
    values |= {name: Values(sizes[:, column], images[has_size]) for column, name in enumerate(SIZES)}
    return {name: values[name] for name in INPUTS}


def answers_of(part: Sequence[Seen], model: ServedModel) -> Answers:
    """Return what there is to count of the answers to some requests."""
    return ANSWERS[model.predictor.problem](part, model)


def answered_classes(part: Sequence[Seen], _: ServedModel) -> Answers:
    """Return the answers of a model that sorts into classes."""
    return class_answers(softmax(np.concatenate([seen.outputs for seen in part])), images_of(part))


def found_objects(part: Sequence[Seen], model: ServedModel) -> Answers:
    """Return the answers of a detector; objects in tensors have no size, for nobody knows that of the image."""
    thresholds = detector_of(model).thresholds
    found = [objects for seen in part for objects in thresholds.decode(seen.outputs, placements_of(seen, model))]
    unknown: tuple[None, ...] = (None,)
    sizes = [size for seen in part for size in (seen.sizes or unknown * len(seen.pixels))]
    return object_answers(found, sizes, len(model.predictor.classes))


def made_masks(part: Sequence[Seen], model: ServedModel) -> Answers:
    """Return the answers of a segmenter."""
    facts = [mask_facts(seen.outputs, placements_of(seen, model)) for seen in part]
    confidences, shares = (np.concatenate(values) for values in zip(*facts, strict=True))
    return mask_answers(confidences, shares, images_of(part), model.predictor.classes)


def placements_of(seen: Seen, model: ServedModel) -> list[Placement]:
    """Return where each image lies in the model's input; of tensors, all of the input is the image."""
    facts = model.predictor.preprocessing
    edge = facts.input_size
    return [placement(*size, edge, facts.fit) for size in seen.sizes or [(edge, edge)] * len(seen.pixels)]


ANSWERS: dict[str, Callable[[Sequence[Seen], ServedModel], Answers]] = {
    bundles.CLASSIFICATION: answered_classes,
    bundles.DETECTION: found_objects,
    bundles.SEGMENTATION: made_masks,
    bundles.VIDEO: answered_classes,
}
