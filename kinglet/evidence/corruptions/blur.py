"""Blur: out of focus, through frosted glass, of a camera that moves, of one that zooms; signature as in `noise`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from kinglet.evidence.corruptions.pixels import Light, clipped_zoom, to_bytes, to_light
from kinglet.evidence.corruptions.streams import Streams, between, uniforms

# Pixels of a motion's tail that weigh less than this cannot change a byte.
LIGHTEST = 1e-5


def defocus_blur(images: NDArray[np.uint8], setting: tuple[float, float], _streams: Streams) -> NDArray[np.uint8]:
    """Return the images spread over a disk. setting: its radius in pixels, and the deviation that smooths its rim."""
    # Here, as it takes long to import and those that only name the kinds of corruption do not need it.
    from scipy.signal import fftconvolve

    kernel = disk(*setting)
    reach = len(kernel) // 2
    padded = np.pad(to_light(images), ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="reflect")
    return to_bytes(fftconvolve(padded, kernel[None, :, :, None], mode="valid", axes=(1, 2)))


def disk(radius: float, smoothing: float) -> NDArray[np.float32]:
    """Return a disk of weights that sum to 1, of shape (k, k), k odd."""
    # The published disk is smoothed over 3 pixels up to radius 8, and over 5 above.
    smooth_reach = 1 if radius <= 8 else 2
    reach = math.floor(radius) + smooth_reach
    places = np.arange(-reach, reach + 1)
    inside = (places[:, None] ** 2 + places**2 <= radius**2).astype(np.float64)
    for axis in (0, 1):
        inside = gaussian_filter1d(inside, smoothing, axis, mode="constant", radius=smooth_reach)
    return (inside / inside.sum()).astype(np.float32)


def glass_blur(images: NDArray[np.uint8], setting: tuple[float, int, int], streams: Streams) -> NDArray[np.uint8]:
    """Return the images with pixels displaced at random. setting: (deviation of a blur, farthest shift, rounds).

    The blur comes before and after.
    """
    deviation, farthest, rounds = setting
    blurred = to_bytes(gaussian(to_light(images), deviation))
    n, height, width, channels = images.shape
    sources = displaced(height, width, farthest, rounds, streams)
    shuffled = np.take_along_axis(blurred.reshape(n, -1, channels), sources[:, :, None], axis=1)
    return to_bytes(gaussian(to_light(shuffled.reshape(images.shape)), deviation))


def displaced(height: int, width: int, farthest: int, rounds: int, streams: Streams) -> NDArray[np.int64]:
    """Return for every pixel the place that its value comes from, int64 of shape (n, height * width).

    From the last pixel to the first, each takes over the value of a neighbour up to `farthest` rows and columns
    away, as that neighbour is by then. (The published script means to swap the two; its images hold such copies.)
    """
    sources = np.tile(np.arange(height * width), (len(streams), 1))
    rows, columns = np.arange(height - farthest, farthest, -1), np.arange(width - farthest, farthest, -1)
    if not (len(rows) and len(columns)):
        return sources
    shifts = uniforms(streams, (rounds, 2, len(rows), len(columns)))
    steps = np.floor(shifts * (2 * farthest)).astype(np.int64) - farthest
    # A pixel waits only for those within reach, so whole diagonals are done at once: the slope keeps two pixels of
    # one diagonal out of each other's reach, and everything that came first in the order of pixels comes first here.
    slope = 2 * farthest + 1
    order = slope * np.arange(len(rows))[:, None] + np.arange(len(columns))
    place_of, sorted_by = order.ravel(), np.argsort(order, axis=None, kind="stable")
    cuts = np.flatnonzero(np.diff(place_of[sorted_by])) + 1
    diagonals = np.split(sorted_by, cuts)
    places = (rows[:, None] * width + columns).ravel()
    for one_round in range(rounds):
        moves = (steps[:, one_round, 0] * width + steps[:, one_round, 1]).reshape(len(streams), -1)
        for diagonal in diagonals:
            here = places[diagonal]
            sources[:, here] = np.take_along_axis(sources, here + moves[:, diagonal], axis=1)
    return sources


def motion_blur(images: NDArray[np.uint8], setting: tuple[float, float], streams: Streams) -> NDArray[np.uint8]:
    """Return the images smeared in a direction of their own, within 45 degrees of the horizontal.

    setting: as in `smeared`.
    """
    angles = between(streams, -45, 45)
    return to_bytes(smeared(to_light(images), *setting, angles))


def smeared(light: Light, radius: float, deviation: float, degrees: NDArray[np.float32]) -> Light:
    """Return the images smeared to one side, like ImageMagick's motion blur.

    radius: 2 * radius + 1 pixels take part. deviation: of the half normal curve of their weights, in pixels.
    degrees: shape (n,), 0 smears along rows. Outside, the outermost pixels are repeated.
    """
    taps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(taps**2) / (2 * deviation**2))
    weights = (weights / weights.sum()).astype(np.float32)
    taps, weights = taps[weights > LIGHTEST], weights[weights > LIGHTEST]
    _, height, width, _ = light.shape
    reach = int(taps[-1])
    padded = np.pad(light, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    radians = np.deg2rad(degrees.astype(np.float64))[:, None]
    downs = np.ceil(taps * np.sin(radians) - 0.5).astype(np.int64) + reach
    rights = np.ceil(taps * np.cos(radians) - 0.5).astype(np.int64) + reach
    result = np.empty_like(light)
    for target, source, down, right in zip(result, padded, downs, rights, strict=True):
        target[...] = weights[0] * source[down[0] : down[0] + height, right[0] : right[0] + width]
        for weight, y, x in zip(weights[1:], down[1:], right[1:], strict=True):
            np.add(target, weight * source[y : y + height, x : x + width], out=target)
    return result


def zoom_blur(images: NDArray[np.uint8], factors: NDArray[np.float64], _streams: Streams) -> NDArray[np.uint8]:
    """Return the mean of the images and their middle enlarged by each of these factors."""
    light = to_light(images)
    total = light.copy()
    for factor in factors:
        total += clipped_zoom(light, float(factor))
    return to_bytes(total / np.float32(len(factors) + 1))


def gaussian(light: Light, deviation: float) -> Light:
    """Return the images under a normal blur, its deviation in pixels; outside, the outermost pixels are repeated."""
    blurred: Light = gaussian_filter(light, (0, deviation, deviation, 0), mode="nearest")
    return blurred
