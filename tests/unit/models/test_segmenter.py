"""The segmenter: its export, its integers, and how it is rebuilt."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from kinglet.compression.fusion import fusions_of
from kinglet.compression.integer_nodes import nodes_left_in_float, quantized_layers
from kinglet.compression.saturation import Emulator
from kinglet.errors import KingletError
from kinglet.models.export import to_onnx
from kinglet.models.registry import BACKBONES, architecture_of, pretrained, pretrained_segmenter, rebuild
from kinglet.models.segmenter import OUTPUT_STRIDE, STRIDES, Segmenter, SegmenterSpec
from kinglet.models.trunk import last_blocks
from kinglet.runtime.preprocessing import normalize
from kinglet.runtime.sessions import open_session, run
from kinglet.training.schedules import layerwise_groups
from tests.unit.models.detector_files import pictures
from tests.unit.models.segmenter_files import (
    PREPROCESSING,
    SIZE,
    int8_file,
    lively_segmenter,
    segmenter_file,
    small_segmenter,
)

EDGE = SIZE // OUTPUT_STRIDE


def test_what_lies_outside_of_its_reach_does_not_change_a_places_answer() -> None:
    """So that an image cut into tiles is answered as the whole one is."""
    network = lively_segmenter()
    image = torch.randn(1, 3, 64, 1024, generator=torch.Generator().manual_seed(0))
    other = image.clone()
    other[..., 960:] = 0
    with torch.inference_mode():
        one, two = network(image), network(other)
    assert torch.equal(one[..., :16], two[..., :16])
    assert not torch.equal(one, two)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_exported_segmenter_answers_as_the_one_in_torch_for_any_number_of_images(channels: int) -> None:
    network = lively_segmenter(channels=channels)
    model = to_onnx(network, SIZE, channels, {"problem": "segmentation"})
    assert (
        model.SerializeToString() == to_onnx(network, SIZE, channels, {"problem": "segmentation"}).SerializeToString()
    )
    assert not {node.op_type for node in model.graph.node} & {"BatchNormalization", "Shape", "Constant"}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.get_outputs()
    assert (output.name, output.shape) == ("logits", ["batch", 3, EDGE, EDGE])
    assert json.loads(session.get_modelmeta().custom_metadata_map["kinglet.problem"]) == "segmentation"
    for n in (1, 5):
        images = torch.randn(n, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(n))
        with torch.inference_mode():
            expected = network(images).numpy()
        assert expected.std(axis=(0, 2, 3)).min() > 0.1
        np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], expected, atol=1e-4, rtol=1e-4)


def test_a_segmenter_rebuilt_from_its_card_and_weights_answers_alike() -> None:
    network = lively_segmenter()
    again = rebuild(json.loads(json.dumps(architecture_of(network))), network.state_dict())
    assert isinstance(again, Segmenter)
    assert again.spec == network.spec
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        assert torch.equal(network(images), again(images))


def test_every_backbone_carries_a_segmenter_with_its_pretrained_weights_in_it() -> None:
    for name, backbone in BACKBONES.items():
        indices, _ = last_blocks(SegmenterSpec.on(backbone.spec(3, 1, 0.0), 2), STRIDES)
        stride = 2 * np.cumprod([one.stride for one in backbone.spec(3, 1, 0.0).blocks])
        assert [stride[index] for index in indices] == [2, 4, 8, 16, 32], name
    network, _ = pretrained_segmenter("mobilenet-v2", 1, 2, seed=0)
    classifier, _ = pretrained("mobilenet-v2", 1, 1, 0.0)
    torch.testing.assert_close(network.backbone.stem[0].weight, classifier.stem[0].weight)
    torch.testing.assert_close(network.backbone.blocks[-1].project[0].weight, classifier.blocks[-1].project[0].weight)


def test_a_seed_decides_the_random_part_and_leaves_torchs_own_generator_alone() -> None:
    torch.manual_seed(5)
    first = pretrained_segmenter("mobilenet-v2", 1, 2, seed=0)[0].decoder.state_dict()
    drawn = torch.rand(1)
    torch.manual_seed(5)
    again = pretrained_segmenter("mobilenet-v2", 1, 2, seed=0)[0].decoder.state_dict()
    assert torch.equal(drawn, torch.rand(1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = pretrained_segmenter("mobilenet-v2", 1, 2, seed=1)[0].decoder.state_dict()
    assert not torch.equal(first["lateral.0.0.weight"], other["lateral.0.0.weight"])


def test_a_zoos_network_is_refused_as_a_segmenters_backbone() -> None:
    with pytest.raises(KingletError, match=r"finetune\.backbone is 'timm:resnet18', which no segmenter is built on"):
        pretrained_segmenter("timm:resnet18", 3, 2, seed=0)


def test_all_of_its_weights_are_learnt() -> None:
    network = small_segmenter()
    grouped = [id(one) for group in layerwise_groups(network.depth_groups(), 1.0, 0.9, 0.1) for one in group["params"]]
    assert sorted(grouped) == sorted(id(one) for one in network.parameters())


def test_the_whole_network_is_computed_in_integers() -> None:
    model = onnx.load_from_string(segmenter_file())
    assert nodes_left_in_float(model) == []
    fusions = fusions_of(onnx.load_from_string(int8_file()))
    assert (fusions.float_layers, fusions.integer_layers) == (0, len(quantized_layers(model)))
    assert fusions.conversions == 2, fusions.operators


def test_the_emulator_gives_the_integers_of_the_runtime() -> None:
    """With 7 bits nothing saturates, so that every processor gives the exact sums."""
    model = onnx.load_from_string(int8_file(7))
    images = normalize(pictures(2, seed=3), PREPROCESSING)
    expected = run(open_session(model.SerializeToString(), threads=1), images)
    emulated, saturated = Emulator(model).run(images)
    assert not saturated.total()
    assert np.unique(expected).size > 20
    # A tie that is rounded the other way is one step of a scale.
    step = np.diff(np.unique(expected)).min()
    assert np.abs(emulated - expected).max() <= 1.01 * step
    assert (emulated == expected).mean() > 0.999
