"""Small torch networks with the parts of well-known classifiers, as others export them to ONNX."""

from __future__ import annotations

import io
import warnings

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.unit.models.small_networks import live_in

N_CLASSES, SIZE = 4, 16


def convolution(
    n_in: int, n_out: int, size: int = 3, *, activation: type[nn.Module] = nn.Identity, **options
) -> nn.Module:
    """Return a convolution that keeps the size, batch normalization and an activation."""
    layer = nn.Conv2d(n_in, n_out, size, padding=size // 2, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(n_out), activation())


class Excitation(nn.Module):
    """Squeeze and excitation: every channel is multiplied by a gate."""

    def __init__(self, channels: int, activation: type[nn.Module], gate: type[nn.Module]) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce, self.expand = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, channels, 1)
        self.activation, self.gate = activation(), gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(self.activation(self.reduce(self.pool(x)))))


class MobileBlock(nn.Module):
    """An inverted residual with squeeze and excitation, as EfficientNet-B0 and MobileNetV3 have."""

    def __init__(
        self, channels: int, activation: type[nn.Module], inner: type[nn.Module], gate: type[nn.Module]
    ) -> None:
        super().__init__()
        wide = channels * 2
        self.path = nn.Sequential(
            convolution(channels, wide, 1, activation=activation),
            convolution(wide, wide, activation=activation, groups=wide),
            Excitation(wide, inner, gate),
            convolution(wide, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.path(x)


class Dense(nn.Module):
    """A layer of DenseNet: normalization before the convolution, and all earlier features beside its own."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.path = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, growth, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.path(x)], 1)


class Branches(nn.Module):
    """A block of Inception: branches with a pooling among them, beside each other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = convolution(channels, 8, 1, activation=nn.ReLU)
        self.two = nn.Sequential(convolution(channels, 8, 1, activation=nn.ReLU), convolution(8, 8, activation=nn.ReLU))
        pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.three = nn.Sequential(pool, convolution(channels, 8, 1, activation=nn.ReLU))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in (self.one, self.two, self.three)], 1)


class PixelsLast(nn.Module):
    """A block of ConvNeXt: layer normalization and matrix products over channels that lie last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.normalization = nn.LayerNorm(channels)
        self.wider, self.narrower = nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)
        self.scale = nn.Parameter(torch.linspace(0.2, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.normalization(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrower(functional.gelu(self.wider(y)))
        return x + y.permute(0, 3, 1, 2)


class Attention(nn.Module):
    """A block of a vision transformer."""

    def __init__(self, channels: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.mix, self.project = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.wider, self.narrower = nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, channels = x.shape
        mixed = self.mix(self.before(x)).reshape(n, tokens, 3, self.heads, channels // self.heads)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-2, -1) * (channels // self.heads) ** -0.5).softmax(-1)
        x = x + self.project((weights @ value).transpose(1, 2).reshape(n, tokens, channels))
        return x + self.narrower(functional.gelu(self.wider(self.between(x))))


class Transformer(nn.Module):
    """A vision transformer: patches, blocks of attention, the mean of its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.places = nn.Parameter(0.1 * torch.randn(1, 16, 16))
        self.blocks = nn.Sequential(Attention(16), Attention(16))
        self.normalization, self.classifier = nn.LayerNorm(16), nn.Linear(16, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.classifier(self.normalization(self.blocks(x)).mean(1))


def classified(*blocks: nn.Module, channels: int) -> nn.Module:
    """Return blocks with a classifier of the mean of their features after them."""
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, N_CLASSES))


def silu_se() -> nn.Module:
    """Return the parts of EfficientNet-B0."""
    stem = convolution(3, 16, stride=2, activation=nn.SiLU)
    return classified(stem, MobileBlock(16, nn.SiLU, nn.SiLU, nn.Sigmoid), channels=16)


def hard_swish() -> nn.Module:
    """Return the parts of MobileNetV3."""
    stem = convolution(3, 16, stride=2, activation=nn.Hardswish)
    return classified(stem, MobileBlock(16, nn.Hardswish, nn.ReLU, nn.Hardsigmoid), channels=16)


def dense_net() -> nn.Module:
    """Return the parts of DenseNet, with a transition."""
    stem = convolution(3, 16, activation=nn.ReLU)
    blocks = [nn.MaxPool2d(3, 2, 1), Dense(16, 8), Dense(24, 8), nn.Conv2d(32, 16, 1), nn.AvgPool2d(2)]
    return classified(stem, *blocks, channels=16)


def inception() -> nn.Module:
    """Return the parts of Inception."""
    return classified(convolution(3, 16, stride=2, activation=nn.ReLU), Branches(16), Branches(24), channels=24)


def leaky() -> nn.Module:
    """Return convolutions with leaky rectifiers, as Darknet has."""

    def rectifier() -> nn.Module:
        return nn.LeakyReLU(0.1)

    blocks = [convolution(3, 16, stride=2, activation=rectifier), convolution(16, 16, activation=rectifier)]
    return classified(*blocks, channels=16)


def group_norm() -> nn.Module:
    """Return convolutions with group normalization."""
    blocks = [nn.Conv2d(3, 16, 3, 2, 1), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU()]
    return classified(*blocks, channels=16)


def conv_next() -> nn.Module:
    """Return the parts of ConvNeXt."""
    return classified(nn.Conv2d(3, 16, 4, 4), PixelsLast(16), PixelsLast(16), channels=16)


FOREIGN = {
    "silu-se": silu_se,
    "hard-swish": hard_swish,
    "dense-net": dense_net,
    "inception": inception,
    "leaky": leaky,
    "group-norm": group_norm,
    "conv-next": conv_next,
    "transformer": Transformer,
}


def exported(family: str, *, dynamo: bool = False, opset: int = 17) -> onnx.ModelProto:
    """Return a network as one of torch's two exporters writes it, with a free batch axis."""
    torch.manual_seed(0)
    network = live_in(FOREIGN[family]())
    example = torch.zeros(2, 3, SIZE, SIZE)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            axes = ({0: torch.export.Dim("batch")},)
            program = torch.onnx.export(
                network, (example,), dynamo=True, opset_version=opset, dynamic_shapes=axes, verbose=False
            )
            return program.model_proto
        torch.onnx.export(
            network,
            (example,),
            buffer,
            dynamo=False,
            opset_version=opset,
            dynamic_axes={"x": {0: "n"}},
            input_names=["x"],
        )
    return onnx.load_from_string(buffer.getvalue())
