"""What a detector found in some images beside what there was to find, of several parts of a data set as one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kinglet.evidence.detection_matches import Objects


@dataclass(frozen=True)
class Found:
    """The objects of n_images images, and what a detector found there; `images` of both counts these images."""

    truths: Objects
    found: Objects
    n_images: int


def together(parts: list[Found]) -> Found:
    """Return what was found in the images of several parts, one behind the other."""
    starts = np.cumsum([0, *(part.n_images for part in parts)])
    truths, found = (
        concatenated([replace(one, images=one.images + start) for one, start in zip(objects, starts[:-1], strict=True)])
        for objects in ([part.truths for part in parts], [part.found for part in parts])
    )
    return Found(truths, found, int(starts[-1]))


def concatenated(parts: list[Objects]) -> Objects:
    """Return the objects of several tables as one; they all have scores, or none has."""
    scores = [part.scores for part in parts if part.scores is not None]
    return Objects(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.xyxy for part in parts]),
        np.concatenate(scores) if scores else None,
    )
