import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from kinglet.compression.bias_correction import channel_means, correct_biases
from kinglet.compression.calibration import stream_histograms
from kinglet.compression.quantization import compare, quantize_static, weighted_layers
from kinglet.models.export import to_onnx
from kinglet.runtime.sessions import open_session, run
from tests.unit.models.small_networks import NETWORKS

SIZE = 32


def images(n, seed):
    generator = np.random.default_rng(seed)
    return generator.normal(0.2, 1, (n, 3, SIZE, SIZE)).astype(np.float32)


INPUTS, OTHERS = images(24, 1), images(48, 2)


@pytest.fixture(scope="module", params=list(NETWORKS))
def model(request):
    return to_onnx(NETWORKS[request.param](), SIZE, 3, {})


@pytest.fixture(scope="module")
def quantized(model):
    """A coarse file: 7 bits, and ranges that cut off."""
    return quantize_static(model, stream_histograms(model, INPUTS), "entropy", 7)


@pytest.fixture(scope="module")
def correction(model, quantized):
    return correct_biases(model, quantized, INPUTS)


def initializers(model):
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def mean_outputs(model, inputs):
    """Every layer's mean output per channel, from one session for the whole graph."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    layers = {node.name: node.output[0] for node in model.graph.node if node.op_type in ("Conv", "Gemm")}
    del exposed.graph.output[:]
    for name in layers.values():
        exposed.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = session.run(list(layers.values()), {"images": inputs})
    return {name: np.mean(value, axis=(0, *range(2, value.ndim))) for name, value in zip(layers, values, strict=True)}


def bias_of(model, node):
    """Return (stored bias, its steps) of a layer."""
    values = initializers(model)
    if node.input[2] in values:
        return values[node.input[2]], None
    source = next(item for item in model.graph.node if node.input[2] in item.output)
    return values[source.input[0]], values[source.input[1]]


def named(model, name):
    return next(node for node in model.graph.node if node.name == name)


def test_means_are_those_of_every_layer_before_its_activation(model):
    means = channel_means(model, INPUTS, batch_size=5)
    assert list(means) == weighted_layers(model)
    for name, expected in mean_outputs(model, INPUTS).items():
        np.testing.assert_allclose(means[name], expected, rtol=1e-4, atol=1e-5)


def test_the_mean_of_every_layers_output_is_the_float_models_again(model, quantized, correction):
    assert correction.refused == ()
    wanted, before, after = (mean_outputs(item, INPUTS) for item in (model, quantized, correction.model))
    for name in weighted_layers(model):
        steps = bias_of(correction.model, named(correction.model, name))[1]
        assert (np.abs(after[name] - wanted[name]) <= 0.5 * steps + 2e-5 * np.abs(wanted[name]).max()).all()
    assert max(np.abs(before[name] - wanted[name]).max() for name in wanted) > 0.01


def test_a_shift_of_the_means_is_undone_for_other_images_too(model):
    quantized = quantize_static(model, stream_histograms(model, INPUTS), "minmax")
    shifted = onnx.ModelProto()
    shifted.CopyFrom(quantized)
    node = named(shifted, weighted_layers(model)[-1])
    source = next(item for item in shifted.graph.node if node.input[2] in item.output)
    for item in shifted.graph.initializer:
        if item.name == source.input[0]:
            steps = bias_of(shifted, node)[1]
            values = numpy_helper.to_array(item) + np.rint([0.1, -0.1, 0.1, -0.1] / steps).astype(np.int32)
            item.CopyFrom(numpy_helper.from_array(values, item.name))
    reference, whole, before, after = (
        run(open_session(item.SerializeToString(), threads=1), OTHERS)
        for item in (model, quantized, shifted, correct_biases(model, shifted, INPUTS).model)
    )
    assert compare(reference, before)[1] > 5 * compare(reference, whole)[1]
    assert compare(reference, after)[1] < 1.5 * compare(reference, whole)[1]


def test_nothing_but_biases_changes(quantized, correction):
    before, after = initializers(quantized), initializers(correction.model)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed
    assert {before[name].dtype for name in changed} == {np.dtype(np.int32)}
    assert list(quantized.graph.node) == list(correction.model.graph.node)
    onnx.checker.check_model(correction.model)


def test_the_same_images_give_the_same_bytes_and_the_arguments_stay(model, quantized, correction):
    before = model.SerializeToString(), quantized.SerializeToString()
    assert correct_biases(model, quantized, INPUTS).model.SerializeToString() == correction.model.SerializeToString()
    assert (model.SerializeToString(), quantized.SerializeToString()) == before


def test_layers_in_float_are_corrected_too(model):
    spared = weighted_layers(model)[3]
    quantized = quantize_static(model, stream_histograms(model, INPUTS), "entropy", 7, [spared])
    corrected = correct_biases(model, quantized, INPUTS).model
    assert initializers(corrected)[named(corrected, spared).input[1]].dtype == np.float32
    wanted, found = mean_outputs(model, INPUTS)[spared], mean_outputs(corrected, INPUTS)[spared]
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())
    assert not np.allclose(mean_outputs(quantized, INPUTS)[spared], wanted, atol=1e-4)


def test_a_correction_that_does_not_fit_into_int32_is_refused_and_named(model, quantized):
    name = weighted_layers(model)[2]
    full = onnx.ModelProto()
    full.CopyFrom(quantized)
    source = next(item for item in full.graph.node if named(full, name).input[2] in item.output)
    for item in full.graph.initializer:
        if item.name == source.input[0]:
            values = np.full_like(numpy_helper.to_array(item), np.iinfo(np.int32).max)
            values[1::2] = np.iinfo(np.int32).min
            item.CopyFrom(numpy_helper.from_array(values, item.name))
        if item.name == source.input[1]:  # so small that what the layer gives is hardly changed
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item) * np.float32(1e-6), item.name))
    correction = correct_biases(model, full, INPUTS)
    assert name in correction.refused
    kept, given = bias_of(correction.model, named(correction.model, name)), bias_of(full, named(full, name))
    np.testing.assert_array_equal(kept[0], given[0])


def test_a_layer_without_bias_is_named(model):
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    node = next(item for item in bare.graph.node if item.op_type == "Conv")
    del node.input[2:]
    correction = correct_biases(model, bare, INPUTS)
    assert node.name in correction.refused
