"""Sketches of what a server saw and answered: counts over the bins of a bundle's reference, never an image.

A sketch of two streams together is the sum of the sketches of each, so intervals and replicas add up. What is counted
of the answers follows from the problem that the model solves (`watched_answers.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.errors import KingletError, other_format
from kinglet.runtime import bundles
from kinglet.runtime.histograms import bin_counts, inner_quantiles
from kinglet.runtime.image_statistics import PIXEL_STATISTICS, luma, pixel_statistics
from kinglet.runtime.watched_answers import WATCHED, Answers, Values, Watched, class_answers, one_each

FORMAT = 1
# Columns of every reference: of the model's input, and of the image as it was sent.
SIZES = ("width", "height")
INPUTS = (*PIXEL_STATISTICS, *SIZES)
N_QUANTILES = 20
# Sums are rounded by how a processor adds; values that are equal have to stay so on every processor.
DECIMALS = 7
# Numbers that a kept sample of answers may hold, so that a thousand classes do not make a sketch of megabytes.
MAX_SAMPLE_NUMBERS = {"reference": 50_000, "sketch": 5_000}
REFERENCE_SAMPLE = 500
ANSWER_DECIMALS = 4


@dataclass(frozen=True)
class Histogram:
    """Ascending edges, float64 (n_edges,), and counts below, on and between them, int64 (2 * n_edges + 1,)."""

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Reference:
    """What a model was made with, as a server's images and answers are compared with it.

    columns: a histogram for each of `columns_of` the problem. classes: names in the model's order. class_counts: how
    often each was answered to held-out images, int64 (n_classes,). sample: probabilities of some of these answers,
    float32 (n_sample, n_classes), none where answers are no probabilities. n_right of n_test test images were answered
    right, where an answer is right or wrong. Each image counts `watched.weight`.
    """

    columns: dict[str, Histogram]
    classes: tuple[str, ...]
    class_counts: NDArray[np.int64]
    sample: NDArray[np.float32]
    n_right: int = 0
    n_test: int = 0
    problem: str = bundles.CLASSIFICATION

    @property
    def watched(self) -> Watched:
        """What is counted of the answers."""
        return WATCHED[self.problem]

    def to_dict(self) -> dict[str, Any]:
        """Return the reference as JSON-ready values."""
        return {
            "format": FORMAT,
            # A file that says nothing of it is a classifier's.
            **({} if self.problem == bundles.CLASSIFICATION else {"problem": self.problem}),
            "columns": {
                name: {"edges": histogram.edges.tolist(), "counts": histogram.counts.tolist()}
                for name, histogram in self.columns.items()
            },
            "classes": dict(zip(self.classes, self.class_counts.tolist(), strict=True)),
            "sample": rows_of(self.sample),
            "test": {"right": self.n_right, "images": self.n_test},
        }


@dataclass(frozen=True)
class Sketch:
    """Counts of one interval over the bins of a reference, where each image counts as much as there.

    n_images: answered in all; a video is one, whatever its clips. columns: int64 (n_bins,) for each column of the
    reference; those of the size lack images that came as tensors. class_counts: int64 (n_classes,). sample:
    probabilities of answers drawn at random, float32 (n_sample, n_classes).
    """

    n_images: int
    columns: dict[str, NDArray[np.int64]]
    class_counts: NDArray[np.int64]
    sample: NDArray[np.float32]

    def to_dict(self) -> dict[str, Any]:
        """Return the sketch as JSON-ready values."""
        return {
            "format": FORMAT,
            "images": self.n_images,
            "columns": {name: counts.tolist() for name, counts in self.columns.items()},
            "classes": self.class_counts.tolist(),
            "sample": rows_of(self.sample),
        }


def columns_of(problem: str, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns of a problem; raises KeyError for an unknown one."""
    return (*INPUTS, *WATCHED[problem].columns(classes))


def make_reference(
    columns: Mapping[str, NDArray[np.float64]],
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    is_test: NDArray[np.bool_],
    classes: Iterable[str],
) -> Reference:
    """Return the reference of a classifier.

    columns: {name: values of shape (n,)} for each of INPUTS, of training images.
    probabilities: float32 (n_held_out, n_classes), the model's answers to images that it was not trained on. labels,
    is_test: int64 and bool (n_held_out,), the classes of these and which of them are test images.
    """
    is_right = probabilities.argmax(axis=1) == labels
    inputs = {name: one_each(values) for name, values in columns.items()}
    right = int(is_right[is_test].sum()), int(is_test.sum())
    return reference_of(bundles.CLASSIFICATION, inputs, class_answers(probabilities), classes, right)


def reference_of(
    problem: str,
    inputs: Mapping[str, Values],
    answers: Answers,
    classes: Iterable[str],
    right: tuple[int, int] = (0, 0),
) -> Reference:
    """Return the reference of a model.

    inputs: values for each of INPUTS, of training images. answers: to images that it was not trained on. right: how
    many test images were answered right, and how many there are, where an answer is right or wrong.
    """
    names = tuple(classes)
    weight = WATCHED[problem].weight
    histograms = {}
    values = {**inputs, **answers.columns}
    for name in columns_of(problem, names):
        edges = inner_quantiles(np.round(values[name].values, DECIMALS), N_QUANTILES)
        histograms[name] = Histogram(edges, counts_of(values[name], edges, weight))
    rows = min(REFERENCE_SAMPLE, MAX_SAMPLE_NUMBERS["reference"] // len(names), len(answers.sample))
    # Evenly over the held-out images: they lie in no order that has to do with the answers but that of their names.
    taken = np.linspace(0, len(answers.sample) - 1, rows).astype(np.int64)
    sample = answers.sample[taken].round(ANSWER_DECIMALS)
    return Reference(histograms, names, class_counts_of(answers, weight), sample, *right, problem)


def counts_of(values: Values, edges: NDArray[np.float64], weight: int) -> NDArray[np.int64]:
    """Return how much of the images' weight lies in each bin; of an image with several values, each has a part."""
    parts = np.rint(weight / np.bincount(values.images)[values.images]).astype(np.int64)
    return bin_counts(np.round(values.values, DECIMALS), edges, parts)


def class_counts_of(answers: Answers, weight: int) -> NDArray[np.int64]:
    """Return how much of the images' weight each class has, int64 (n_classes,)."""
    return np.asarray(np.rint(weight * answers.composition).astype(np.int64).sum(axis=0))


def input_statistics(squares: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """Return the PIXEL_STATISTICS of a model's inputs: {name: float64 (n,)}.

    squares: uint8 (n, size, size, 1 or 3), as `kinglet.runtime.preprocessing.square_of` makes them.
    """
    return pixel_statistics(luma(squares))


def empty_sketch(reference: Reference) -> Sketch:
    """Return the sketch of no images."""
    return Sketch(
        0,
        {name: np.zeros_like(histogram.counts) for name, histogram in reference.columns.items()},
        np.zeros_like(reference.class_counts),
        np.empty((0, len(reference.classes)), np.float32),
    )


def sketch_of_statistics(
    reference: Reference,
    statistics: dict[str, NDArray[np.float64]],
    sizes: NDArray[np.int64],
    probabilities: NDArray[np.float32],
) -> Sketch:
    """Return the sketch of some images and a classifier's answers to them, without a sample.

    statistics: as `input_statistics` gives them. sizes: int64 (n_sized, 2), width and height of those that came as
    images. probabilities: float32 (n, n_classes).
    """
    inputs = {**statistics, "width": sizes[:, 0].astype(np.float64), "height": sizes[:, 1].astype(np.float64)}
    return sketch_of_values(
        reference, {name: one_each(values) for name, values in inputs.items()}, class_answers(probabilities)
    )


def sketch_of_values(reference: Reference, inputs: Mapping[str, Values], answers: Answers) -> Sketch:
    """Return the sketch of images from their values in each of INPUTS and the answers to them, without a sample."""
    values, weight = {**inputs, **answers.columns}, reference.watched.weight
    return Sketch(
        len(answers.composition),
        {name: counts_of(values[name], histogram.edges, weight) for name, histogram in reference.columns.items()},
        class_counts_of(answers, weight),
        np.empty((0, len(reference.classes)), np.float32),
    )


def merged(first: Sketch, second: Sketch) -> Sketch:
    """Return the sketch of two streams together; both over the bins of one reference."""
    return Sketch(
        first.n_images + second.n_images,
        {name: counts + second.columns[name] for name, counts in first.columns.items()},
        first.class_counts + second.class_counts,
        np.concatenate([first.sample, second.sample]),
    )


def read_reference(path: Path) -> Reference:
    """Return the reference in a file; raises KingletError that names it if it is none, or of a newer format."""
    return reference_from(path.read_bytes(), str(path))


def reference_from(content: bytes, origin: str) -> Reference:
    """Return the reference in the bytes of a file; origin: how an error calls it."""
    fields = read_fields(content, origin)
    try:
        classes = tuple(map(str, fields["classes"]))
        problem = str(fields.get("problem", bundles.CLASSIFICATION))
        columns = {
            name: Histogram(
                np.array(fields["columns"][name]["edges"], np.float64),
                whole_numbers(fields["columns"][name]["counts"]),
            )
            for name in columns_of(problem, classes)
        }
        found = Reference(
            columns,
            classes,
            whole_numbers(list(fields["classes"].values())),
            np.array(fields["sample"], np.float32).reshape(-1, len(fields["classes"])),
            int(fields["test"]["right"]),
            int(fields["test"]["images"]),
            problem,
        )
        if any(len(histogram.counts) != 2 * len(histogram.edges) + 1 for histogram in columns.values()):
            raise ValueError("edges and counts do not match")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise damaged(origin, "reference of a bundle", error) from None
    return found


def sketch_from(content: bytes, origin: str, reference: Reference) -> Sketch:
    """Return the sketch in the bytes of a file; raises KingletError if it is none, or of other bins."""
    fields = read_fields(content, origin)
    try:
        found = Sketch(
            int(fields["images"]),
            {name: whole_numbers(fields["columns"][name]) for name in reference.columns},
            whole_numbers(fields["classes"]),
            np.array(fields["sample"], np.float32).reshape(-1, len(reference.classes)),
        )
        shapes = [(counts, reference.columns[name].counts) for name, counts in found.columns.items()]
        if any(a.shape != b.shape for a, b in [*shapes, (found.class_counts, reference.class_counts)]):
            raise ValueError("its bins are not those of the reference")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise damaged(origin, "sketch", error) from None
    return found


def read_fields(content: bytes, origin: str) -> dict[str, Any]:
    """Return the JSON object in the bytes of a file whose format is known."""
    try:
        fields = json.loads(content)
        found = fields["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(origin, "sketch or reference", error) from None
    if found != FORMAT:
        raise other_format(origin, found, FORMAT)
    return dict(fields)


def whole_numbers(values: Any) -> NDArray[np.int64]:
    """Return counts as int64 (n,); raises ValueError for what is none."""
    found = np.array(values)
    if found.ndim != 1 or found.dtype.kind != "i" or (found < 0).any():
        raise ValueError("counts have to be whole numbers of at least 0")
    return found.astype(np.int64)


def damaged(origin: str, kind: str, error: Exception) -> KingletError:
    """Return the sentence for a file that cannot be understood."""
    return KingletError(
        f"{origin} is no {kind} ({type(error).__name__}: {error}).", "Restore the file, or remove it if it is damaged."
    )


def rows_of(sample: NDArray[np.float32]) -> list[list[float]]:
    """Return probabilities as short decimal numbers."""
    return [[round(value, ANSWER_DECIMALS) for value in row] for row in sample.tolist()]
