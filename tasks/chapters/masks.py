"""The chapter `masks`: test images, their true masks, those of the teacher and the chosen model, and what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kinglet.evidence.segmentation_scores import MaskCounts
from kinglet.runtime.preprocessing import placement
from kinglet.runtime.segmentation import VOID, Mask
from tasks.chapters.pictures import inside_of, jpeg_uri, palette_uri
from tasks.segmentation_answers import MASKS
from tasks.true_masks import MaskedImages, read_mask

# Colours that stay apart on photographs, those of the server's page; a class takes the one of its number, and after the
# last they begin anew.
COLOURS = (
    (242, 163, 58),
    (63, 167, 240),
    (226, 85, 122),
    (84, 194, 113),
    (176, 124, 240),
    (232, 212, 77),
    (63, 201, 192),
    (240, 124, 77),
)
# How much of the photo a class hides, and a wrong pixel, of 255.
CLASS_OPACITY, WRONG_OPACITY = 130, 215
WRONG = (255, 60, 50)
NOTHING = (0, 0, 0, 0)


def chapter(
    names: list[str],
    counts: dict[str, MaskCounts],
    images: MaskedImages,
    classes: list[str],
    packed: NDArray[np.uint8],
    fit: str,
    count: int,
) -> dict[str, Any]:
    """Return what the chapter shows: the images of which the last model has the greatest share wrong, and all models.

    counts: {model: what its masks of the test images are worth}. packed: what images.rows point into. fit: how images
    became square. count: images shown at most.
    """
    shares = {name: wrong_share(counts[name]) for name in names}
    order = np.lexsort((images.rows, -shares[names[-1]]))[:count].tolist()
    return {
        "names": names,
        "n_images": len(images),
        "classes": [{"label": label, "colour": hexadecimal(number)} for number, label in enumerate(classes)],
        "pictures": [
            {
                **pictures_of(place, names, images, len(classes), packed[images.rows[place]], fit),
                "shares": [{"name": name, "wrong": float(shares[name][place])} for name in names],
            }
            for place in order
        ],
    }


def wrong_share(counts: MaskCounts) -> NDArray[np.float64]:
    """Return the share of every image's labelled pixels that are wrong, float64 (n_images,); 0 without any."""
    labelled = counts.pixels.sum(axis=1)
    wrong = labelled - np.trace(counts.confusions, axis1=1, axis2=2)
    return np.divide(wrong, labelled, out=np.zeros(len(counts)), where=labelled > 0)


def hexadecimal(number: int) -> str:
    """Return the colour of a class as CSS writes it."""
    return "#" + "".join(f"{channel:02x}" for channel in COLOURS[number % len(COLOURS)])


def pictures_of(
    place: int, names: list[str], images: MaskedImages, n_classes: int, square: NDArray[np.uint8], fit: str
) -> dict[str, Any]:
    """Return one image without the borders of its square, and what is laid over it."""
    width, height = images.sizes[place].tolist()
    left, top, right, bottom = inside_of(placement(width, height, len(square), fit)).tolist()
    shown = square[top:bottom, left:right]
    size = (right - left, bottom - top)
    truth = reduced(images.truth(place), size)
    masks = {name: reduced(read_mask(MASKS / name / f"{images.rows[place]}.png"), size) for name in names}
    return {
        "uri": jpeg_uri(shown),
        "width": size[0],
        "height": size[1],
        "path": images.paths[place],
        "layers": [
            {"title": "truth", "uri": class_picture(truth, n_classes)},
            *({"title": name, "uri": class_picture(mask, n_classes)} for name, mask in masks.items()),
            {"title": f"wrong in {names[-1]}", "uri": wrong_picture(truth, masks[names[-1]])},
        ],
    }


def reduced(mask: Mask, size: tuple[int, int]) -> Mask:
    """Return a mask at another width and height, the nearest pixel of each."""
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def class_picture(mask: Mask, n_classes: int) -> str:
    """Return a mask as a transparent layer in the colours of the classes; void shows the photo."""
    numbers = np.where(mask == VOID, n_classes, mask).astype(np.uint8)
    colours = [(*COLOURS[number % len(COLOURS)], CLASS_OPACITY) for number in range(n_classes)]
    return palette_uri(numbers, [*colours, NOTHING])


def wrong_picture(truth: Mask, predicted: Mask) -> str:
    """Return the wrong pixels as a layer; void is never wrong."""
    wrong = ((truth != VOID) & (truth != predicted)).astype(np.uint8)
    return palette_uri(wrong, [NOTHING, (*WRONG, WRONG_OPACITY)])
