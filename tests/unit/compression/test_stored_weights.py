import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kinglet.compression.fusion import fusions_of
from kinglet.compression.stored_weights import BF16, FP16, INT8, STORAGES, store_weights
from kinglet.models.export import to_onnx
from kinglet.models.registry import pretrained
from kinglet.runtime.sessions import open_session, run


@pytest.fixture(scope="module")
def model():
    network, _ = pretrained("efficientnet-lite0", 1, 10, 0.0)
    return to_onnx(network.eval(), 32, 1, {})


def weights_of(model):
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


@pytest.mark.parametrize(("storage", "parts"), [(FP16, 2), (BF16, 2), (INT8, 4)])
def test_the_file_is_a_half_or_a_quarter_and_runs_as_the_float_model_does(model, storage, parts):
    stored = store_weights(model, storage)
    onnx.checker.check_model(stored.model)
    assert (stored.layers, stored.left) == (50, [])
    assert stored.model.ByteSize() < 1.1 * model.ByteSize() / parts
    # Folded while the file is opened: nothing is left of the conversions.
    assert fusions_of(stored.model).operators == fusions_of(model).operators


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_a_network_computes_with_the_rounded_weights(model, kind):
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    for item in rounded.graph.initializer:
        values = numpy_helper.to_array(item)
        if values.ndim > 1:
            item.CopyFrom(numpy_helper.from_array(values.astype(kind).astype(np.float32), item.name))
    images = np.random.default_rng(0).standard_normal((4, 1, 32, 32), dtype=np.float32)
    stored = store_weights(model, FP16 if kind is np.float16 else BF16).model
    found, expected = (run(open_session(each.SerializeToString(), threads=1), images) for each in (stored, rounded))
    assert found.tobytes() == expected.tobytes()


def layers_model():
    """Images (n, 2, 4, 4) through a convolution, a Gemm as torch writes it, one as mathematics does, and a MatMul."""
    random = np.random.default_rng(3)
    shapes = {"conv": (3, 2, 4, 4), "gemm": (5, 3), "plain": (5, 6), "product": (6, 4), "bias": (5,)}
    # Output channels of very different sizes: one scale for all would lose the small ones.
    axes = {"conv": 0, "gemm": 0, "plain": 1, "product": 1}
    weights = {}
    for name, shape in shapes.items():
        values = random.standard_normal(shape).astype(np.float32)
        if name in axes:
            size = [1] * len(shape)
            size[axes[name]] = shape[axes[name]]
            values *= np.logspace(-3, 1, shape[axes[name]], dtype=np.float32).reshape(size)
        weights[name] = values
    nodes = [
        helper.make_node("Conv", ["images", "conv"], ["a"], "first"),
        helper.make_node("Flatten", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "gemm", "bias"], ["c"], "second", transB=1),
        helper.make_node("Gemm", ["c", "plain"], ["d"], "third"),
        helper.make_node("MatMul", ["d", "product"], ["logits"], "fourth"),
    ]
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 2, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), weights, axes


def test_int8_weights_are_within_half_a_step_of_their_own_channel():
    model, weights, axes = layers_model()
    found = weights_of(store_weights(model, INT8).model)
    assert found["bias"].dtype == np.float32
    for name, axis in axes.items():
        stored, scales = found[f"{name}.stored"], found[f"{name}.scales"]
        assert stored.dtype == np.int8
        assert np.abs(stored).max(axis=tuple(a for a in range(stored.ndim) if a != axis)).tolist() == [127] * len(
            scales.ravel()
        )
        assert (np.abs(stored * scales - weights[name]) <= 0.5001 * scales).all()


@pytest.mark.parametrize("storage", STORAGES)
def test_every_kind_of_layer_answers_nearly_as_before(storage):
    model, _, _ = layers_model()
    images = np.random.default_rng(1).standard_normal((5, 2, 4, 4), dtype=np.float32)
    before, after = (
        run(open_session(each.SerializeToString(), threads=1), images)
        for each in (model, store_weights(model, storage).model)
    )
    assert np.abs(after - before).max() < 0.03 * np.abs(before).max()
    assert after.tobytes() != before.tobytes()


def test_weights_that_16_bits_cannot_hold_stay_as_they_are():
    model, _, _ = layers_model()
    large = next(item for item in model.graph.initializer if item.name == "gemm")
    large.CopyFrom(numpy_helper.from_array(np.full((5, 3), 1e5, np.float32), "gemm"))
    stored = store_weights(model, FP16)
    assert (stored.layers, stored.left) == (3, ["gemm"])
    assert weights_of(stored.model)["gemm"].dtype == np.float32
    assert store_weights(model, BF16).left == []  # has the range of float32


def test_a_channel_of_zeros_and_shared_weights_are_stored_once():
    model, _, _ = layers_model()
    zeros = next(item for item in model.graph.initializer if item.name == "conv")
    values = numpy_helper.to_array(zeros).copy()
    values[1] = 0
    zeros.CopyFrom(numpy_helper.from_array(values, "conv"))
    model.graph.node.append(helper.make_node("Conv", ["images", "conv"], ["again"]))
    model.graph.output.append(helper.make_tensor_value_info("again", TensorProto.FLOAT, ["n", 3, 1, 1]))
    stored = store_weights(model, INT8)
    assert stored.layers == 4
    found = weights_of(stored.model)
    assert not found["conv.stored"][1].any()
    assert np.isfinite(found["conv.scales"]).all()
