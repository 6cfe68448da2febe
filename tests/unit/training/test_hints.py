"""Hints and attention: distances computed by hand, which maps belong together, and students that learn from them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from kinglet.data.views import Shown
from kinglet.models.feature_maps import feature_maps
from kinglet.training.hints import (
    ATTENTION,
    FEATURES,
    HINTS,
    attention_distance,
    feature_distance,
    guide,
    hinted_loss,
    kept_maps,
    pairs_of_maps,
)
from tests.unit.models.small_networks import NETWORKS, inverted_residual, residual_cnn


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pooled(maps: np.ndarray, edge: int) -> np.ndarray:
    """Return maps (n, c, h, w) averaged over windows of equal size."""
    n, channels, size, _ = maps.shape
    return maps.reshape(n, channels, edge, size // edge, edge, size // edge).mean((3, 5))


@pytest.mark.parametrize(("student_edge", "teacher_edge"), [(4, 4), (4, 2), (2, 4)])
def test_feature_distance_equals_the_share_of_the_mean_square_that_is_missed(
    student_edge: int, teacher_edge: int
) -> None:
    student, teacher = random(3, 5, student_edge, student_edge), random(3, 5, teacher_edge, teacher_edge, seed=1)
    edge = min(student_edge, teacher_edge)
    own, other = (pooled(maps.numpy(), edge) for maps in (student, teacher))
    expected = ((own - other) ** 2).mean() / (other**2).mean()
    assert feature_distance(student, teacher).item() == pytest.approx(expected)
    assert feature_distance(torch.zeros_like(student), teacher).item() == pytest.approx(1)
    assert feature_distance(other_ := torch.from_numpy(other), other_).item() == 0


@pytest.mark.parametrize(("student_edge", "teacher_edge"), [(4, 4), (4, 2), (2, 4)])
def test_attention_distance_equals_hand_computed_angles(student_edge: int, teacher_edge: int) -> None:
    student = random(3, 5, student_edge, student_edge)
    teacher = random(3, 1, teacher_edge, teacher_edge, seed=1).square()
    edge = min(student_edge, teacher_edge)
    expected = 0.0
    for own, other in zip(
        pooled((student.numpy() ** 2).mean(1, keepdims=True), edge), pooled(teacher.numpy(), edge), strict=True
    ):
        lengths = [np.sqrt((one**2).sum()) for one in (own, other)]
        expected += ((own / lengths[0] - other / lengths[1]) ** 2).sum() / 2 / 3
    assert attention_distance(student, teacher).item() == pytest.approx(expected)


def test_attention_minds_places_and_neither_channels_nor_scale() -> None:
    maps = random(2, 6, 4, 4)
    (kept,) = kept_maps(ATTENTION, [maps])
    assert kept.shape == (2, 1, 4, 4)
    torch.testing.assert_close(kept.square().sum((1, 2, 3)), torch.ones(2, dtype=torch.float64))
    assert attention_distance(7 * maps[:, [5, 3, 1, 0, 2, 4]], kept).item() == pytest.approx(0, abs=1e-12)
    assert attention_distance(maps.flip(3), kept).item() > 0.05


@pytest.mark.parametrize(
    ("edges", "kind", "expected"),
    [
        # The finest is left out; of the others the middle one, the finer of two.
        ([24, 12, 6, 3, 2], FEATURES, [6]),
        ([24, 12, 6, 3], FEATURES, [6]),
        ([8, 4], FEATURES, [4]),
        ([8], FEATURES, [8]),
        # A single place pays attention to nothing.
        ([16, 8, 4, 2, 1], ATTENTION, [8, 4, 2]),
        ([8], ATTENTION, [8]),
    ],
)
def test_kept_maps_are_those_that_students_need(edges: list[int], kind: str, expected: list[int]) -> None:
    maps = [random(2, 3, edge, edge) for edge in edges]
    assert [one.shape[2] for one in kept_maps(kind, maps)] == expected
    if kind == FEATURES:
        assert kept_maps(kind, maps)[0] is maps[edges.index(expected[0])]


@pytest.mark.parametrize(
    ("kind", "student", "teacher", "expected"),
    [
        (ATTENTION, [14, 7, 4], [12, 6, 3, 2], [(0, 0), (1, 1), (2, 2)]),
        (ATTENTION, [14, 7, 4, 1], [3], [(0, 0), (1, 0), (2, 0)]),
        (ATTENTION, [8], [16, 4], [(0, 1)]),  # as near: the coarser
        (FEATURES, [14, 7, 4], [6], [(1, 0)]),
        (FEATURES, [8, 2], [4], [(1, 0)]),
    ],
)
def test_maps_nearest_in_size_belong_together(
    kind: str, student: list[int], teacher: list[int], expected: list[tuple[int, int]]
) -> None:
    assert pairs_of_maps(kind, student, teacher) == expected


SHOWN = Shown(torch.tensor([2, 0]), torch.tensor([1, 0]), torch.tensor([2, 0]), torch.ones(2))


@pytest.mark.parametrize("kind", list(HINTS))
def test_hints_are_added_to_the_answers_by_their_weight_and_belong_to_what_is_shown(kind: str) -> None:
    channels = 5 if kind == FEATURES else 1
    teacher = [random(3, 2, channels, edge, edge, seed=edge).numpy() ** 2 for edge in (4, 2)]
    logits, maps = random(2, 3), [random(2, 5, 4, 4, seed=7), random(2, 5, 4, 4, seed=8)]
    loss = hinted_loss(lambda answers, shown: answers.sum() + shown.views.sum(), kind, teacher, 0.25)
    distances = [
        HINTS[kind](one, torch.from_numpy(np.stack([seen[2, 1], seen[0, 0]]))).item()
        for one, seen in zip(maps, teacher, strict=True)
    ]
    expected = logits.sum().item() + 1 + 0.25 * np.mean(distances)
    assert loss((logits, *maps), SHOWN).item() == pytest.approx(expected)


@pytest.mark.parametrize("family", list(NETWORKS))
@pytest.mark.parametrize("kind", list(HINTS))
def test_guided_student_answers_as_itself_and_shows_maps_like_its_teachers(family: str, kind: str) -> None:
    teacher, student = inverted_residual(seed=1), NETWORKS[family](seed=2)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        kept = kept_maps(kind, feature_maps(teacher, images)[0])
    before = copy.deepcopy(student.state_dict())
    state = torch.get_rng_state()
    guided, places = guide(student, kind, (3, 32, 32), [one.shape[1:3] for one in kept], seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    again, _ = guide(copy.deepcopy(student), kind, (3, 32, 32), [one.shape[1:3] for one in kept], seed=3)
    assert all(torch.equal(a, b) for a, b in zip(guided.parameters(), again.parameters(), strict=True))
    assert torch.equal(guided.eval()(images), student(images))
    logits, *maps = guided.train()(images)
    assert logits.shape == (4, 4)
    assert len(maps) == len(places) >= 1
    for one, place in zip(maps, places, strict=True):
        assert HINTS[kind](one, kept[place]).isfinite()
    if kind == FEATURES:
        assert maps[0].shape[1] == kept[0].shape[1]
    parts = guided.depth_groups()
    assert sum(p.numel() for part in parts for p in part.parameters()) == sum(p.numel() for p in guided.parameters())


@pytest.mark.parametrize("kind", list(HINTS))
def test_a_student_learns_to_see_as_its_teacher(kind: str) -> None:
    teacher, student = inverted_residual(seed=1), residual_cnn(seed=2)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        kept = kept_maps(kind, feature_maps(teacher, images)[0])
    guided, places = guide(student, kind, (3, 32, 32), [one.shape[1:3] for one in kept], seed=0)
    seen = [kept[place][:, None].numpy() for place in places]
    loss = hinted_loss(lambda logits, _: 0 * logits.sum(), kind, seen, 1.0)
    everything = Shown(torch.arange(8), torch.zeros(8, dtype=torch.long), torch.arange(8), torch.ones(8))
    optimizer = torch.optim.Adam(guided.train().parameters(), lr=1e-2)
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        value = loss(guided(images), everything)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.6 * values[0]


def test_a_student_of_an_unknown_family_is_refused() -> None:
    with pytest.raises(TypeError, match="Sequential shows no feature maps"):
        guide(nn.Sequential(nn.Conv2d(3, 4, 3)), FEATURES, (3, 16, 16), [(4, 4)], 0)
