import json
import sys

import pytest
import torch

from kinglet.errors import KingletError
from kinglet.models.registry import BACKBONES, architecture_of, normalization, pretrained, rebuild
from tests.unit.models.small_networks import NETWORKS


@pytest.fixture(scope="module")
def rgb_networks():
    return {name: pretrained(name, 3, 5, 0.1)[0].eval() for name in BACKBONES}


@pytest.mark.parametrize("name", list(BACKBONES))
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 1)])
def test_every_backbone_takes_images_of_any_size(rgb_networks, name, size):
    with torch.inference_mode():
        logits = rgb_networks[name](torch.randn(2, 3, *size))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", list(BACKBONES))
def test_gray_network_sees_a_gray_image_as_the_rgb_network_sees_it_repeated(rgb_networks, name):
    network, architecture = pretrained(name, 1, 2, 0.0)
    assert architecture["spec"]["in_channels"] == 1
    gray = torch.rand(2, 1, 64, 64) * 2 - 1
    with torch.inference_mode():
        own = network.eval().features(gray)
        expected = rgb_networks[name].features(gray.repeat(1, 3, 1, 1))
        assert network(gray).shape == (2, 2)
    assert own.std() > 0.1
    torch.testing.assert_close(own, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n_classes", [1, 2, 1000])
def test_classifier_has_any_number_of_classes(n_classes):
    network, _ = pretrained("efficientnet-lite0", 3, n_classes, 0.0)
    assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, n_classes)


@pytest.mark.parametrize("name", list(BACKBONES))
def test_features_do_not_depend_on_the_classes(rgb_networks, name):
    # Were a layer left at its random start, two networks would differ.
    torch.manual_seed(99)
    other = pretrained(name, 3, 7, 0.0)[0].eval()
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        assert rgb_networks[name].features(x).std() > 0.1
        assert torch.equal(other.features(x), rgb_networks[name].features(x))


def assert_survives_json(network, x):
    architecture = json.loads(json.dumps(architecture_of(network)))
    rebuilt = rebuild(architecture, network.state_dict())
    assert not rebuilt.training
    assert architecture_of(rebuilt) == architecture
    with torch.inference_mode():
        assert torch.equal(rebuilt(x), network(x))


@pytest.mark.parametrize("name", list(BACKBONES))
def test_rebuilt_backbone_has_the_same_logits(rgb_networks, name):
    assert_survives_json(rgb_networks[name], torch.rand(2, 3, 64, 64))


@pytest.mark.parametrize("family", list(NETWORKS))
@pytest.mark.parametrize("channels", [1, 3])
def test_rebuilt_small_network_has_the_same_logits(family, channels):
    assert_survives_json(NETWORKS[family](channels), torch.randn(2, channels, 20, 20))


def test_architecture_is_that_of_the_layers_not_of_the_first_specification():
    network = NETWORKS["residual-cnn"]()
    network.classifier = torch.nn.Linear(32, 9)
    assert architecture_of(network)["spec"]["n_classes"] == 9


def test_network_without_known_architecture_is_refused():
    with pytest.raises(TypeError, match="Linear"):
        architecture_of(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["resnet", "", "timm:", "nozoo:resnet18"])
def test_unknown_backbone_is_named_with_the_known_ones(name):
    with pytest.raises(KingletError) as caught:
        pretrained(name, 3, 2, 0.0)
    assert repr(name) in caught.value.message
    assert all(known in caught.value.message for known in BACKBONES)


@pytest.mark.parametrize("zoo", ["timm", "torchvision"])
@pytest.mark.parametrize(
    "content",
    [
        None,  # not installed
        "raise RuntimeError('operator torchvision::nms does not exist')",  # built for another torch
        "raise ImportError('libcudart.so.12: cannot open shared object file')",
    ],
)
def test_zoo_that_cannot_be_imported_is_a_clear_sentence(zoo, content, tmp_path, monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == zoo]:
        monkeypatch.delitem(sys.modules, module)
    if content is None:
        monkeypatch.setitem(sys.modules, zoo, None)
    else:
        (tmp_path / zoo).mkdir()
        (tmp_path / zoo / "__init__.py").write_text(content)
        monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        KingletError, match=f"{zoo}:resnet18 needs the package {zoo}, which cannot be imported"
    ) as caught:
        pretrained(f"{zoo}:resnet18", 3, 2, 0.0)
    assert "\n" not in caught.value.message
    assert "efficientnet-lite0" in caught.value.hint


def test_normalization_has_one_value_per_channel():
    assert [len(values) for values in normalization(3)] == [3, 3]
    assert [len(values) for values in normalization(1)] == [1, 1]
