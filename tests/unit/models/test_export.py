import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from kinglet.compression.depth import removable_blocks, without_block
from kinglet.compression.pruning import prune_channels, reestimate_batch_norms
from kinglet.models.export import fold_batch_norms, to_onnx
from kinglet.models.onnx_graph import add_metadata
from kinglet.models.registry import BACKBONES, architecture_of, pretrained, rebuild
from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.sessions import open_session, read_metadata, run
from tests.unit.models.small_networks import NETWORKS

SIZE = 64  # At 32 px the backbones, made for photographs, are silent.
PREPROCESSING = Preprocessing(SIZE, 3, "crop", (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
METADATA = {"preprocessing": PREPROCESSING.to_dict(), "classes": ["ä", "b", "c"]}


def lively(network, channels=3):
    """Give a network the statistics of noise, so that its answers differ from image to image."""
    generator = torch.Generator().manual_seed(9)
    reestimate_batch_norms(network, [torch.randn(16, channels, SIZE, SIZE, generator=generator)])
    return network


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    backbones = {name: pretrained(name, 3, 3, 0.1)[0].eval() for name in BACKBONES}
    return backbones | {family: lively(network(3, 3)) for family, network in NETWORKS.items()}


def assert_same_logits(model, network, channels=3):
    session = open_session(model.SerializeToString(), threads=1)
    for n in (5, 1):  # the batch is dynamic
        images = torch.randn(n, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(n))
        images *= torch.linspace(0.2, 2, n).view(-1, 1, 1, 1)
        with torch.inference_mode():
            expected = network(images).numpy()
        assert n == 1 or expected.std(axis=0).min() > 0.02  # it answers each image differently
        np.testing.assert_allclose(run(session, images.numpy()), expected, atol=1e-4)


@pytest.mark.parametrize("name", [*BACKBONES, *NETWORKS])
def test_dense_and_pruned_network_answer_in_onnxruntime_as_in_torch(networks, name):
    network = networks[name]
    assert_same_logits(to_onnx(network, SIZE, 3, METADATA), network)
    pruned = lively(prune_channels(network, torch.zeros(1, 3, SIZE, SIZE), 0.5, "l2", 8))
    assert_same_logits(to_onnx(pruned, SIZE, 3, METADATA), pruned)


@pytest.mark.parametrize("family", list(NETWORKS))
def test_network_without_a_block_answers_in_onnxruntime_as_in_torch(networks, family):
    smaller = without_block(networks[family], removable_blocks(networks[family])[-1])
    pruned = lively(prune_channels(smaller, torch.zeros(1, 3, SIZE, SIZE), 0.5, "l2", 8))
    again = rebuild(architecture_of(pruned), pruned.state_dict())
    assert_same_logits(to_onnx(again, SIZE, 3, METADATA), pruned)


@pytest.mark.parametrize("family", list(NETWORKS))
def test_gray_network_answers_in_onnxruntime_as_in_torch(family):
    network = lively(NETWORKS[family](1, 3), 1)
    assert_same_logits(to_onnx(network, SIZE, 1, METADATA), network, channels=1)


@pytest.mark.parametrize("name", ["efficientnet-lite0", *NETWORKS])
def test_same_network_gives_the_same_bytes(networks, name):
    network = networks[name]
    first = to_onnx(network, SIZE, 3, METADATA).SerializeToString()
    again = rebuild(architecture_of(network), network.state_dict())
    assert to_onnx(again, SIZE, 3, dict(reversed(METADATA.items()))).SerializeToString() == first
    with torch.no_grad():
        again.classifier.bias[0] += 1
    assert to_onnx(again, SIZE, 3, METADATA).SerializeToString() != first


def test_file_says_nothing_of_where_it_was_made(networks):
    content = to_onnx(networks["inverted-residual"], SIZE, 3, METADATA).SerializeToString()
    assert b"inverted_residual.py" not in content
    assert b"site-packages" not in content


def test_metadata_are_read_back_by_the_runtime(networks):
    model = to_onnx(networks["residual-cnn"], SIZE, 3, METADATA)
    assert read_metadata(open_session(model.SerializeToString(), threads=1)) == (PREPROCESSING, METADATA["classes"])


def test_new_metadata_replace_the_old(networks):
    model = to_onnx(networks["residual-cnn"], SIZE, 3, METADATA)
    add_metadata(model, {"classes": ["x"]})
    assert [(entry.key, json.loads(entry.value)) for entry in model.metadata_props] == [("kinglet.classes", ["x"])]


@pytest.mark.parametrize("name", ["mobilenet-v2", *NETWORKS])
def test_graph_has_no_normalization_constants_or_dropout(networks, name):
    graph = to_onnx(networks[name], SIZE, 3, METADATA).graph
    kinds = {node.op_type for node in graph.node}
    assert kinds <= {"Conv", "Clip", "Relu", "Add", "GlobalAveragePool", "Flatten", "Gemm"}
    shape = graph.input[0].type.tensor_type.shape
    assert [dimension.dim_param or dimension.dim_value for dimension in shape.dim] == ["batch", 3, SIZE, SIZE]
    onnx.checker.check_model(to_onnx(networks[name], SIZE, 3, METADATA), full_check=True)


@pytest.mark.parametrize("family", list(NETWORKS))
def test_folding_keeps_the_answers_and_the_original(family):
    network = NETWORKS[family]()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = fold_batch_norms(network.train())
    assert network.training
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    x = torch.randn(3, 3, SIZE, SIZE)
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), network.eval()(x), rtol=1e-4, atol=1e-4)
