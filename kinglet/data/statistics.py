"""What is measured on packed images before they are trained on: statistics, and a hash that tells likenesses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime.image_statistics import luma, pixel_statistics

HASH_SIZE = 32  # Edge of the picture that the perceptual hash is taken from, in pixels.
HASH_COEFFICIENTS = 8


def measure(images: NDArray[np.uint8]) -> dict[str, NDArray[np.generic]]:
    """Return the measured facts of packed images: {name: array of shape (n,)}.

    images: uint8 of shape (n, size, size, 1 or 3).
    Those of `kinglet.runtime.image_statistics`, which the server measures too, and perceptual_hash: uint64.
    """
    gray = luma(images)
    return {**pixel_statistics(gray), "perceptual_hash": perceptual_hash(gray)}


def resampling_matrix(n_in: int, n_out: int) -> NDArray[np.float32]:
    """Return the matrix of shape (n_out, n_in) that resizes a line of pixels, antialiased bilinear (rows sum to 1)."""
    scale = n_in / n_out
    support = max(scale, 1.0)
    centres = (np.arange(n_out) + 0.5) * scale
    distances = np.abs(np.arange(n_in)[None, :] + 0.5 - centres[:, None]) / support
    weights = np.maximum(1 - distances, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def thumbnails(gray: NDArray[np.float32], size: int = HASH_SIZE) -> NDArray[np.float32]:
    """Return the images resized to `size` pixels; gray: (n, edge, edge)."""
    matrix = resampling_matrix(gray.shape[1], size)
    return np.asarray(matrix @ gray @ matrix.T)


def dct_matrix(size: int) -> NDArray[np.float32]:
    """Return the orthonormal DCT-II as a matrix of shape (size, size), frequencies in rows."""
    frequency, position = np.arange(size)[:, None], np.arange(size)[None, :]
    matrix = np.cos(np.pi * frequency * (2 * position + 1) / (2 * size)) * np.sqrt(2 / size)
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


def perceptual_hash(gray: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return the 64-bit perceptual hash of each image: its low frequencies, above the median or not.

    gray: (n, edge, edge), any range. The image is brought to 32 x 32 pixels; of its DCT the
    coefficients (1..8, 1..8) are kept, the first the most significant bit. Images that look alike
    differ in few bits (Hamming distance).
    Source: Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", 3.2.1.
    """
    wanted = dct_matrix(HASH_SIZE)[1 : HASH_COEFFICIENTS + 1] @ resampling_matrix(gray.shape[1], HASH_SIZE)
    coefficients = (wanted @ gray @ wanted.T).reshape(len(gray), HASH_COEFFICIENTS**2)
    bits = coefficients > np.median(coefficients, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)
