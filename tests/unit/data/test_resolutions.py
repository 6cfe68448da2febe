"""The sizes that "auto" stands for."""

from __future__ import annotations

import pytest

from kinglet.data.resolutions import low_resolution, student_size, teacher_size


@pytest.mark.parametrize(
    ("short_side", "teacher", "low", "student"),
    [
        (0, 48, 48, 16),  # no image says its size
        (8, 48, 48, 16),
        (28, 48, 48, 28),  # Fashion-MNIST, MNIST
        (32, 48, 48, 32),  # CIFAR
        (33, 64, 64, 32),
        (64, 96, 64, 64),
        (96, 128, 80, 64),
        (256, 128, 80, 64),
        (4000, 128, 80, 64),
    ],
)
def test_sizes_follow_the_short_side_within_their_limits(short_side: int, teacher: int, low: int, student: int) -> None:
    assert teacher_size(short_side) == teacher
    assert low_resolution(teacher) == low
    assert student_size(short_side) == student
