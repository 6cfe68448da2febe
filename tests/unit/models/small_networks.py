"""Small networks of both families, whose batch normalizations look as if they had been trained, and a small problem."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from kinglet.models.inverted_residual import InvertedResidualNet, InvertedResidualSpec, block_table
from kinglet.models.residual_cnn import ResidualCnn, ResidualCnnSpec, ResidualStage
from kinglet.training.loop import ImageSet


def inverted_residual(channels: int = 3, n_classes: int = 4, seed: int = 0, dropout: float = 0.0) -> nn.Module:
    """Return a network with every kind of block; at 32 px its last 5x5 kernels see 4x4 pixels."""
    torch.manual_seed(seed)
    stages = [(1, 3, 1, 16, 1), (4, 3, 2, 24, 2), (4, 5, 2, 32, 1), (4, 5, 1, 32, 2)]
    spec = InvertedResidualSpec(channels, 16, block_table(stages, 16), 64, n_classes, dropout)
    return live_in(InvertedResidualNet(spec))


def residual_cnn(channels: int = 3, n_classes: int = 4, seed: int = 0, dropout: float = 0.0) -> nn.Module:
    """Return a network with and without strides, with stages of zero, one and two blocks."""
    torch.manual_seed(seed)
    stages = (ResidualStage(16, 2, (16,)), ResidualStage(24, 2, (16, 32)), ResidualStage(32, 1, ()))
    return live_in(ResidualCnn(ResidualCnnSpec(channels, stages, n_classes, dropout)))


def live_in(network: nn.Module) -> nn.Module:
    """Give every batch normalization statistics and weights of its own, drawn from torch's generator."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.5)
            nn.init.normal_(module.bias, 0.1, 0.2)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


NETWORKS = {"inverted-residual": inverted_residual, "residual-cnn": residual_cnn}


def bright_quadrants(n: int, sizes: tuple[int, ...] = (16,), channels: int = 3, seed: int = 0) -> ImageSet:
    """Return noise of which one quadrant, the label, is brighter: a problem that small networks learn fast."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, n)
    images = generator.integers(0, 120, (n, 4, 4, channels), np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 120
    packed = {size: images.repeat(size // 4, 1).repeat(size // 4, 2) for size in sizes}
    return ImageSet(packed, np.arange(n), labels)
