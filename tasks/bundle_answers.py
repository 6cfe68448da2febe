"""What a bundle answers to images of this run, through its own preprocessing, as it is served."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinglet.atomic import read_json
from kinglet.data.sources import Record, Source, open_source
from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.clips import ClipPredictor
from kinglet.runtime.decoding import UndecodableImageError, decode
from kinglet.runtime.predictor import BATCH_SIZE, Predictor
from kinglet.runtime.predictors import open_predictor
from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.processors import available_processors
from tasks.artifacts import SOURCE_FACTS, SPLIT, packed_clips, packed_images
from tasks.data_settings import Data
from tasks.image_tables import read_parquet

IMAGES_PER_TURN = 8 * BATCH_SIZE
# What answers with one class of those that a run knows.
SortingPredictor = Predictor | ClipPredictor


@dataclass(frozen=True)
class Part:
    """The images of one split: rows of the packed files, paths, numbers of their classes, all of shape (n,)."""

    rows: NDArray[np.int64]
    paths: list[str]
    labels: NDArray[np.int64]


def open_sorting(folder: Path, problem: str) -> SortingPredictor:
    """Return the predictor of a bundle that answers with classes, on one thread.

    Raises KingletError if the bundle is damaged or of another problem than `problem`.
    """
    opened = open_predictor(folder, threads=1)
    if not isinstance(opened, SortingPredictor) or opened.problem != problem:
        raise KingletError(
            f"{folder} is a bundle for {opened.problem}, not for {problem}.",
            f"Name a bundle for {problem}, or an empty folder if there is none yet.",
        )
    return opened


def read_part(split: str) -> Part:
    """Return the images of a split, in the order of the manifest; there may be none."""
    table = read_parquet(SPLIT / "manifest.parquet", ["index", "path", "label_index"], split)
    return Part(
        rows=table["index"].to_numpy().astype(np.int64),
        paths=table["path"].to_pylist(),
        labels=table["label_index"].to_numpy().astype(np.int64),
    )


def answers_of(predictor: SortingPredictor, part: Part, classes: Sequence[str], data: Data) -> NDArray[np.int64]:
    """Return the classes that a bundle answers, as their numbers in `classes`, shape (n_images,).

    The images are the packed ones where those are what the bundle's preprocessing would make of the originals,
    else the originals, which clips must not need (`other_clips`). The bundle must know the same classes; their order
    may be another.
    """
    of_clips = predictor.problem == bundles.VIDEO
    packed = packed_for(predictor.preprocessing, data.fit, packed_clips if of_clips else packed_images)
    number = {label: index for index, label in enumerate(classes)}
    per_turn = BATCH_SIZE if of_clips else IMAGES_PER_TURN
    turns = [slice(start, start + per_turn) for start in range(0, len(part.rows), per_turn)]
    compute: Callable[[slice], list[str]]
    if packed is not None:
        compute = partial(answers_to_packed, predictor, packed, part)
    else:
        assert isinstance(predictor, Predictor)
        source = open_source(data.source, data.images)
        records = {record.path: record for record in source.records}
        compute = partial(answers_to_originals, predictor, source, records, part, data)
    with ThreadPoolExecutor(available_processors()) as pool:
        answered = [label for labels in pool.map(compute, turns) for label in labels]
    return np.array([number[label] for label in answered], np.int64)


def packed_for(
    preprocessing: Preprocessing, fit: str, file_of: Callable[[int], Path] = packed_images
) -> NDArray[np.uint8] | None:
    """Return the packed images if this preprocessing would make the same of the originals, else None.

    file_of: the file of an edge length, `packed_images` or `packed_clips`.
    """
    file = file_of(preprocessing.input_size)
    if preprocessing.fit != fit or not file.is_file():
        return None
    packed: NDArray[np.uint8] = np.load(file, mmap_mode="r")
    return packed if packed.shape[-1] == preprocessing.channels else None


def other_clips(predictor: SortingPredictor, fit: str) -> str:
    """Return, in one sentence, why the clips of this run are not what a bundle is for; empty if they are, or images."""
    if not isinstance(predictor, ClipPredictor):
        return ""
    own = read_json(SOURCE_FACTS)["clips"]
    frames, rate = own["frames"], own["frames_per_second"]
    if (predictor.frames, round(predictor.frames_per_second, 3)) != (frames, round(rate, 3)):
        return (
            f"The champion cannot be compared, its clips have {predictor.frames} frames, "
            f"{predictor.frames_per_second:.4g} a second, and those of this run {frames}, {rate:.4g} a second."
        )
    if packed_for(predictor.preprocessing, fit, packed_clips) is None:
        size = predictor.preprocessing.input_size
        return f"The champion cannot be compared, it takes frames of {size} pixels, and no clips are packed so here."
    return ""


def answers_to_packed(predictor: SortingPredictor, packed: NDArray[np.uint8], part: Part, turn: slice) -> list[str]:
    """Return the classes of these packed images."""
    return predictor.predict(np.asarray(packed[part.rows[turn]])).classes


def answers_to_originals(
    predictor: Predictor, source: Source, records: dict[str, Record], part: Part, data: Data, turn: slice
) -> list[str]:
    """Return the classes of these images, decoded from the source one by one."""
    return predictor.predict(originals(source, records, part.paths[turn], data.max_pixels)).classes


def originals(
    source: Source, records: dict[str, Record], paths: Sequence[str], max_pixels: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield the decoded images of these paths.

    Raises KingletError that names the first which the source no longer holds as it was.
    """
    for path in paths:
        try:
            content = source.read(records[path])
            yield content if isinstance(content, np.ndarray) else decode(content, max_pixels)[0]
        except (KeyError, OSError, UndecodableImageError):
            raise KingletError(
                f"{path} cannot be read from data.source any more, and the champion takes images of another size.",
                "Run `dvc repro`, which reads the source anew.",
            ) from None
