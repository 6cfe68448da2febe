"""The model behind the server: opened, verified against its checksums and golden answers, and known by name."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.decoding import ImageFacts, TooManyPixelsError, decode
from kinglet.runtime.predictors import AnyPredictor, open_predictor
from kinglet.runtime.preprocessing import TILE, model_input, square_of
from kinglet.runtime.tiles import seen_tiles

VERSION_DIGITS = 12
DEFAULT_NAME = "model"
# How often one image is computed to learn how long that takes.
WARM_UPS = 7
# Of one image: what the model answers to all of them is in memory at once.
MOST_TILES = 256


@dataclass(frozen=True)
class InputFormat:
    """A model's input in the words of the Open Inference Protocol.

    datatype: "FP32" for prepared images, "UINT8" for pixels. shape: of one image, (channels, height, width), or
    (height, width, channels) for pixels.
    """

    datatype: str
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class ServedModel:
    """A model that has proved to answer as the machine that made it.

    name: what it is called in /v2. version: the first digits of the SHA-256 of the bundle's checksums, so of
    everything in it. card: the model card as Markdown. golden_difference: the largest difference of a probability, of
    an object's score, or the largest share of other pixels.
    compute_ms: the median time of one inference at batch 1 on this machine, now. reference: the file that monitoring
    compares with, as it lies in the bundle; empty in bundles from before there was one. saturates: whether its 8-bit
    sums saturate on this processor, so that its answers may differ from those that the reference counts.
    """

    predictor: AnyPredictor
    name: str
    version: str
    card: str
    golden_difference: float
    compute_ms: float
    reference: bytes = b""
    saturates: bool = False

    @property
    def input_format(self) -> InputFormat:
        """What the model takes."""
        facts = self.predictor.preprocessing
        size = facts.input_size
        if facts.takes_pixels:
            return InputFormat("UINT8", (size, size, facts.channels))
        return InputFormat("FP32", (facts.channels, size, size))

    def squares_of(self, content: bytes, max_pixels: int) -> tuple[NDArray[np.uint8], ImageFacts]:
        """Return an encoded image as the pixels that the model sees, uint8 (n, height, width, channels), and its facts.

        n is 1, unless the model takes images in tiles.
        Raises UndecodableImageError if it is none, or TooManyPixelsError, also where that is too many tiles.
        """
        pixels, facts = decode(content, max_pixels)
        preprocessing = self.predictor.preprocessing
        if preprocessing.fit != TILE:
            return square_of(pixels, preprocessing)[None], facts
        tiles = seen_tiles(facts.width, facts.height, preprocessing)
        if len(tiles) > MOST_TILES:
            raise TooManyPixelsError(
                f"{facts.width} x {facts.height} pixels large, which are {len(tiles)} tiles of the model; at most "
                f"{MOST_TILES} are computed for a request"
            )
        return np.stack([square_of(tile.cut(pixels), preprocessing) for tile in tiles]), facts


def open_model(bundle: Path, threads: int, name: str = "") -> ServedModel:
    """Return the model of a bundle once its checksums and its golden answers were found right.

    threads: what one inference may use. name: overrules that of the model card.
    Raises KingletError with the first difference: the file that is missing or changed, a format that is newer, or
    the golden image whose answer is another.
    """
    predictor = open_predictor(bundle, threads=threads)
    golden = bundle / bundles.GOLDEN
    if not golden.is_file():
        raise KingletError(
            f"{golden} is missing: nothing shows that the model answers here as it should.",
            "Make the bundle anew with `dvc repro bundle`.",
        )
    difference = predictor.check_golden(golden)
    card = bundle / bundles.CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    version = bundles.sha256_of(bundle / bundles.CHECKSUMS)[:VERSION_DIGITS]
    known = bundle / bundles.REFERENCE
    reference = known.read_bytes() if known.is_file() else b""
    compute_ms = median_compute_ms(predictor)
    saturates = predictor.saturates and computes_in_8_bits(golden)
    return ServedModel(predictor, name or name_in(text), version, text, difference, compute_ms, reference, saturates)


def computes_in_8_bits(golden: Path) -> bool:
    """Return whether a model computes in 8 bits, by its golden answers."""
    with np.load(golden, allow_pickle=False) as expected:
        return any(name in expected for name in bundles.SATURATED_ANSWERS)


def name_in(card: str) -> str:
    """Return the model's name from its card's title, with what a URL's segment cannot hold as hyphens."""
    title = re.match(r"#\s+(.+)", card)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", title.group(1)).strip("-.") or DEFAULT_NAME if title else DEFAULT_NAME


def median_compute_ms(predictor: AnyPredictor) -> float:
    """Return how long one inference takes, in milliseconds, the median of a few."""
    facts = predictor.preprocessing
    image = model_input(np.zeros((1, facts.input_size, facts.input_size, facts.channels), np.uint8), facts)
    times = []
    for _ in range(WARM_UPS):
        started = time.perf_counter()
        predictor.outputs(image)
        times.append(time.perf_counter() - started)
    return 1000 * sorted(times)[WARM_UPS // 2]
