"""Which resolution suits a data set, from the size that its images have."""

from __future__ import annotations

import math

# Networks pretrained at 224 pixels learn a 28-pixel picture better when it is enlarged; beyond twice that
# size, and beyond 128 pixels for photographs, accuracy grows far more slowly than the time of a training.
ENLARGEMENT = 1.5
SMALLEST_TEACHER, LARGEST_TEACHER = 48, 128
SMALLEST_STUDENT, LARGEST_STUDENT = 16, 64
TEACHER_STEP, STUDENT_STEP = 16, 4
# A first part of the training at two thirds of the edge costs less than half as much per image, where that is
# 64 pixels or more: a network that halves its maps five times has a single pixel left below that.
# Source: Tan and Le 2021, "EfficientNetV2", section 4 (progressive learning).
LOW_RESOLUTION = 2 / 3
SMALLEST_LOW_RESOLUTION = 64


def teacher_size(short_side: int) -> int:
    """Return the edge in pixels at which a pretrained network takes images of this short side: 48 to 128."""
    enlarged = -(-int(short_side * ENLARGEMENT) // TEACHER_STEP) * TEACHER_STEP
    return min(max(enlarged, SMALLEST_TEACHER), LARGEST_TEACHER)


def student_size(short_side: int) -> int:
    """Return the edge in pixels for a small student: the images' own where that is at most 64, never below 16."""
    return min(max(short_side // STUDENT_STEP * STUDENT_STEP, SMALLEST_STUDENT), LARGEST_STUDENT)


def low_resolution(input_size: int) -> int:
    """Return the edge in pixels for the first, cheaper part of a training; `input_size` where there is none."""
    low = round(input_size * LOW_RESOLUTION / TEACHER_STEP) * TEACHER_STEP
    return low if low >= SMALLEST_LOW_RESOLUTION else input_size


# A detector's finest feature map has a step of 8 pixels: a small object should cover more than three of its cells. Time
# grows with the area, so that the smallest objects of large photographs remain a matter of `finetune.input_size`.
SMALL_OBJECT = 26
SMALLEST_DETECTOR, LARGEST_DETECTOR = 192, 416
DETECTOR_STEP = 32


def detector_size(small_share: float, long_side: int) -> int:
    """Return the edge in pixels at which a detector takes images: a multiple of 32 from 192 to 416.

    small_share: how large a small object is, as a share of its image's long side, above 0 and at most 1. long_side:
    the images' usual one in pixels, beyond which nothing is gained.
    """
    wanted = min(SMALL_OBJECT / small_share, max(long_side, SMALLEST_DETECTOR), LARGEST_DETECTOR)
    return max(math.ceil(wanted / DETECTOR_STEP) * DETECTOR_STEP, SMALLEST_DETECTOR)


def low_resolution_of_detector(input_size: int) -> int:
    """Return the edge in pixels, a multiple of 32, for the first, cheaper part of a detector's training."""
    return _two_thirds(input_size)


# Masks have details of a few pixels, which smaller pictures do not show. Time grows with the area, so that the
# details of large photographs remain a matter of `finetune.input_size`.
SMALLEST_SEGMENTER, LARGEST_SEGMENTER = 192, 512


def segmenter_size(long_side: int) -> int:
    """Return the edge in pixels at which a segmenter takes images: about their own long side, a multiple of 32."""
    return _multiple(min(long_side, LARGEST_SEGMENTER), DETECTOR_STEP, SMALLEST_SEGMENTER)


# A network without a look at the whole image learns as much from the pixels of windows as from those of whole images,
# and from more different ones for its time. Smaller windows than these show too little around a place.
SMALLEST_WINDOW = 128


def window_of_segmenter(input_size: int) -> int:
    """Return the edge in pixels, a multiple of 32, of the windows that the first part of a segmenter's training shows.

    Half of `input_size`, 128 at least; `input_size` itself where that is less.
    """
    return min(_multiple(input_size / 2, DETECTOR_STEP, SMALLEST_WINDOW), input_size)


def smallest_taught_segmenter(teacher: int) -> int:
    """Return the least edge in pixels, a multiple of 32, of whole images that a segmenter answers for its students.

    Two thirds of its own: what trains it on other scales goes about so far down.
    """
    return _two_thirds(teacher)


# Below three quarters of a picture's own size, and half of a pretrained network's, accuracy falls fast.
RESIDUAL_SHARES = (0.75, 1.0)
BACKBONE_SHARES = (0.5, 0.625, 0.75, 1.0)
SMALLEST_BACKBONE = 32


def residual_sizes(student: int) -> list[int]:
    """Return the edges in pixels that a search tries for plain residual networks, ascending."""
    return sorted({_multiple(student * share, STUDENT_STEP, SMALLEST_STUDENT) for share in RESIDUAL_SHARES})


def backbone_sizes(teacher: int) -> list[int]:
    """Return the edges in pixels that a search tries for the teacher's own network, ascending, up to `teacher`."""
    shares = (_multiple(teacher * share, TEACHER_STEP, SMALLEST_BACKBONE) for share in BACKBONE_SHARES)
    return sorted({min(size, teacher) for size in shares})


# At half the edge a network takes a quarter of the multiplications: as many as without half of its channels.
RIVAL_SHARES = (7 / 8, 3 / 4, 5 / 8, 1 / 2)


def rival_sizes(size: int) -> list[int]:
    """Return smaller edges in pixels, ascending, at which a whole network may be as fast as without channels."""
    sizes = {_multiple(size * share, STUDENT_STEP, SMALLEST_STUDENT) for share in RIVAL_SHARES}
    return sorted(smaller for smaller in sizes if smaller < size)


def _two_thirds(size: int) -> int:
    return min(_multiple(size * LOW_RESOLUTION, DETECTOR_STEP, DETECTOR_STEP), size)


def _multiple(pixels: float, of: int, at_least: int) -> int:
    return max(at_least, round(pixels / of) * of)
