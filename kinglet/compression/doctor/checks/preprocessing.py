"""Images prepared in another way than the file wants them: the usual ways are tried on labelled images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kinglet.adoption.normalizations import NORMALIZATIONS
from kinglet.compression.doctor.effects import Effect, difference
from kinglet.compression.doctor.findings import CRITICAL, WARNING, Finding
from kinglet.runtime.preprocessing import Preprocessing, normalize

FITS = ("stretch", "crop", "pad")
# Ways to prepare images are told apart on this many.
PREPROCESSING_IMAGES = 500


@dataclass(frozen=True)
class Way:
    """A way to prepare images: mean, deviation and fit, with the channels as red, green, blue or the reverse."""

    name: str
    preprocessing: Preprocessing
    reverse_channels: bool = False

    def prepare(self, packed: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return packed images, uint8 (n, size, size, channels), as a model's input (n, channels, size, size)."""
        images = packed[..., ::-1] if self.reverse_channels else packed
        return normalize(images, self.preprocessing)


def other_ways(stated: Preprocessing, fits: Mapping[str, NDArray[np.uint8]]) -> list[Way]:
    """Return the usual ways that differ from the stated one in one thing, and every range with reversed channels.

    fits: packed images for every fit that there are images for.
    """
    ways = []
    for name, normalization in NORMALIZATIONS.items():
        usual = normalization.of_channels(stated.channels)
        plain = replace(stated, mean=usual.mean, std=usual.std)
        if not (np.allclose(plain.mean, stated.mean, atol=0.01) and np.allclose(plain.std, stated.std, rtol=0.05)):
            ways.append(Way(f"pixels scaled as {name!r}", plain))
    if stated.channels == 3:
        ways = [*ways, *(Way(f"{way.name}, blue first", way.preprocessing, True) for way in ways)]
        ways.append(Way("blue first", stated, True))
    ways += [Way(f"fit {fit!r}", replace(stated, fit=fit)) for fit in FITS if fit != stated.fit and fit in fits]
    return ways


def check_preprocessing(
    stated: Preprocessing,
    packed: Mapping[str, NDArray[np.uint8]],
    labels: NDArray[np.int64],
    predict: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    tolerance: float,
) -> list[Finding]:
    """Return a finding if the file is right more often on images prepared in another of the usual ways.

    stated: how the file says, or its user, that images are prepared. packed: {fit: uint8 (n, size, size, channels)}.
    labels: int64 (n,). predict: the file's logits for prepared images.
    """
    reference = predict(Way("as stated", stated).prepare(packed[stated.fit]))
    found: list[tuple[Effect, Way]] = []
    for way in other_ways(stated, packed):
        logits = predict(way.prepare(packed[way.preprocessing.fit]))
        found.append((Effect(difference(logits, reference, labels)), way))
    effect, best = max(found, key=lambda item: item[0].accuracy.value)
    if effect.accuracy.low <= 0:
        return []
    stated_accuracy = float((reference.argmax(1) == labels).mean())
    return [
        Finding(
            "preprocessing",
            CRITICAL if effect.accuracy.value > tolerance else WARNING,
            (),
            f"Prepared as stated the file is right on {stated_accuracy:.1%} of the images, with {best.name} on "
            f"{stated_accuracy + effect.accuracy.value:.1%}.",
            {
                "stated": round(stated_accuracy, 6),
                "tried": {way.name: round(stated_accuracy + each.accuracy.value, 6) for each, way in found},
            },
            f"Prepare images with {best.name} wherever the file is served, and calibrate with it.",
            None,
            effect,
        )
    ]
