"""Sketches: what they count, that they add up, and that a damaged file is named."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinglet.errors import KingletError
from kinglet.runtime.histograms import bin_counts, inner_quantiles
from kinglet.runtime.preprocessing import Preprocessing, denormalize, normalize
from kinglet.runtime.sketches import (
    INPUTS,
    Reference,
    Sketch,
    empty_sketch,
    input_statistics,
    make_reference,
    merged,
    reference_from,
    sketch_from,
    sketch_of_statistics,
)

N = 240
RANDOM = np.random.default_rng(0)
SQUARES = RANDOM.integers(0, RANDOM.integers(2, 256, (N, 1, 1, 1)), (N, 12, 12, 3)).astype(np.uint8)
PIXELS = RANDOM.integers(20, 40, (N, 2))
PROBABILITIES = RANDOM.dirichlet([1, 1, 1], N).astype(np.float32)


def reference() -> Reference:
    columns = {**input_statistics(SQUARES), "width": PIXELS[:, 0] * 1.0, "height": PIXELS[:, 1] * 1.0}
    labels = PROBABILITIES.argmax(axis=1)
    labels[:60] = (labels[:60] + 1) % 3
    return make_reference(columns, PROBABILITIES, labels, np.arange(N) < 120, ["cat", "dog", "yak"])


REFERENCE = reference()


def same(first: Sketch, second: Sketch) -> bool:
    return first.to_dict() == second.to_dict()


def test_bins_hold_what_lies_below_on_and_between_edges() -> None:
    assert bin_counts(np.array([0.5, 1, 1, 1.5, 2, 3]), np.array([1.0, 2.0])).tolist() == [1, 2, 1, 1, 1]
    assert bin_counts(np.array([3.0]), inner_quantiles(np.empty(0), 10)).tolist() == [1]


def test_the_reference_counts_its_own_images_and_right_answers_to_test_images() -> None:
    assert set(REFERENCE.columns) == {*INPUTS, "confidence"}
    for histogram in REFERENCE.columns.values():
        assert histogram.counts.sum() == N
    assert REFERENCE.columns["brightness"].counts.max() <= N / 10
    assert (REFERENCE.n_right, REFERENCE.n_test) == (60, 120)
    assert REFERENCE.class_counts.tolist() == np.bincount(PROBABILITIES.argmax(axis=1)).tolist()
    assert len(REFERENCE.sample) == N


def test_a_reference_and_a_sketch_come_back_from_their_files() -> None:
    again = reference_from(json.dumps(REFERENCE.to_dict()).encode(), "reference.json")
    assert again.to_dict() == REFERENCE.to_dict()
    sketch = sketch_of_statistics(REFERENCE, input_statistics(SQUARES[:9]), PIXELS[:9], PROBABILITIES[:9])
    sampled = Sketch(sketch.n_images, sketch.columns, sketch.class_counts, PROBABILITIES[:4].round(4))
    assert same(sketch_from(json.dumps(sampled.to_dict()).encode(), "a", REFERENCE), sampled)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, N), max_size=5))
def test_sketches_of_parts_add_up_to_the_sketch_of_all(cuts: list[int]) -> None:
    edges = sorted({0, N, *cuts})
    total = empty_sketch(REFERENCE)
    for start, end in itertools.pairwise(edges):
        part = slice(start, end)
        total = merged(
            total, sketch_of_statistics(REFERENCE, input_statistics(SQUARES[part]), PIXELS[part], PROBABILITIES[part])
        )
    assert same(total, sketch_of_statistics(REFERENCE, input_statistics(SQUARES), PIXELS, PROBABILITIES))
    for name in INPUTS:
        assert total.columns[name].tolist() == REFERENCE.columns[name].counts.tolist()


def test_images_that_came_as_tensors_have_no_size_and_the_same_pixels() -> None:
    facts = Preprocessing(12, 3, "stretch", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (denormalize(normalize(SQUARES, facts), facts) == SQUARES).all()
    sketch = sketch_of_statistics(REFERENCE, input_statistics(SQUARES), np.empty((0, 2), np.int64), PROBABILITIES)
    assert sketch.columns["width"].sum() == 0
    assert sketch.columns["brightness"].sum() == N
    with np.errstate(all="raise"):
        assert denormalize(np.full((1, 3, 12, 12), 3e38, np.float32), facts).max() == 255


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda fields: fields.pop("format"), "no sketch or reference"),
        (lambda fields: fields.update(format=2), "of format 2; this version of Kinglet reads format 1"),
        (lambda fields: fields.pop("columns"), "no sketch"),
        (lambda fields: fields["columns"].update(width=[1, 2]), "its bins are not those of the reference"),
        (lambda fields: fields["columns"]["width"].__setitem__(0, -1), "whole numbers of at least 0"),
        (lambda fields: fields.update(classes=[0.5, 1, 2]), "whole numbers"),
        (lambda fields: fields.update(sample=[[0.5]]), "no sketch"),
    ],
)
def test_a_damaged_sketch_is_named(change, said: str) -> None:
    fields = sketch_of_statistics(REFERENCE, input_statistics(SQUARES), PIXELS, PROBABILITIES).to_dict()
    change(fields)
    with pytest.raises(KingletError, match=said) as error:
        sketch_from(json.dumps(fields).encode(), "sketch-7.json", REFERENCE)
    assert error.value.message.startswith("sketch-7.json is ")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff", b'{"format": 1}', b'{"format": 1, "columns": {}, "classes": 3}']
)
def test_a_damaged_reference_is_named(content: bytes) -> None:
    with pytest.raises(KingletError, match=r"reference\.json is no "):
        reference_from(content, "reference.json")
