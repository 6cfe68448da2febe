"""The clip classifier: its two files, and how it is rebuilt."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from kinglet.compression.integer_nodes import nodes_left_in_float
from kinglet.errors import KingletError
from kinglet.models.clip_classifier import FramePart, recurrent_step_of
from kinglet.models.export import step_to_onnx, to_onnx
from kinglet.models.recurrent_step import CELLS
from kinglet.models.registry import architecture_of, pretrained, pretrained_clip_classifier, rebuild
from kinglet.runtime.sessions import load_session
from kinglet.training.schedules import layerwise_groups
from tests.unit.models.clip_classifier_files import FACTS, FRAMES, SIZE, clip_files, small_clip_classifier


def frames_of(n_clips: int, channels: int = 3) -> torch.Tensor:
    return torch.randn(n_clips * FRAMES, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("cell", list(CELLS))
def test_the_two_files_frame_by_frame_answer_as_the_network_does(cell: str) -> None:
    network, frames = small_clip_classifier(cell), frames_of(2)
    with torch.inference_mode():
        expected = network(frames).numpy()
    frame_part, recurrent = (load_session(content, threads=1) for content in clip_files(cell))
    (features,) = frame_part.run(["features"], {"images": frames.numpy()})
    assert features.shape == (2 * FRAMES, network.spec.feature_size)
    state = np.zeros((2, network.spec.state_size), np.float32)
    for of_frame in features.reshape(2, FRAMES, -1).swapaxes(0, 1):
        logits, state = recurrent.run(["logits", "next_state"], {"features": of_frame, "state": state})
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert np.ptp(expected) > 0.01


@pytest.mark.parametrize(("cell", "torch_cell"), [("gru", nn.GRUCell), ("lstm", nn.LSTMCell)])
def test_an_exported_step_is_that_of_torchs_cell(cell: str, torch_cell: type[nn.Module]) -> None:
    network = small_clip_classifier(cell)
    behind, spec = network.behind, network.spec
    reference = torch_cell(spec.units, spec.units)
    reference.load_state_dict(
        {name.removesuffix("_l0"): value for name, value in behind.recurrent.state_dict().items()}
    )
    generator = torch.Generator().manual_seed(3)
    features, previous = torch.randn(2, 4, spec.feature_size, generator=generator)
    memory = torch.randn(4, CELLS[cell].states * spec.units, generator=generator)
    state = torch.cat([memory, previous, torch.ones(4, 1)], 1)
    with torch.inference_mode():
        seen = behind.embed(torch.cat([features, features - previous], 1)).relu()
        expected = reference(seen, memory if cell == "gru" else tuple(memory.chunk(2, 1)))
        logits = behind.classifier(expected if cell == "gru" else expected[0])
        expected = expected if cell == "gru" else torch.cat(expected, 1)
    session = load_session(clip_files(cell)[1], threads=1)
    found = session.run(["logits", "next_state"], {"features": features.numpy(), "state": state.numpy()})
    np.testing.assert_allclose(found[0], logits.numpy(), atol=1e-5)
    np.testing.assert_allclose(found[1][:, : memory.shape[1]], expected.numpy(), atol=1e-5)
    np.testing.assert_array_equal(found[1][:, memory.shape[1] :], torch.cat([features, torch.ones(4, 1)], 1).numpy())


@pytest.mark.parametrize("cell", list(CELLS))
def test_a_step_is_stored_as_matrix_products_and_activations_of_known_shapes(cell: str) -> None:
    model = onnx.load_from_string(clip_files(cell)[1])
    assert {node.op_type for node in model.graph.node} <= {
        "MatMul",
        "Add",
        "Sub",
        "Mul",
        "Sigmoid",
        "Relu",
        "Tanh",
        "Split",
        "Slice",
        "Concat",
    }
    spec = small_clip_classifier(cell).spec
    shapes = {
        value.name: [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "features": ["batch", spec.feature_size],
        "state": ["batch", spec.state_size],
        "logits": ["batch", spec.n_classes],
        "next_state": ["batch", spec.state_size],
    }


def test_the_same_network_gives_the_same_bytes() -> None:
    network = small_clip_classifier()
    frame_part, recurrent = clip_files()
    assert to_onnx(FramePart(network), SIZE, 3, FACTS, ("features",)).SerializeToString() == frame_part
    assert step_to_onnx(recurrent_step_of(network), {}).SerializeToString() == recurrent


def test_a_steps_weights_are_its_own() -> None:
    network = small_clip_classifier()
    step = recurrent_step_of(network)
    before = step.get_buffer("input_weight").clone()
    with torch.no_grad():
        network.behind.recurrent.get_parameter("weight_ih_l0").zero_()
    assert torch.equal(step.get_buffer("input_weight"), before)


def test_the_whole_frame_part_is_computed_in_integers() -> None:
    assert nodes_left_in_float(onnx.load_from_string(clip_files()[0])) == []


@pytest.mark.parametrize(
    ("size", "stride", "grid", "pooled"),
    [(16, 8, 2, False), (32, 8, 4, False), (48, 8, 4, True), (64, 16, 4, False), (96, 16, 4, True), (160, 32, 4, True)],
)
def test_where_things_are_survives_at_any_input_size(size: int, stride: int, grid: int, pooled: bool) -> None:
    network = small_clip_classifier(input_size=size)
    spec = network.spec
    assert (spec.stride, spec.grid, not isinstance(network.pool, nn.Identity)) == (stride, grid, pooled)
    frames = torch.zeros(2, 3, size, size)
    frames[0, :, : size // 4, : size // 4] = 3
    frames[1, :, -(size // 4) :, -(size // 4) :] = 3
    with torch.inference_mode():
        places = network.places(frames)
        features = FramePart(network)(frames)
    assert places.shape[2:] == (grid, grid)
    assert features.shape == (2, spec.feature_size)
    changed = (places[0] - places[1]).abs().sum(0)
    assert changed[0, 0] > 1.2 * changed[0, -1]
    model = to_onnx(FramePart(network), size, 3, FACTS, ("features",))
    session = load_session(model.SerializeToString(), threads=1)
    np.testing.assert_allclose(session.run(None, {"images": frames.numpy()})[0], features.numpy(), atol=1e-4)
    assert session.get_outputs()[0].shape == ["batch", spec.feature_size]


@pytest.mark.parametrize("size", [40, 72, 80, 112, 144, 176, 224])
def test_every_place_of_a_map_is_pooled(size: int) -> None:
    network = small_clip_classifier(input_size=size)
    edge, grid = network.spec.edge_at(network.spec.stride), network.spec.grid
    places = torch.zeros(1, 1, edge, edge, requires_grad=True)
    pooled = network.pool(places)
    assert pooled.shape == (1, 1, grid, grid)
    pooled.sum().backward()
    assert places.grad is not None
    assert bool((places.grad > 0).all())


@pytest.mark.parametrize("cell", list(CELLS))
def test_a_rebuilt_network_answers_the_same(cell: str) -> None:
    network = small_clip_classifier(cell)
    architecture = json.loads(json.dumps(architecture_of(network)))
    rebuilt = rebuild(architecture, network.state_dict())
    frames = frames_of(1)
    with torch.inference_mode():
        assert torch.equal(rebuilt(frames), network(frames))
    assert architecture_of(rebuilt) == architecture


def test_all_of_its_weights_are_learnt() -> None:
    network = small_clip_classifier()
    grouped = [id(one) for group in layerwise_groups(network.depth_groups(), 1.0, 0.9, 0.1) for one in group["params"]]
    assert sorted(grouped) == sorted(id(one) for one in network.parameters())


def test_a_pretrained_backbone_comes_with_its_weights_and_the_rest_is_drawn_from_the_seed() -> None:
    sizes = {"input_size": 64, "frames": 4, "cell": "gru", "units": 8}
    drawn = [pretrained_clip_classifier("mobilenet-v2", 1, 3, seed, **sizes)[0] for seed in (0, 0, 1)]
    classifier, _ = pretrained("mobilenet-v2", 1, 1, 0.0)
    assert torch.equal(drawn[0].backbone.stem[0].weight, classifier.stem[0].weight)
    states = [network.behind.state_dict() for network in drawn]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["recurrent.weight_ih_l0"], states[2]["recurrent.weight_ih_l0"])


def test_a_zoos_network_is_refused_as_a_clip_classifiers_backbone() -> None:
    with pytest.raises(KingletError, match=r"finetune\.backbone is 'timm:resnet18', which no clip classifier"):
        pretrained_clip_classifier("timm:resnet18", 3, 2, 0, input_size=64, frames=4, cell="gru", units=8)
