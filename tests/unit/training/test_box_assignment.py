"""Which places learn which object, on cases small enough to work out by hand."""

from __future__ import annotations

import pytest
import torch

from kinglet.models.detector import places
from kinglet.training.box_assignment import N_CANDIDATES, NO_OBJECT, assign, lie_inside, pairwise_iou

CENTRES = torch.tensor([[2.0, 2.0], [6.0, 2.0], [2.0, 6.0], [6.0, 6.0]])


def test_overlaps_are_those_of_rectangles() -> None:
    one = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 2.0, 2.0]])
    other = torch.tensor([[2.0, 0.0, 6.0, 4.0], [4.0, 4.0, 5.0, 5.0], [0.0, 0.0, 4.0, 4.0]])
    expected = [[8 / 24, 0.0, 1.0], [0.0, 0.0, 4 / 16]]
    torch.testing.assert_close(pairwise_iou(one, other), torch.tensor(expected))


def test_a_place_learns_what_its_centre_lies_in_and_a_box_without_one_takes_the_nearest() -> None:
    boxes = torch.tensor([[0.0, 0.0, 8.0, 4.0], [4.5, 4.5, 5.5, 5.5]])
    assert lie_inside(CENTRES, boxes).tolist() == [[True, True, False, False], [False, False, False, True]]


def test_the_best_place_should_say_its_overlap_and_the_others_less() -> None:
    target = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 6.0], [0.0, 0.0, 8.0, 4.0], [0.0, 0.0, 4.0, 4.0]])
    scores = torch.tensor([[0.5, 0.9], [0.5, 0.9], [0.25, 0.9], [0.5, 0.9]])
    assigned = assign(scores, boxes, CENTRES, target, torch.tensor([0]))
    assert assigned.objects.tolist() == [0, 0, 0, 0]
    overlaps = torch.tensor([1.0, 0.75, 0.5, 0.25])
    alignment = scores[:, 0] * overlaps**6
    torch.testing.assert_close(assigned.quality, alignment / 0.5)


def test_a_place_that_two_objects_want_takes_the_one_that_it_overlaps_more() -> None:
    targets = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 4.0, 4.0]])
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 8.0], [20.0, 20.0, 24.0, 24.0]])
    scores = torch.full((4, 2), 0.5)
    assigned = assign(scores, boxes, CENTRES, targets, torch.tensor([0, 1]))
    assert assigned.objects.tolist() == [1, 0, 0, 0]
    torch.testing.assert_close(assigned.quality, torch.tensor([1.0, 1.0, 1.0, 0.0]))


def test_no_more_places_than_candidates_learn_one_object() -> None:
    centres, _ = places(96)
    boxes = torch.cat([centres - 40, centres + 40], 1)
    assigned = assign(
        torch.full((len(centres), 1), 0.1), boxes, centres, torch.tensor([[0.0, 0.0, 96.0, 96.0]]), torch.tensor([0])
    )
    chosen = assigned.objects != NO_OBJECT
    assert int(chosen.sum()) == N_CANDIDATES
    middle = (centres[chosen] - 48).abs().amax()
    assert middle <= 16  # those whose boxes fit best lie around its middle
    assert (assigned.quality[~chosen] == 0).all()


@pytest.mark.parametrize("n_places", [4, 84])
def test_an_image_without_objects_teaches_no_place(n_places: int) -> None:
    boxes = torch.rand(n_places, 4)
    assigned = assign(
        torch.rand(n_places, 3), boxes, torch.rand(n_places, 2), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    )
    assert (assigned.objects == NO_OBJECT).all()
    assert (assigned.quality == 0).all()
