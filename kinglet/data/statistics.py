"""What can be measured on the pixels of an image, for many packed images at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HASH_SIZE = 32  # Edge of the picture that the perceptual hash is taken from, in pixels.
HASH_COEFFICIENTS = 8


def luma(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the brightness of pixels in [0, 255].

    images: uint8 of shape (n, size, size, 1 or 3). Returns float32 of shape (n, size, size).
    Source: ITU-R BT.601 luma, as in Pillow's conversion to "L".
    """
    if images.shape[3] == 1:
        return images[:, :, :, 0].astype(np.float32)
    return np.asarray(images @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)


def measure(images: NDArray[np.uint8]) -> dict[str, NDArray[np.generic]]:
    """Return the measured facts of packed images: {name: array of shape (n,)}.

    images: uint8 of shape (n, size, size, 1 or 3).
    brightness: mean luma in [0, 1]. contrast: standard deviation of luma in [0, 0.5]. sharpness:
    variance of the Laplacian of luma in [0, 1] (low is blurred). entropy: of the luma's 256-bin
    histogram, in bits, [0, 8]. perceptual_hash: uint64.
    Source: Pech-Pacheco et al. 2000 for the variance of the Laplacian.
    """
    gray = luma(images)
    unit = gray / np.float32(255)
    return {
        "brightness": unit.mean(axis=(1, 2), dtype=np.float64),
        "contrast": unit.std(axis=(1, 2), dtype=np.float64),
        "sharpness": laplacian_variance(unit),
        "entropy": histogram_entropy(np.rint(gray).astype(np.uint8)),
        "perceptual_hash": perceptual_hash(gray),
    }


def laplacian_variance(gray: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the variance of the 4-neighbour Laplacian over the inner pixels; gray: (n, height, width)."""
    inner = gray[:, 1:-1, 1:-1]
    laplacian = gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:] - 4 * inner
    return np.asarray(laplacian.var(axis=(1, 2), dtype=np.float64))


def histogram_entropy(gray: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the Shannon entropy in bits of each image's 256-bin histogram; gray: (n, height, width)."""
    n_images = len(gray)
    offsets = np.arange(n_images, dtype=np.int32)[:, None] * 256
    counts = np.bincount((gray.reshape(n_images, -1) + offsets).ravel(), minlength=256 * n_images)
    shares = counts.reshape(n_images, 256) / max(gray[0].size if n_images else 1, 1)
    logarithms = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.abs((shares * logarithms).sum(axis=1))


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
