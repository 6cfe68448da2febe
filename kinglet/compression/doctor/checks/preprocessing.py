"""Images prepared in another way than the file wants them: the usual ways are tried on labelled images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kinglet.adoption.normalizations import NORMALIZATIONS
from kinglet.compression.doctor.effects import Effect, difference
from kinglet.compression.doctor.findings import CRITICAL, WARNING, Finding
from kinglet.runtime.preprocessing import FITS, Preprocessing, normalize

# Ways to prepare images are told apart on this many.
PREPROCESSING_IMAGES = 500


@dataclass(frozen=True)
class Way:
    """A way to prepare images: mean and deviation of every colour, fit, and whether blue comes first."""

    name: str
    preprocessing: Preprocessing
    blue_first: bool = False

    def prepare(self, packed: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return packed images, uint8 (n, size, size, channels), as a model's input (n, channels, size, size)."""
        inputs = normalize(packed, self.preprocessing)
        return np.ascontiguousarray(inputs[:, ::-1]) if self.blue_first else inputs

    def scales_like(self, other: Preprocessing) -> bool:
        """Whether pixels are scaled as the other says, as far as anybody would notice."""
        own = self.preprocessing
        return np.allclose(own.mean, other.mean, atol=0.01) and np.allclose(own.std, other.std, rtol=0.05)


def other_ways(stated: Way, fits: Mapping[str, NDArray[np.uint8]]) -> list[Way]:
    """Return the usual scales, each with red and with blue first, and the stated one with other fits.

    fits: packed images for every fit that there are images for.
    """
    known = stated.preprocessing
    scales = [Way("the stated scale", known)]
    for name, normalization in NORMALIZATIONS.items():
        usual = normalization.of_channels(known.channels)
        way = Way(f"pixels scaled as {name!r}", replace(known, mean=usual.mean, std=usual.std))
        scales += [] if any(way.scales_like(other.preprocessing) for other in scales) else [way]
    orders = (False, True) if known.channels == 3 else (False,)
    ways = [
        replace(
            way,
            name=f"{way.name}, {'blue' if blue_first else 'red'} first" if len(orders) > 1 else way.name,
            blue_first=blue_first,
        )
        for way in scales
        for blue_first in orders
        if (way.preprocessing, blue_first) != (known, stated.blue_first)
    ]
    return ways + [
        Way(f"fit {fit!r}", replace(known, fit=fit), stated.blue_first)
        for fit in FITS
        if fit != known.fit and fit in fits
    ]


def check_preprocessing(
    stated: Way,
    packed: Mapping[str, NDArray[np.uint8]],
    labels: NDArray[np.int64],
    predict: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    tolerance: float,
) -> list[Finding]:
    """Return a finding if the network is right more often on images prepared in another of the usual ways.

    stated: how the file says, or its user, that images are prepared. packed: {fit: uint8 (n, size, size, channels)}.
    labels: int64 (n,). predict: logits for prepared images; better the float file's, since what rounding spoils may
    happen to be spoilt less by odd images. The intervals are wider the more ways are tried (Bonferroni): that any
    of them looks better by chance stays at 1 in 40.
    """
    reference = predict(stated.prepare(packed[stated.preprocessing.fit]))
    found: list[tuple[Effect, Way]] = []
    ways = other_ways(stated, packed)
    for way in ways:
        logits = predict(way.prepare(packed[way.preprocessing.fit]))
        found.append((Effect(difference(logits, reference, labels, 1 - 0.05 / len(ways))), way))
    effect, best = max(found, key=lambda item: item[0].accuracy.value)
    if effect.accuracy.low <= 0:
        return []
    stated_accuracy = float((reference.argmax(1) == labels).mean())
    return [
        Finding(
            "preprocessing",
            CRITICAL if effect.accuracy.value > tolerance else WARNING,
            (),
            f"Prepared as stated the network is right on {stated_accuracy:.1%} of the images, with {best.name} on "
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
