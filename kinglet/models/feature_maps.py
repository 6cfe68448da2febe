"""What a network sees on the way to its answer: its maps at the end of each resolution."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from kinglet.models.inverted_residual import InvertedResidualNet
from kinglet.models.residual_cnn import ResidualCnn


def feature_maps(network: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the maps before the resolution falls and before the pooling, the finest first, and the logits.

    network: of one of Kinglet's own families. images: float32 (n, channels, height, width). Each map is
    float32 (n, its channels, its height, its width), each of another resolution; the logits are (n, n_classes),
    those that the network itself returns.
    Raises TypeError for a network of another kind, whose parts are not known.
    """
    if not isinstance(network, InvertedResidualNet | ResidualCnn):
        raise TypeError(f"{type(network).__name__} shows no feature maps")
    maps: list[Tensor] = []
    x = images
    for part in network.depth_groups()[:-1]:
        x = part(x)
        if maps and maps[-1].shape[2:] == x.shape[2:]:
            maps[-1] = x
        else:
            maps.append(x)
    pooled = functional.adaptive_avg_pool2d(x, 1).flatten(1)
    return maps, network.classifier(network.dropout(pooled))
