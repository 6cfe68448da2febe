"""Objects in made images and what a made detector finds of them: some well, some badly, some that are not there."""

import numpy as np

from kinglet.evidence.detection_matches import Objects


def boxes_of(generator, n, size):
    """Boxes (n, 4) of small to large areas inside an image of this many pixels."""
    sides = np.exp(generator.uniform(np.log(8), np.log(size / 2), (n, 2)))
    corners = generator.uniform(0, 1, (n, 2)) * (size - sides)
    return np.concatenate([corners, corners + sides], axis=1)


def made_objects(seed, n_images=20, n_classes=3, size=400, most=7):
    """True objects, from none to `most` in an image; the last class is rare."""
    generator = np.random.default_rng(seed)
    images = np.repeat(np.arange(n_images), generator.integers(0, most + 1, n_images))
    labels = generator.choice(n_classes, len(images), p=np.r_[np.full(n_classes - 1, 0.95 / (n_classes - 1)), 0.05])
    return Objects(images, labels, boxes_of(generator, len(images), size))


def made_detections(truths, seed, n_images=20, n_classes=3, size=400, noise=0.06, found=0.85, false=3, step=None):
    """What a detector finds: each object with the chance `found`, moved by noise; `false` others in an image.

    step: rounds the scores, so that there are ties.
    """
    generator = np.random.default_rng([seed, 1])
    hit = generator.random(len(truths)) < found
    sides = np.tile(truths.xyxy[:, 2:] - truths.xyxy[:, :2], 2)
    moved = (truths.xyxy + noise * sides * generator.normal(0, 1, truths.xyxy.shape))[hit]
    n_false = int(false * n_images)
    images = np.concatenate([truths.images[hit], generator.integers(0, n_images, n_false)])
    labels = np.concatenate([truths.labels[hit], generator.integers(0, n_classes, n_false)])
    xyxy = np.concatenate([moved, boxes_of(generator, n_false, size)])
    scores = np.concatenate([generator.beta(4, 2, hit.sum()), generator.beta(2, 4, n_false)])
    scores = scores if step is None else np.round(scores / step) * step
    order = np.argsort(images, kind="stable")
    has_area = (xyxy[order, 2:] > xyxy[order, :2] + 0.5).all(axis=1)
    return Objects(images, labels, xyxy, scores).take(order[has_area])
