"""Signal to quantization noise of every layer."""

import numpy as np
import onnx
import pytest

from kinglet.compression.doctor.layer_errors import layer_errors
from kinglet.compression.graph_walk import Walk
from tests.unit.compression.doctor.broken_files import changed, constants, subject_of


def decibels(signal, noisy):
    return 10 * np.log10((signal.astype(float) ** 2).sum() / ((noisy - signal.astype(float)) ** 2).sum())


def rounded(values, grid):
    levels = np.rint(values / grid.scale) + grid.zero_point
    information = np.iinfo(grid.zero_point.dtype)
    return ((np.clip(levels, information.min, information.max) - grid.zero_point) * grid.scale).astype(np.float32)


def test_errors_are_those_computed_by_hand(work, good):
    subject = subject_of(good, work)
    found = {error.name: error for error in layer_errors(subject)}
    assert list(found) == [layer.name for layer in subject.graph.layers]
    images = subject.inputs
    layer = subject.graph.layer["conv_7"]
    floats = Walk(subject.twin, images)
    source, target = floats.value(layer.node.input[0]), floats.value(layer.pair.quantize.output[0])

    def convolved(inputs, weights):
        node = onnx.NodeProto()
        node.CopyFrom(layer.node)
        node.input[:] = ["x", "w", "b"]
        node.output[:] = ["y"]
        graph = onnx.helper.make_graph(
            [node],
            "one",
            [onnx.helper.make_tensor_value_info("x", 1, None)],
            [onnx.ValueInfoProto(name="y")],
            [onnx.numpy_helper.from_array(weights, "w"), onnx.numpy_helper.from_array(layer.biases, "b")],
        )
        model = onnx.helper.make_model(graph, opset_imports=subject.twin.opset_import, ir_version=8)
        return Walk(model, inputs).value("y")

    own = rounded(convolved(rounded(source, layer.source), layer.weights), layer.pair.grid)
    assert found["conv_7"].own == pytest.approx(decibels(target, own), abs=0.05)
    weights_only = np.maximum(convolved(source, layer.weights), 0)
    assert found["conv_7"].weights == pytest.approx(decibels(target, weights_only), abs=0.05)
    assert found["conv_7"].output == pytest.approx(decibels(target, rounded(target, layer.pair.grid)), abs=0.05)
    in_the_file = Walk(subject.graph.model, images).value(layer.pair.dequantizes[0].output[0])
    floats = Walk(subject.twin, images)
    assert found["conv_7"].accumulated == pytest.approx(
        decibels(floats.value(layer.pair.quantize.output[0]), in_the_file), abs=0.05
    )


def test_noise_in_one_layer_shows_there_alone_and_behind_it_accumulated(work, good):
    before = {error.name: error for error in layer_errors(subject_of(good, work))}
    name = subject_of(good, work).graph.layer["conv_11"].weight.name
    noisy = np.clip(
        constants(good)[name] + np.random.default_rng(0).integers(-30, 31, constants(good)[name].shape), -127, 127
    ).astype(np.int8)
    # Its own integers no longer round the float file's, so that those of the good file are given for comparison.
    subject = subject_of(good, work)
    broken = changed(subject.graph.model, {name: noisy})
    errors = {error.name: error for error in layer_errors(with_model(subject, broken))}
    changed_most = max(errors, key=lambda layer: before[layer].own - errors[layer].own)
    assert changed_most == "conv_11"
    assert before["conv_11"].own - errors["conv_11"].own > 10
    assert all(abs(before[layer].own - errors[layer].own) < 0.5 for layer in errors if layer != "conv_11")
    assert before["conv_14"].accumulated - errors["conv_14"].accumulated > 5
    assert errors["conv_9"].accumulated == pytest.approx(before["conv_9"].accumulated, abs=0.1)


def with_model(subject, model):
    from dataclasses import replace

    from kinglet.compression.doctor.graph import Graph

    return replace(subject, graph=Graph(model))
