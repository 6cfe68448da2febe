"""Classifiers of other tools become Kinglet's, and what cannot be one is refused in a sentence."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from kinglet.adoption import adopt, facts_of, read_onnx
from kinglet.errors import KingletError
from kinglet.models.onnx_graph import add_metadata, read_metadata
from kinglet.runtime.sessions import open_session, run, softmax
from tests.unit.adoption.foreign_models import N_CLASSES, SIZE, foreign


def answers_of(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """Return what a model gives for each image alone."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images]).astype(np.float32)


@pytest.mark.parametrize("batch", [1, "n"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("dtype", "channels", "softmax_node", "opset", "flatten"),
    [
        (np.float32, 3, "Softmax", 17, "Reshape"),
        (np.float32, 1, "LogSoftmax", 13, "Flatten"),
        (np.float32, 3, "Softmax", 11, "Reshape"),
        (np.uint8, 3, "", 17, "Reshape"),
        (np.float16, 3, "Softmax", 17, "Flatten"),
    ],
)
def test_a_foreign_classifier_answers_as_before(batch, layout, dtype, channels, softmax_node, opset, flatten):
    given = foreign(
        layout=layout,
        batch=batch,
        dtype=dtype,
        channels=channels,
        softmax=softmax_node,
        flatten=flatten,
        opset=opset,
    )
    adopted = adopt(given, "model.onnx")
    onnx.checker.check_model(adopted, full_check=True)
    assert (facts_of(adopted).channels, facts_of(adopted).input_size) == (channels, SIZE)
    assert facts_of(adopted).n_classes == N_CLASSES
    assert not {"Softmax", "LogSoftmax", "Transpose", "Cast"} & {node.op_type for node in adopted.graph.node}
    assert not any(item.data_type == TensorProto.FLOAT16 for item in adopted.graph.initializer)

    images = np.random.default_rng(1).integers(0, 256, (5, channels, SIZE, SIZE))
    images = images if dtype is np.uint8 else (images - 128) / 64
    expected = answers_of(given, (images if layout == "NCHW" else images.transpose(0, 2, 3, 1)).astype(dtype))
    found = run(open_session(adopted.SerializeToString(), threads=1), images.astype(np.float32))  # a batch of five
    if softmax_node:
        found = softmax(found) if softmax_node == "Softmax" else np.log(softmax(found))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found / scale, expected / scale, atol=2e-2 if dtype is np.float16 else 1e-5)


def test_what_an_adopted_model_is_given_it_gives_again():
    given = adopt(foreign(), "model.onnx")
    add_metadata(given, {"classes": ["a", "b", "c", "d"]})
    again = adopt(given, "model.onnx")
    assert again.SerializeToString() == given.SerializeToString()
    assert read_metadata(again) == {"classes": ["a", "b", "c", "d"]}


def test_free_edges_are_fixed_to_the_size_that_is_named():
    given = foreign(size="edge", flatten="Flatten")
    with pytest.raises(KingletError, match=r"model\.onnx leaves height and width .* open") as caught:
        adopt(given, "model.onnx")
    assert "--input-size" in caught.value.hint
    assert facts_of(adopt(given, "model.onnx", input_size=SIZE)).input_size == SIZE
    with pytest.raises(KingletError, match="8 pixels, not 16"):
        adopt(foreign(), "model.onnx", input_size=16)


def test_pixels_that_a_graph_reads_otherwise_than_by_a_conversion_reach_it_as_whole_numbers():
    given = foreign(dtype=np.uint8, softmax="")
    given.graph.node[0].op_type = "DequantizeLinear"
    del given.graph.node[0].attribute[:]
    given.graph.node[0].input.extend(["scale", "zero"])
    given.graph.initializer.extend(
        [numpy_helper.from_array(np.float32(0.5), "scale"), numpy_helper.from_array(np.uint8(3), "zero")]
    )
    adopted = adopt(given, "model.onnx", allow_quantized=True)
    images = np.random.default_rng(1).integers(0, 256, (4, 3, SIZE, SIZE))
    found = run(open_session(adopted.SerializeToString(), threads=1), images.astype(np.float32) - np.float32(1e-4))
    np.testing.assert_allclose(found, answers_of(given, images.astype(np.uint8)), rtol=1e-5)


def with_outputs(*names: str) -> onnx.ModelProto:
    model = foreign()
    for name in names:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return model


def test_one_of_several_outputs_is_taken_by_name_and_what_only_the_others_need_is_dropped():
    given = with_outputs("flat")
    with pytest.raises(KingletError, match=r"has 2 outputs: probabilities: float .*, flat") as caught:
        adopt(given, "model.onnx")
    assert "--output-name NAME" in caught.value.hint
    taken = adopt(given, "model.onnx", output="flat")
    assert facts_of(taken).n_classes == 12
    assert "Gemm" not in {node.op_type for node in taken.graph.node}
    with pytest.raises(KingletError, match="no output 'other'"):
        adopt(given, "model.onnx", output="other")


def changed(change) -> onnx.ModelProto:
    model = foreign()
    change(model.graph)
    return model


def set_input(graph: onnx.GraphProto, kind: int, shape: list) -> None:
    graph.input[0].CopyFrom(helper.make_tensor_value_info("input_1", kind, shape))


def add_input(graph: onnx.GraphProto) -> None:
    graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))


REFUSED = {
    "several inputs": (changed(add_input), r"has 2 inputs \(input_1: float \(1, 3, 8, 8\), mask"),
    "no images": (changed(lambda graph: set_input(graph, TensorProto.FLOAT, [1, 128])), "takes no images"),
    "seven channels": (changed(lambda graph: set_input(graph, TensorProto.FLOAT, [1, 7, 8, 8])), "takes no images"),
    "no batch axis": (changed(lambda graph: set_input(graph, TensorProto.FLOAT, [3, 8, 8])), "no batch axis"),
    "not square": (changed(lambda graph: set_input(graph, TensorProto.FLOAT, [1, 3, 8, 6])), "6 x 8 pixels"),
    "whole numbers": (changed(lambda graph: set_input(graph, TensorProto.INT32, [1, 3, 8, 8])), "takes int32 numbers"),
    "unknown operator": (changed(lambda graph: setattr(graph.node[0], "op_type", "Fancy")), "cannot be loaded"),
    "control flow": (changed(lambda graph: setattr(graph.node[0], "op_type", "Loop")), "control flow"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_image_classifier_is_refused_in_a_sentence(case):
    model, words = REFUSED[case]
    with pytest.raises(KingletError, match=words) as caught:
        adopt(model, "some/model.onnx")
    assert caught.value.message.startswith("some/model.onnx ")


def test_feature_maps_and_single_numbers_are_no_classes():
    with pytest.raises(KingletError, match=r"gives 3 x 8 x 8 per image"):
        adopt(with_outputs("images"), "model.onnx", output="images")
    single = foreign(softmax="", weights=np.ones((1, 12)))
    single.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.zeros(1, np.float32), "bias"))
    single.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    with pytest.raises(KingletError, match="two or more classes"):
        adopt(single, "model.onnx")


def test_an_opset_that_no_runtime_knows_is_refused():
    model = foreign()
    model.opset_import[0].version = 999
    with pytest.raises(KingletError, match=r"cannot be loaded by onnxruntime"):
        adopt(model, "model.onnx")


def test_answers_that_depend_on_the_rest_of_the_batch_are_noticed():
    model = foreign(softmax="", flatten="Flatten")
    # The mean over the batch is taken off: nothing is left of an image alone, and something of one of three.
    model.graph.node.insert(0, helper.make_node("ReduceMean", ["input_1"], ["mean"], axes=[0], keepdims=1))
    model.graph.node.insert(1, helper.make_node("Sub", ["input_1", "mean"], ["rest"]))
    model.graph.node[2].input[0] = "rest"
    with pytest.raises(KingletError, match="answers otherwise where several images come at once") as caught:
        adopt(model, "model.onnx")
    assert "dynamic_axes" in caught.value.hint


def test_a_graph_that_takes_one_image_by_its_nature_is_refused():
    model = foreign(softmax="", flatten="Flatten")
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 12), np.float32), "token"))
    model.graph.node.insert(3, helper.make_node("Concat", ["flat", "token"], ["both"], axis=0))
    model.graph.node.insert(4, helper.make_node("ReduceMean", ["both"], ["mean"], axes=[0], keepdims=1))
    model.graph.node[5].input[0] = "mean"
    with pytest.raises(KingletError, match="several images"):
        adopt(model, "model.onnx")


def test_a_quantized_model_is_refused_unless_it_is_asked_for():
    model = foreign()
    model.graph.initializer.extend(
        [numpy_helper.from_array(np.float32(0.01), "scale"), numpy_helper.from_array(np.uint8(128), "zero")]
    )
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", ["input_1", "scale", "zero"], ["q"], name="first_q"))
    model.graph.node.insert(1, helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]))
    model.graph.node[2].input[0] = "dq"
    with pytest.raises(KingletError, match=r"1 DequantizeLinear, 1 QuantizeLinear .*first_q") as caught:
        adopt(model, "model.onnx")
    assert "kinglet doctor" in caught.value.hint
    assert facts_of(adopt(model, "model.onnx", allow_quantized=True)).n_classes == N_CLASSES


def test_stored_tensors_among_the_inputs_of_an_old_file_are_no_inputs():
    model = foreign(opset=9)
    model.ir_version = 3
    for item in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(item.name, item.data_type, list(item.dims)))
    adopted = adopt(model, "model.onnx")
    assert [item.name for item in adopted.graph.input] == ["images"]
    assert adopted.opset_import[0].version == 13


@pytest.mark.parametrize(
    "content", [b"", b"not a model", b"PK\x03\x04" + bytes(200), onnx.ModelProto().SerializeToString()]
)
def test_what_is_no_onnx_file_is_refused(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(KingletError, match=r"model\.onnx is not an ONNX file"):
        read_onnx(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(KingletError, match="does not exist"):
        read_onnx(tmp_path / "model.onnx")
    with pytest.raises(KingletError, match="is a folder"):
        read_onnx(tmp_path)
    path = tmp_path / "model.onnx"
    onnx.save(foreign(), path, save_as_external_data=True, location="model.weights", size_threshold=0)
    assert adopt(read_onnx(path), "m").SerializeToString() == adopt(foreign(), "m").SerializeToString()
    (tmp_path / "model.weights").unlink()
    with pytest.raises(KingletError, match=r"model\.weights is not beside it"):
        read_onnx(path)
