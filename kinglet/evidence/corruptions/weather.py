"""Weather: snow, frost on the window, fog, bright light; signature as in `noise`."""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kinglet.evidence.corruptions.blur import smeared
from kinglet.evidence.corruptions.pixels import Light, clipped_zoom, gray, to_bytes, to_light
from kinglet.evidence.corruptions.streams import Streams, between, normals, uniforms

SMALLEST_FROST = 1024
# Ice lets blue through.
FROST_TINT = np.array([0.86, 0.94, 1.0], np.float32)
# Of several threads, one makes the frost and the others wait for it.
FROST_LOCK = threading.Lock()


def snow(
    images: NDArray[np.uint8], setting: tuple[float, float, float, float, float, float, float], streams: Streams
) -> NDArray[np.uint8]:
    """Return the images paled, and under flakes that fall in a direction of their own.

    setting: (mean and deviation of the noise that flakes are cut from, its enlargement, where it is cut, radius and
    deviation of the fall's blur, share of the image that is not paled).
    """
    mean, deviation, zoom, threshold, radius, blur, share = setting
    light = to_light(images)
    noise = mean + deviation * normals(streams, (*images.shape[1:3], 1))
    flakes = clipped_zoom(noise.astype(np.float32), zoom)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1).astype(np.float32)
    flakes = smeared(flakes, radius, blur, between(streams, -135, -45))
    paled = np.maximum(light, gray(light) * np.float32(1.5) + np.float32(0.5))
    return to_bytes(share * light + (1 - share) * paled + flakes + flakes[:, ::-1, ::-1])


def frost(images: NDArray[np.uint8], setting: tuple[float, float, float], streams: Streams) -> NDArray[np.uint8]:
    """Return the images behind a piece of frosted window. setting: (share of image, of frost, scale of the frost)."""
    share, of_frost, scale = setting
    _, height, width, channels = images.shape
    edge = SMALLEST_FROST << max(0, (max(height, width) - 1).bit_length() - 9)
    with FROST_LOCK:
        texture = frost_texture(edge, scale, channels)
    starts = uniforms(streams, (2,))
    tops = (starts[:, 0] * (len(texture) - height)).astype(np.int64)
    lefts = (starts[:, 1] * (len(texture) - width)).astype(np.int64)
    crops = np.stack([texture[y : y + height, x : x + width] for y, x in zip(tops, lefts, strict=True)])
    return to_bytes(np.float32(share) * to_light(images) + np.float32(of_frost) * crops)


@lru_cache(maxsize=2)
def frost_texture(edge: int, scale: float, channels: int) -> Light:
    """Return frost as light, of shape (scale * edge, scale * edge, channels); edge as in `frost_picture`."""
    size = max(1, round(edge * scale))
    picture = Image.fromarray(frost_picture(edge)).resize((size, size), Image.Resampling.BOX)
    light = to_light(np.asarray(picture))
    return gray(light) if channels == 1 else light


@lru_cache(maxsize=1)
def frost_picture(edge: int) -> NDArray[np.uint8]:
    """Return crystals over a film of ice, uint8 of shape (edge, edge, 3), edge a power of two.

    The published images are behind photographs of frost, which are not ours to give away; this is computed.
    """
    generator = np.random.default_rng(20190327)
    film = plasma(generator.random((1, edge, edge), np.float32), 1.9)[0]
    ice = 0.55 * film + crystals(edge, generator)
    return to_bytes(np.clip(ice, 0, 1)[..., None] * FROST_TINT)


def crystals(edge: int, generator: np.random.Generator) -> Light:
    """Return six-armed stars of several sizes and directions, which cross and pile up, in [0, 1]; (edge, edge)."""
    places = np.minimum(np.arange(edge), edge - np.arange(edge)) * np.where(np.arange(edge) <= edge // 2, 1, -1)
    down, right = places[:, None].astype(np.float32), places[None, :].astype(np.float32)
    distance = np.hypot(down, right)
    total = np.zeros((edge, edge), np.float32)
    for length, share in ((6, 4e-3), (16, 1e-3), (40, 2e-4), (90, 4e-5)):
        for turn in generator.uniform(0, np.pi / 3, 4):
            angle = np.arctan2(down, right) - turn
            # Away from the nearest of the six arms, and along it.
            off = np.abs(distance * np.sin((angle + np.pi / 6) % (np.pi / 3) - np.pi / 6))
            star = np.exp(-distance / length - (off / (1 + length / 40)) ** 2)
            seeds = (generator.random((edge, edge), np.float32) < share / 4) * generator.uniform(0.3, 1, (edge, edge))
            total += np.fft.irfft2(np.fft.rfft2(seeds) * np.fft.rfft2(star), s=(edge, edge)).astype(np.float32)
    return total / (1 + total)


def fog(images: NDArray[np.uint8], setting: tuple[float, float], streams: Streams) -> NDArray[np.uint8]:
    """Return the images behind clouds. setting: (their thickness, how much smoother they are than rough)."""
    thickness, decay = setting
    light = to_light(images)
    _, height, width, _ = images.shape
    edge = 1 << (max(height, width) - 1).bit_length()
    clouds = plasma(uniforms(streams, (edge, edge)), decay)[:, :height, :width, None]
    brightest = light.max(axis=(1, 2, 3), keepdims=True)
    return to_bytes((light + np.float32(thickness) * clouds) * (brightest / (brightest + np.float32(thickness))))


def plasma(drawn: NDArray[np.float32], decay: float) -> Light:
    """Return clouds in [0, 1] by the diamond-square algorithm, float32 of shape (n, edge, edge), edge a power of two.

    drawn: uniform numbers in [0, 1) of the same shape, one for every point. decay: by which the noise shrinks when
    the grid is halved. Opposite rims fit together.
    """
    clouds, centred = np.zeros(drawn.shape, np.float32), 2 * drawn - 1
    edge = drawn.shape[1]
    step, amplitude = edge, 100.0
    while step >= 2:
        half = step // 2
        # In the published script the amplitude counts twice, as a factor and as the range.
        scale = np.float32(amplitude**2)
        corners = clouds[:, ::step, ::step]
        beside = corners + np.roll(corners, -1, 1)
        middles = (beside + np.roll(beside, -1, 2)) / 4 + scale * centred[:, half::step, half::step]
        clouds[:, half::step, half::step] = middles
        clouds[:, ::step, half::step] = (
            middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 2)
        ) / 4 + scale * centred[:, ::step, half::step]
        clouds[:, half::step, ::step] = (
            middles + np.roll(middles, 1, 2) + corners + np.roll(corners, -1, 1)
        ) / 4 + scale * centred[:, half::step, ::step]
        step, amplitude = half, amplitude / decay
    clouds -= clouds.min(axis=(1, 2), keepdims=True)
    highest = clouds.max(axis=(1, 2), keepdims=True)
    clouds /= np.where(highest > 0, highest, 1)
    return clouds


def brightness(images: NDArray[np.uint8], added: float, _streams: Streams) -> NDArray[np.uint8]:
    """Return the images with `added` on their value (of hue, saturation, value); hue and saturation stay."""
    light = to_light(images)
    value = light.max(axis=3, keepdims=True)
    raised = np.minimum(value + np.float32(added), 1)
    # Black has no hue that could stay: it turns gray.
    return to_bytes(np.where(value > 0, light * (raised / np.where(value > 0, value, 1)), raised))
