"""What segmenters make of the held-out images of this run, exactly as it would be served, and how it is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray
from PIL import Image

from kinglet.atomic import atomic_path
from kinglet.errors import KingletError
from kinglet.evidence.segmentation_scores import MaskCounts, count_masks
from kinglet.runtime.bundles import MODEL
from kinglet.runtime.preprocessing import InputTensor, Placement, Preprocessing, model_input, placement
from kinglet.runtime.processors import available_processors
from kinglet.runtime.segmentation import Mask, decode_masks
from kinglet.runtime.sessions import open_session, read_metadata, run
from tasks.artifacts import EVALUATE, SPLIT, packed_images
from tasks.image_tables import read_parquet, read_scored
from tasks.scored_models import refuse_other_classes
from tasks.true_masks import MaskedImages, scored_images

PREDICTIONS = EVALUATE / "predictions.parquet"
# The predicted masks of the test images as MODEL/INDEX.png, and what their boundaries are worth.
MASKS = EVALUATE / "masks"
BOUNDARIES = MASKS / "boundaries.parquet"
BOUNDARY_COLUMNS = ("predicted", "predicted_right", "true", "true_right")
BATCH_SIZE = 4


@dataclass(frozen=True)
class OpenedSegmenter:
    """A segmenter ready to compute logits, how an image becomes its input, and the names of its classes."""

    compute: Callable[[InputTensor], NDArray[np.float32]]
    preprocessing: Preprocessing
    classes: list[str]

    def placements(self, images: MaskedImages) -> list[Placement]:
        """Return where each image lies in the input."""
        size, fit = self.preprocessing.input_size, self.preprocessing.fit
        return [placement(width, height, size, fit) for width, height in images.sizes.tolist()]

    def masks(self, tensor: InputTensor, images: MaskedImages, name: str) -> list[Mask]:
        """Return the masks of a batch of images in their own pixels.

        tensor: the images as `model_input` makes them. name: what errors call the model.
        Raises KingletError if it answers with numbers that are not finite.
        """
        try:
            return decode_masks(self.compute(tensor), self.placements(images), images.sizes)
        except ValueError as error:
            raise KingletError(f"{name} cannot be scored: {error}.") from None


def read_masked(split: str) -> MaskedImages:
    """Return the images of a split; raises KingletError if there are none."""
    table = read_scored(SPLIT / "manifest.parquet", ["index", "path"], split)
    return scored_images(table["index"].to_numpy().astype(np.int64), table["path"].to_pylist())


def open_segmenter(folder: Path, classes: list[str]) -> OpenedSegmenter:
    """Return the segmenter in a folder on one thread, whose answers do not depend on this machine's processors.

    Raises KingletError if the file is no model of ours, or was made for other classes.
    """
    opened = open_file(folder / MODEL)
    refuse_other_classes(folder / MODEL, opened.classes, classes)
    return opened


def open_file(file: Path) -> OpenedSegmenter:
    """Return the segmenter of a file on one thread; raises KingletError if its outputs are others."""
    session = open_session(file, threads=1)
    if len(session.get_outputs()[0].shape) != 4:
        raise KingletError(f"{file} is no segmenter: its logits are not those of pixels.", "Run `dvc repro`.")
    return segmenter_of(session)


def segmenter_of(session: onnxruntime.InferenceSession) -> OpenedSegmenter:
    """Return the segmenter of a session."""
    return OpenedSegmenter(partial(run, session), *read_metadata(session))


def count_answers(
    segmenter: OpenedSegmenter,
    images: MaskedImages,
    n_classes: int,
    name: str,
    report: Callable[[float, float], None] | None = None,
    keep: Callable[[int, Mask], None] | None = None,
    relabel: Callable[[Mask], Mask] | None = None,
) -> MaskCounts:
    """Return what a segmenter's masks of the packed images are worth, counted against the true ones.

    name: what errors call the segmenter. report: called with the images done and all images. keep: called with the row
    and the mask of every image. relabel: numbers the model's classes as this run does.
    Raises KingletError if it answers with numbers that are not finite.
    """
    packed = np.load(packed_images(segmenter.preprocessing.input_size), mmap_mode="r")

    def count_from(start: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64], str]]:
        places = np.arange(start, min(start + BATCH_SIZE, len(images)))
        part = images.take(places)
        tensor = model_input(np.asarray(packed[part.rows]), segmenter.preprocessing)
        counted = []
        for place, mask in enumerate(segmenter.masks(tensor, part, name)):
            predicted = mask if relabel is None else relabel(mask)
            if keep:
                keep(int(part.rows[place]), predicted)
            counted.append((*count_masks(part.truth(place), predicted, n_classes), digest_of(predicted)))
        return counted

    counts: list[tuple[NDArray[np.int64], NDArray[np.int64], str]] = []
    with ThreadPoolExecutor(available_processors()) as pool:
        for part in pool.map(count_from, range(0, len(images), BATCH_SIZE)):
            counts += part
            if report:
                report(len(counts), len(images))
    return counts_of(counts)


def counts_of(counts: list[tuple[NDArray[np.int64], NDArray[np.int64], str]]) -> MaskCounts:
    """Return confusions, boundary counts and digests of images as one table; at least one image."""
    confusions, boundaries, digests = zip(*counts, strict=True)
    return MaskCounts(np.stack(confusions), np.stack(boundaries), np.array(digests))


def digest_of(mask: Mask) -> str:
    """Return the SHA-256 of a mask's pixels."""
    return hashlib.sha256(mask.tobytes()).hexdigest()


def write_mask(file: Path, mask: Mask) -> None:
    """Write a mask as an 8-bit gray PNG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(file, "PNG", compress_level=6)


def write_predictions(images: dict[str, MaskedImages], counts: dict[str, dict[str, MaskCounts]]) -> None:
    """Write one row for every model, image, true and predicted class that pixels have; {model: {split: counts}}."""
    parts = []
    for name, of_split in counts.items():
        for split, of_images in of_split.items():
            image, truth, predicted = np.nonzero(of_images.confusions)
            parts.append(
                pa.table(
                    {
                        "model": pa.array([name] * len(image), pa.string()),
                        "index": images[split].rows[image],
                        "path": pa.array([images[split].paths[place] for place in image], pa.string()),
                        "split": pa.array([split] * len(image), pa.string()),
                        "truth": truth.astype(np.int64),
                        "predicted": predicted.astype(np.int64),
                        "pixels": of_images.confusions[image, truth, predicted],
                    }
                )
            )
    with atomic_path(PREDICTIONS) as temporary:
        pyarrow.parquet.write_table(pa.concat_tables(parts), temporary, compression="zstd")


def boundary_table(images: dict[str, MaskedImages], counts: dict[str, dict[str, MaskCounts]]) -> pa.Table:
    """Return one row for every model, image and class: its boundary pixels, and the SHA-256 of the predicted mask."""
    parts = []
    for name, of_split in counts.items():
        for split, of_images in of_split.items():
            n, n_classes = len(of_images), of_images.n_classes
            flat = of_images.boundaries.reshape(n * n_classes, len(BOUNDARY_COLUMNS))
            parts.append(
                pa.table(
                    {
                        "model": pa.array([name] * len(flat), pa.string()),
                        "index": np.repeat(images[split].rows, n_classes),
                        "split": pa.array([split] * len(flat), pa.string()),
                        "label_index": np.tile(np.arange(n_classes), n),
                        **{column: flat[:, place] for place, column in enumerate(BOUNDARY_COLUMNS)},
                        "mask_sha256": pa.array(np.repeat(of_images.digests, n_classes).tolist(), pa.string()),
                    }
                )
            )
    return pa.concat_tables(parts)


def read_counts(models: list[str], images: MaskedImages, split: str, n_classes: int) -> dict[str, MaskCounts]:
    """Return what the masks of each of the models are worth on the images of a split, as `evaluate` kept it.

    Raises KingletError if it was scored on other images than the split lists.
    """
    pixels = read_parquet(PREDICTIONS, ["model", "index", "truth", "predicted", "pixels"], split)
    boundaries = read_parquet(BOUNDARIES, ["model", "index", "label_index", *BOUNDARY_COLUMNS, "mask_sha256"], split)
    place = pd.Series(np.arange(len(images)), index=images.rows)
    found = {}
    for name in models:
        own, edges = (table.filter(pc.equal(table["model"], name)) for table in (pixels, boundaries))
        if set(edges["index"].to_pylist()) != set(images.rows.tolist()):
            raise KingletError(
                f"{PREDICTIONS}: {name} was scored on other {split} images than the split lists.", "Run `dvc repro`."
            )
        confusions = np.zeros((len(images), n_classes, n_classes), np.int64)
        image = place.loc[own["index"].to_numpy()].to_numpy(np.int64)
        confusions[image, own["truth"].to_numpy(), own["predicted"].to_numpy()] = own["pixels"].to_numpy()
        counts = np.zeros((len(images), n_classes, len(BOUNDARY_COLUMNS)), np.int64)
        image, label = place.loc[edges["index"].to_numpy()].to_numpy(np.int64), edges["label_index"].to_numpy()
        counts[image, label] = np.column_stack([edges[column].to_numpy() for column in BOUNDARY_COLUMNS])
        digests = np.empty(len(images), dtype="<U64")
        digests[image] = edges["mask_sha256"].to_pylist()
        found[name] = MaskCounts(confusions, counts, digests)
    return found
