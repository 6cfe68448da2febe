"""Small images of coloured rectangles on gray: what is where can be read off the pixels."""

from __future__ import annotations

import numpy as np

from kinglet.data.boxed_images import BoxedImages, Objects

# The class of a rectangle is its colour.
COLOURS = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
GRAY = 120

GAP = 8


def is_apart(one: list[int], other: list[int]) -> bool:
    """Return whether there are `GAP` pixels between two boxes along x or along y."""
    return any(one[2 + axis] + GAP <= other[axis] or other[2 + axis] + GAP <= one[axis] for axis in (0, 1))


def painted(n_images: int, size: int = 64, border: int = 0, seed: int = 0, smallest: int = 12) -> BoxedImages:
    """Return images with one to three rectangles each, some pixels apart.

    border: in pixels, of black above and below the image.
    """
    generator = np.random.default_rng(seed)
    packed = np.zeros((n_images, size, size, 3), np.uint8)
    packed[:, border : size - border] = GRAY
    objects = []
    for image in packed:
        boxes: list[list[int]] = []
        for _ in range(int(generator.integers(1, 4))):
            width, height = generator.integers(smallest, size // 3, size=2).tolist()
            x = int(generator.integers(0, size - width + 1))
            y = int(generator.integers(border, size - border - height + 1))
            box = [x, y, x + width, y + height]
            if all(is_apart(box, other) for other in boxes):
                boxes.append(box)
        labels = generator.integers(0, len(COLOURS), size=len(boxes))
        for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
            image[y1:y2, x1:x2] = COLOURS[label]
        objects.append(Objects(np.array(boxes, np.float32), labels.astype(np.int64)))
    insides = np.tile(np.array([0, border, size, size - border]), (n_images, 1))
    return BoxedImages(packed, np.arange(n_images), insides, tuple(objects))
