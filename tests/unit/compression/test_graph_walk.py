import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from kinglet.compression.calibration import stream_histograms
from kinglet.compression.graph_walk import Walk
from kinglet.compression.quantization import WEIGHTED, quantize_static
from kinglet.models.export import to_onnx
from kinglet.runtime.sessions import open_as_written
from tests.unit.models.small_networks import NETWORKS

INPUTS = np.random.default_rng(0).normal(0, 1, (6, 3, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module", params=list(NETWORKS))
def model(request):
    float_model = to_onnx(NETWORKS[request.param](), 32, 3, {})
    return quantize_static(float_model, stream_histograms(float_model, INPUTS), "minmax")


def layers(model):
    return [node for node in model.graph.node if node.op_type in WEIGHTED]


def test_every_value_is_that_of_the_whole_graph(model):
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    del exposed.graph.output[:]
    names = [node.output[0] for node in layers(model)]
    for name in names:
        exposed.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    expected = open_as_written(exposed.SerializeToString()).run(names, {"images": INPUTS})
    walk = Walk(model, INPUTS)
    for name, value in zip(names, expected, strict=True):
        np.testing.assert_array_equal(walk.value(name), value)
    np.testing.assert_array_equal(
        walk.value("logits"), open_as_written(model.SerializeToString()).run(None, {"images": INPUTS})[0]
    )


def test_a_layer_changed_after_its_input_was_asked_for_is_computed_as_changed(model):
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    walk = Walk(changed, INPUTS)
    node = layers(changed)[2]
    walk.value(node.input[0])
    scale = walk.initializers[walk.makers[node.input[1]].input[1]]
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(2), scale.name))
    assert not np.array_equal(walk.value(node.output[0]), Walk(model, INPUTS).value(node.output[0]))


def test_what_nobody_waits_for_is_forgotten(model):
    walk = Walk(model, INPUTS)
    walk.value("logits")
    assert set(walk.known) == {"logits"}
    with pytest.raises(KeyError):
        walk.value("images")
