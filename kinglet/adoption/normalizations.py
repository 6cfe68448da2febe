"""How classifiers expect their pixels scaled, and which of the usual ways a given one was trained with.

A file of another tool does not say. A classifier given wrongly scaled pixels still answers, only worse, so the way
under which it is right most often is the one, as far as the images can tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinglet.evidence.bootstrap import Interval, accuracy_interval, paired_interval


@dataclass(frozen=True)
class Normalization:
    """What is taken off the pixels in [0, 1] and what they are divided by; one value per channel, red first.

    blue_first: whether the network takes the channels the other way round (`red_first` turns it).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    blue_first: bool = False

    def of_channels(self, channels: int) -> Normalization:
        """Return it for this many channels: of a gray image the mean of what colours have."""
        if channels == len(self.mean):
            return self
        return Normalization((float(np.mean(self.mean)),), (float(np.mean(self.std)),))


# A new one is a line here; `--preprocessing` takes its names from the keys.
NORMALIZATIONS: dict[str, Normalization] = {
    # torchvision and timm, from the images of ImageNet.
    "imagenet": Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # Pixels in [0, 1].
    "unit": Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    # Pixels in [-1, 1]: Keras' "tf" mode, Inception, MobileNet.
    "minus-one-one": Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    # Pixels in [0, 255], for networks that scale them themselves.
    "raw255": Normalization((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    # OpenAI's CLIP and what was trained from it.
    "clip": Normalization((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    # Caffe's networks and Keras' "caffe" mode: pixels in [0, 255] less their mean.
    "caffe": Normalization((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255), True),
}
# Other names for one of them.
ALIASES = {"inception": "minus-one-one", "tf": "minus-one-one", "torch": "imagenet"}
# Mean and standard deviation of the images themselves, as many train small networks.
OWN = "own"


def own_normalization(images: NDArray[np.uint8]) -> Normalization:
    """Return mean and standard deviation of the pixels of these images, by channel.

    images: uint8 (n, height, width, channels).
    """
    pixels = images.reshape(-1, images.shape[3]).astype(np.float64) / 255
    std = np.maximum(pixels.std(0), 1e-3)
    return Normalization(tuple(pixels.mean(0).round(4).tolist()), tuple(std.round(4).tolist()))


@dataclass(frozen=True)
class Discovery:
    """Under which normalization a model is right most often.

    accuracies: of all tried, the best first, with their intervals. second: the next best, None where one was
    tried. lead: accuracy of the best minus that of the second on the same images.
    """

    best: str
    accuracies: dict[str, Interval]
    second: str | None
    lead: Interval | None
    n_images: int

    @property
    def is_certain(self) -> bool:
        """Whether the images can tell the best from the second."""
        return self.lead is None or self.lead.low > 0


def discover(logits: Mapping[str, NDArray[np.float32]], labels: NDArray[np.int64]) -> Discovery:
    """Return which normalization suits a model.

    logits: float32 (n, n_classes) of the same images under each normalization. labels: int64 (n,). Of equally
    accurate ones the one with the higher mean probability of the label goes first, then the first of the mapping.
    Raises ValueError without images.
    """
    correct = {name: answers.argmax(1) == labels for name, answers in logits.items()}
    order = sorted(logits, key=lambda name: (-int(correct[name].sum()), -_mean_probability(logits[name], labels)))
    # The images' own scale is a guess that is nearly right for most: it takes the lead only where that is certain.
    if order[0] == OWN and len(order) > 1 and paired_interval(correct[OWN], correct[order[1]]).low <= 0:
        order[:2] = order[1::-1]
    second = order[1] if len(order) > 1 else None
    return Discovery(
        order[0],
        {name: accuracy_interval(correct[name]) for name in order},
        second,
        paired_interval(correct[order[0]], correct[second]) if second else None,
        len(labels),
    )


def _mean_probability(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the mean probability of the label; -1 where a model gives no numbers under wrongly scaled pixels."""
    if not np.isfinite(logits).all():
        return -1.0
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    odds = np.exp(shifted)
    return float((odds[np.arange(len(labels)), labels] / odds.sum(1)).mean())
