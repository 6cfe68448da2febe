"""Made clips: a picture that moves over a background, and whose motion alone says the class.

Half-way through a clip the picture is anywhere with the same chance for every class, so that the frame there tells
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Unit steps in pixels of the image, whose rows count downwards.
DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
# Shares of the frame's edge that the picture moves from one frame to the next, the least and the most.
SPEEDS = {"slow": (0.008, 0.016), "fast": (0.032, 0.048)}
STILL = "still"
CLASSES = tuple(sorted([*(f"{direction}-{speed}" for direction in DIRECTIONS for speed in SPEEDS), STILL]))

FEWEST_FRAMES, MOST_FRAMES = 16, 24
# Of the picture's edge, as a share of the frame's.
SMALLEST_PICTURE, LARGEST_PICTURE = 0.3, 0.5
# How far from the frame's middle the picture is in the middle of a clip, as a share of the frame's edge.
MIDDLE_REACH = 0.15
# Of pixels, in 0 to 255.
NOISE_DEVIATION = 2.0


@dataclass(frozen=True)
class Motion:
    """How a picture moves.

    n_frames: of the clip. size: of the picture, in pixels. middle: where its middle is half-way through the clip,
    (x, y) in pixels. step: what it moves from frame to frame, (x, y) in pixels.
    """

    n_frames: int
    size: int
    middle: tuple[float, float]
    step: tuple[float, float]

    def place(self, number: int) -> tuple[float, float]:
        """Return the upper left corner of the picture in a frame, from 0, in pixels."""
        passed = number - (self.n_frames - 1) / 2
        x, y = (middle + passed * step for middle, step in zip(self.middle, self.step, strict=True))
        return x - self.size / 2, y - self.size / 2


def motion_of(label: str, edge: int, random: np.random.Generator) -> Motion:
    """Return a motion of a class, in frames of `edge` pixels; raises KeyError for a label that is not in CLASSES."""
    n_frames = int(random.integers(FEWEST_FRAMES, MOST_FRAMES + 1))
    size = round(edge * float(random.uniform(SMALLEST_PICTURE, LARGEST_PICTURE)))
    x, y = (edge / 2 + edge * random.uniform(-MIDDLE_REACH, MIDDLE_REACH, 2)).tolist()
    direction, _, speed = label.partition("-")
    share = float(random.uniform(*SPEEDS[speed])) if label != STILL else 0.0
    right, down = DIRECTIONS[direction] if label != STILL else (0.0, 0.0)
    return Motion(n_frames, size, (x, y), (right * share * edge, down * share * edge))


def clip_frames(
    picture: NDArray[np.uint8], motion: Motion, edge: int, random: np.random.Generator
) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a clip, uint8 (edge, edge, 3).

    picture: uint8 (height, width, 1 or 3); its contrast, the background and the noise are drawn from `random`.
    """
    background = Image.fromarray(made_background(edge, random))
    contrast, brightness = float(random.uniform(0.6, 1.0)), float(random.uniform(0, 50))
    square = np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture
    shown = Image.fromarray(square).resize((motion.size, motion.size), Image.Resampling.BILINEAR)
    shown = Image.fromarray(np.rint(np.asarray(shown) * contrast + brightness).clip(0, 255).astype(np.uint8))
    whole = Image.new("L", shown.size, 255)
    for number in range(motion.n_frames):
        left, top = motion.place(number)
        # Between two pixels a picture is on both: motion is slower than a pixel a frame.
        moved = [
            image.transform((edge, edge), Image.Transform.AFFINE, (1, 0, -left, 0, 1, -top), Image.Resampling.BILINEAR)
            for image in (shown, whole)
        ]
        frame = np.asarray(Image.composite(moved[0], background, moved[1]), np.float32)
        noise = random.normal(0, NOISE_DEVIATION, (edge, edge, 1)).astype(np.float32)
        yield np.rint(frame + noise).clip(0, 255).astype(np.uint8)


def made_background(edge: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a soft gray pattern, uint8 (edge, edge, 3)."""
    middle, spread = float(random.uniform(60, 180)), float(random.uniform(10, 50))
    coarse = (middle + spread * random.uniform(-1, 1, (5, 5))).astype(np.float32)
    soft = Image.fromarray(coarse).resize((edge, edge), Image.Resampling.BICUBIC)
    gray = np.rint(np.asarray(soft)).clip(0, 255).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)
