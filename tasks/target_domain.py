"""The images of the step `adapt`: those of a domain of the data set, or, to show it, of a camera that is made up.

Where videos have classes, they are clips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kinglet.adaptation.camera import another_camera
from kinglet.data.batches import images_in_a_row, open_packed
from kinglet.data.splits import ADAPTATION, FEWEST_TO_ADAPT, FEWEST_TO_JUDGE, TARGET_TEST
from kinglet.evidence.corruptions.pixels import resize_batch
from kinglet.evidence.corruptions.streams import image_keys
from kinglet.evidence.robustness import balanced_sample
from tasks.artifacts import SPLIT, base_size, packed_clips, packed_images
from tasks.image_tables import read_parquet
from tasks.parameters import Parameters
from tasks.training_settings import Adapt

# Pixels, at the model's input size, that are adapted to and that judge, of a clip those of one frame; more images cost
# time and show little more.
PIXELS_TO_ADAPT, PIXELS_TO_JUDGE = 3_200_000, 8_000_000
# And as many images at the least, where there are as many.
FEWEST_IMAGES = 300
BATCH = 256


@dataclass(frozen=True)
class Part:
    """Some images of the data set: rows of the packed files and labels, int64 (n,), and SHA-256 sums, str (n,)."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    sha256: NDArray[np.object_]

    def only(self, places: NDArray[np.int64]) -> Part:
        """Return the images at these places."""
        return Part(self.rows[places], self.labels[places], self.sha256[places])


@dataclass(frozen=True)
class Domains:
    """The images of a model's adaptation.

    is_made: the target's images are those of the data set, as a made camera would take them. adaptation, held_out:
    of the target. source: test images of what the model was trained for; where the target is made, the same images as
    held_out, in the same order. packed: from the edge length to the file that holds all of them. seed: of the made
    camera.
    """

    is_made: bool
    adaptation: Part
    held_out: Part
    source: Part
    packed: Callable[[int], Path]
    seed: int

    def source_images(self, part: Part, input_size: int) -> NDArray[np.uint8]:
        """Return images as they are, uint8 (n, input_size, input_size, channels).

        Clips are uint8 (n, frames, input_size, input_size, channels), here and below.
        """
        return np.asarray(open_packed(self.packed(input_size))[part.rows])

    def target_images(self, part: Part, input_size: int) -> NDArray[np.uint8]:
        """Return images of the target domain, uint8 (n, input_size, input_size, channels).

        A camera changes the picture that it takes: the made one at the size with all pixels, whatever a model takes.
        """
        if not self.is_made:
            return self.source_images(part, input_size)
        packed = open_packed(self.packed(base_size()))
        at_once = max(1, BATCH // images_in_a_row(packed))
        starts = range(0, len(part.rows), at_once)
        batches = [np.asarray(packed[part.rows[start : start + at_once]]) for start in starts]
        return np.concatenate([self._taken(batch, input_size) for batch in batches])

    def _taken(self, images: NDArray[np.uint8], input_size: int) -> NDArray[np.uint8]:
        # A clip's frames are taken as images: the change is the same for all, and noise is new in every one.
        frames = images.reshape(-1, *images.shape[-3:])
        changed = another_camera(frames, image_keys(frames), self.seed)
        resized = resize_batch(changed, input_size, input_size, Image.Resampling.BILINEAR)
        return resized.reshape(*images.shape[:-3], *resized.shape[1:])


def read_part(split: str) -> Part:
    """Return the images of one part of the split, in the order of their SHA-256: a sample does not depend on others."""
    table = read_parquet(SPLIT / "manifest.parquet", ["index", "label_index", "sha256"], split)
    part = Part(
        table["index"].to_numpy().astype(np.int64),
        table["label_index"].to_numpy().astype(np.int64),
        np.array(table["sha256"].to_pylist(), object),
    )
    return part.only(np.lexsort((part.rows, part.sha256.astype(str))))


def read_domains(parameters: Parameters, input_size: int) -> Domains:
    """Return the images for a model that takes images of this size; more than enough are sampled, class by class.

    A made target is adapted to with validation images, which no weight was fitted to, and judged with test images.
    """
    settings, seed = parameters.adapt, parameters.seed
    is_made = settings.domain is None
    adaptation = sampled(read_part("validation" if is_made else ADAPTATION), PIXELS_TO_ADAPT, input_size, seed)
    held_out = sampled(read_part("test" if is_made else TARGET_TEST), PIXELS_TO_JUDGE, input_size, seed)
    source = held_out if is_made else sampled(read_part("test"), PIXELS_TO_JUDGE, input_size, seed)
    packed = packed_clips if parameters.network == "video" else packed_images
    return Domains(is_made, adaptation, held_out, source, packed, seed)


def sampled(part: Part, pixels: int, input_size: int, seed: int) -> Part:
    """Return as many of the images as have so many pixels, as many of each class; all if there are no more."""
    return part.only(balanced_sample(part.labels, max(FEWEST_IMAGES, pixels // input_size**2), seed))


def labelled_places(part: Part, settings: Adapt) -> NDArray[np.int64]:
    """Return the places of the images whose labels fine-tuning gets to see, as many of each class as there are."""
    rank = np.zeros(len(part.labels), np.int64)
    for label in np.unique(part.labels):
        places = np.flatnonzero(part.labels == label)
        rank[places] = np.arange(len(places))
    return np.sort(np.argsort(rank, kind="stable")[: settings.labelled_images])


def too_few(domains: Domains, several: str) -> str | None:
    """Return a sentence if there are too few images for a made target, None if there are enough.

    A domain of the data set was refused by the split already. several: what the images are.
    """
    n_adaptation, n_judging = len(domains.adaptation.rows), len(domains.held_out.rows)
    if n_adaptation >= FEWEST_TO_ADAPT and n_judging >= FEWEST_TO_JUDGE:
        return None
    return (
        f"{n_adaptation} validation {several} to adapt to and {n_judging} test {several} to judge that are too few for "
        f"the demonstration of the adaptation, which needs {FEWEST_TO_ADAPT} and {FEWEST_TO_JUDGE}."
    )
