"""Random numbers that belong to an image: the same at any place in a batch, in any run, on any number of threads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Streams = Sequence[np.random.Generator]


def image_keys(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return a key for every image, uint64 of shape (n,), that its pixels decide: equal images have equal keys.

    images: uint8 of shape (n, height, width, channels).
    """
    digests = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def streams_of(keys: NDArray[np.uint64], purpose: int, seed: int) -> list[np.random.Generator]:
    """Return a stream of random numbers for every image, which begins anew with every call.

    purpose: below 2**32; different ones give streams that have nothing in common. seed: of the run, below 2**32.
    """
    # A counter-based generator takes its key as it is: 4 µs each, where mixing a seed first costs 15.
    word = np.uint64((seed << 32) | purpose)
    return [np.random.Generator(np.random.Philox(key=np.array([key, word], np.uint64))) for key in keys]


def normals(streams: Streams, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return standard normal numbers of shape (n, *shape), float32, one row from every stream."""
    drawn = np.empty((len(streams), *shape), np.float32)
    for row, stream in zip(drawn, streams, strict=True):
        stream.standard_normal(dtype=np.float32, out=row)
    return drawn


def uniforms(streams: Streams, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return uniform numbers in [0, 1) of shape (n, *shape), float32, one row from every stream."""
    drawn = np.empty((len(streams), *shape), np.float32)
    for row, stream in zip(drawn, streams, strict=True):
        stream.random(dtype=np.float32, out=row)
    return drawn


def between(streams: Streams, low: float, high: float, shape: tuple[int, ...] = ()) -> NDArray[np.float32]:
    """Return uniform numbers in [low, high), float32 of shape (n, *shape)."""
    return low + (high - low) * uniforms(streams, shape or (1,)).reshape(len(streams), *shape)


def poissons(streams: Streams, means: NDArray[Any]) -> NDArray[np.float32]:
    """Return Poisson counts with these means, of the same shape (n, ...), float32."""
    drawn = np.empty(means.shape, np.float32)
    for row, stream, mean in zip(drawn, streams, means, strict=True):
        row[...] = stream.poisson(mean)
    return drawn
