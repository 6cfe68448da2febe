"""What can be measured on the pixels of an image, for many images of one size at once; the same in every place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# What `pixel_statistics` measures, in the order in which it is shown.
PIXEL_STATISTICS = ("brightness", "contrast", "sharpness", "entropy")


def luma(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the brightness of pixels in [0, 255].

    images: uint8 of shape (n, size, size, 1 or 3). Returns float32 of shape (n, size, size).
    Source: ITU-R BT.601 luma, as in Pillow's conversion to "L".
    """
    if images.shape[3] == 1:
        return images[:, :, :, 0].astype(np.float32)
    return np.asarray(images @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)


def pixel_statistics(gray: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Return the statistics of images: {name: float64 of shape (n,)}.

    gray: luma in [0, 255], float32 of shape (n, size, size).
    brightness: mean luma in [0, 1]. contrast: standard deviation of luma in [0, 0.5]. sharpness: variance of the
    Laplacian of luma in [0, 1] (low is blurred). entropy: of the luma's 256-bin histogram, in bits, [0, 8].
    Source: Pech-Pacheco et al. 2000 for the variance of the Laplacian.
    """
    unit = gray / np.float32(255)
    return {
        "brightness": unit.mean(axis=(1, 2), dtype=np.float64),
        "contrast": unit.std(axis=(1, 2), dtype=np.float64),
        "sharpness": laplacian_variance(unit),
        "entropy": histogram_entropy(np.rint(gray).astype(np.uint8)),
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
