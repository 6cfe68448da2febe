"""The detector: its places, its export, and how it is rebuilt."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from kinglet.errors import KingletError
from kinglet.models.detector import STRIDES, Detector, DetectorSpec, places
from kinglet.models.export import to_onnx
from kinglet.models.inverted_residual import BlockSpec
from kinglet.models.onnx_graph import DETECTOR_OUTPUTS
from kinglet.models.registry import BACKBONES, architecture_of, pretrained, pretrained_detector, rebuild
from kinglet.models.trunk import last_blocks
from kinglet.training.schedules import WeightAverage, layerwise_groups

SIZE = 64


def block(channels: int, out: int, stride: int) -> BlockSpec:
    return BlockSpec(2 * channels, out, 3, stride, True, stride == 1 and channels == out)


BLOCKS = (block(8, 8, 2), block(8, 12, 2), block(12, 12, 1), block(12, 16, 2), block(16, 24, 2))


def small_detector(n_classes: int = 3, channels: int = 3) -> Detector:
    torch.manual_seed(0)
    return Detector(DetectorSpec(channels, 8, BLOCKS, n_classes, width=16))


def lively(network: nn.Module) -> nn.Module:
    """Give every normalization statistics of its own, and let places and boxes differ."""
    with_own_normalizations(network)
    for convolution in (*network.head.classes, *network.head.distances):
        nn.init.normal_(convolution.weight, std=0.2)
    return network.eval()


def with_own_normalizations(network: nn.Module) -> nn.Module:
    """Give every normalization statistics and scales of its own, so that folding a wrong one shows."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            n = module.num_features
            module.running_mean.copy_(torch.rand(n, generator=generator) - 0.5)
            module.running_var.copy_(torch.rand(n, generator=generator) * 0.2 + 0.1)
            module.weight.data.copy_(torch.rand(n, generator=generator) + 0.5)
            module.bias.data.copy_(torch.rand(n, generator=generator))
    return network.eval()


def test_places_lie_level_after_level_and_rows_first() -> None:
    centres, strides = places(SIZE)
    assert len(centres) == 8 * 8 + 4 * 4 + 2 * 2
    assert centres[:3].tolist() == [[4, 4], [12, 4], [20, 4]]
    assert centres[8].tolist() == [4, 12]
    assert centres[64].tolist() == [8, 8]
    assert centres[-1].tolist() == [48, 48]
    assert strides[:, 0].tolist() == [8.0] * 64 + [16.0] * 16 + [32.0] * 4


def test_an_untrained_detector_says_hardly_any_object_and_boxes_around_its_places() -> None:
    network = small_detector().eval()
    with torch.inference_mode():
        logits, boxes = network(torch.randn(2, 3, SIZE, SIZE))
    centres, strides = places(SIZE)
    assert logits.shape == (2, 84, 3)
    assert boxes.shape == (2, 84, 4)
    torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, 0.01), atol=0.005, rtol=0)
    expected = torch.cat([centres - 2 * strides, centres + 2 * strides], 1)
    torch.testing.assert_close(boxes, expected.expand_as(boxes), atol=3.0, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_exported_detector_answers_as_the_one_in_torch_for_any_number_of_images(channels: int) -> None:
    network = lively(small_detector(channels=channels))
    model = to_onnx(network, SIZE, channels, {"problem": "detection"}, DETECTOR_OUTPUTS)
    assert (
        model.SerializeToString()
        == to_onnx(network, SIZE, channels, {"problem": "detection"}, DETECTOR_OUTPUTS).SerializeToString()
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [(output.name, output.shape) for output in session.get_outputs()] == [
        ("logits", ["batch", 84, 3]),
        ("boxes", ["batch", 84, 4]),
    ]
    assert json.loads(session.get_modelmeta().custom_metadata_map["kinglet.problem"]) == "detection"
    for n in (1, 5):
        images = torch.randn(n, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(n))
        with torch.inference_mode():
            expected = [output.numpy() for output in network(images)]
        answers = session.run(None, {"images": images.numpy()})
        assert expected[0].std() > 0.1
        assert expected[1].std() > 10
        for answer, wanted in zip(answers, expected, strict=True):
            np.testing.assert_allclose(answer, wanted, atol=1e-4, rtol=1e-5)


def test_a_detector_rebuilt_from_its_card_and_weights_answers_alike() -> None:
    network = lively(small_detector())
    again = rebuild(json.loads(json.dumps(architecture_of(network))), network.state_dict())
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        for ours, theirs in zip(network(images), again(images), strict=True):
            assert torch.equal(ours, theirs)


def test_every_backbone_carries_a_detector_with_its_pretrained_weights_in_it() -> None:
    for name, backbone in BACKBONES.items():
        spec = DetectorSpec.on(backbone.spec(3, 1, 0.0), 2)
        indices, _ = last_blocks(spec, STRIDES)
        stride = 2 * np.cumprod([one.stride for one in spec.blocks])
        assert [stride[index] for index in indices] == [8, 16, 32], name
    network, _ = pretrained_detector("mobilenet-v2", 3, 2, seed=0)
    classifier, _ = pretrained("mobilenet-v2", 3, 1, 0.0)
    torch.testing.assert_close(network.backbone.stem[0].weight, classifier.stem[0].weight)
    torch.testing.assert_close(network.backbone.blocks[-1].project[0].weight, classifier.blocks[-1].project[0].weight)


def test_a_seed_decides_the_random_part_and_leaves_torchs_own_generator_alone() -> None:
    torch.manual_seed(5)
    first = pretrained_detector("mobilenet-v2", 1, 2, seed=0)[0].head.state_dict()
    drawn = torch.rand(1)
    torch.manual_seed(5)
    again = pretrained_detector("mobilenet-v2", 1, 2, seed=0)[0].head.state_dict()
    assert torch.equal(drawn, torch.rand(1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = pretrained_detector("mobilenet-v2", 1, 2, seed=1)[0].head.state_dict()
    assert not torch.equal(first["classes.0.weight"], other["classes.0.weight"])


def test_a_zoos_network_is_refused_as_a_detectors_backbone() -> None:
    with pytest.raises(KingletError, match=r"finetune\.backbone is 'timm:resnet18', which no detector is built on"):
        pretrained_detector("timm:resnet18", 3, 2, seed=0)


def test_the_levels_share_the_heads_convolutions_and_an_average_moves_them_once() -> None:
    network = small_detector()
    first, second = (network.head.towers[level][0][0] for level in (0, 1))
    assert first[0] is second[0]
    assert first[1] is not second[1]
    grouped = [id(one) for group in layerwise_groups(network.depth_groups(), 1.0, 0.9, 0.1) for one in group["params"]]
    assert sorted(grouped) == sorted({id(one) for one in network.parameters()})
    average = WeightAverage(network, decay=0.5)
    average.updates = 1000  # past the short memory of the first steps
    before = first[0].weight.detach().clone()
    with torch.no_grad():
        first[0].weight += 1
    average.update()
    torch.testing.assert_close(average.network.head.towers[2][0][0][0].weight, before + 0.5)
