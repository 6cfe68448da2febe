"""Files that take pixels against files that take floats, and both against the float model, pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from kinglet.compression.calibration import FixedRange, stream_histograms
from kinglet.compression.fusion import fusions_of
from kinglet.compression.pixel_input import (
    FRAMED,
    Grid,
    pixel_ranges,
    share_normalization,
    take_floats,
    take_pixels,
)
from kinglet.compression.quantization import quantize_static
from kinglet.compression.saturation import Emulator
from kinglet.models.export import to_onnx
from kinglet.models.onnx_graph import add_metadata
from kinglet.runtime.preprocessing import Preprocessing, model_input, normalize
from kinglet.runtime.sessions import open_session, run
from tests.unit.models.small_networks import NETWORKS

SIZE = 16
GRAY = Preprocessing(SIZE, 1, "stretch", (0.286,), (0.353,))
IMAGENET = Preprocessing(SIZE, 3, "stretch", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Pixels from -1 to 1, from 0 to 255, and means that are far apart.
OTHERS = [
    Preprocessing(SIZE, 3, "stretch", (0.5,) * 3, (0.5,) * 3),
    Preprocessing(SIZE, 3, "stretch", (0.0,) * 3, (1 / 255,) * 3),
    Preprocessing(SIZE, 3, "stretch", (0.0, 0.5, 1.0), (0.1, 0.3, 0.5)),
]
ALL = [GRAY, IMAGENET, *OTHERS]


def pixels(preprocessing: Preprocessing, n: int = 24) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, preprocessing.channels), np.uint8)
    images[0], images[1] = 0, 255
    return images


def answers(model: onnx.ModelProto, preprocessing: Preprocessing, images: np.ndarray) -> np.ndarray:
    return run(open_session(model.SerializeToString(), threads=1), model_input(images, preprocessing))


def convolution(preprocessing: Preprocessing, padding: tuple[int, ...] = (1, 1), bias: bool = True) -> onnx.ModelProto:
    """Return a model of one convolution whose every output is a logit, so that a wrong border shows."""
    torch.manual_seed(0)
    layer = nn.Conv2d(preprocessing.channels, 4, 3, stride=2, padding=padding, bias=bias)
    return to_onnx(nn.Sequential(layer, nn.Flatten()), SIZE, preprocessing.channels, {})


def quantized(
    model: onnx.ModelProto, preprocessing: Preprocessing, float_layers: tuple[str, ...] = ()
) -> onnx.ModelProto:
    histograms = stream_histograms(model, normalize(pixels(preprocessing), preprocessing))
    fixed = {name: FixedRange(*of) for name, of in pixel_ranges(preprocessing).items() if name in histograms}
    return quantize_static(model, {**histograms, **fixed}, "minmax", 8, float_layers)


@pytest.mark.parametrize("preprocessing", ALL)
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 0)])
def test_the_shared_normalization_changes_no_answer_beyond_half_a_pixel_of_padding(preprocessing, padding):
    model, images = convolution(preprocessing, padding), pixels(preprocessing)
    shared, alike = share_normalization(model, preprocessing)
    assert len(set(alike.mean)) == len(set(alike.std)) == 1
    expected, found = answers(model, preprocessing, images), answers(shared, alike, images)
    weights = next(numpy_helper.to_array(item) for item in model.graph.initializer if len(item.dims) == 4)
    half_a_pixel = np.abs(weights).sum(axis=(2, 3)) @ (0.5 / 255 / np.asarray(preprocessing.std))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=half_a_pixel.max() + 1e-5 * scale)
    # Far from the padding nothing differs.
    inner = np.abs(found - expected).reshape(len(images), 4, -1).min(axis=(0, 2))
    assert (inner < 1e-5 * scale).all()


@pytest.mark.parametrize(
    ("preprocessing", "padding", "framed"),
    [(GRAY, (1, 1), False), (OTHERS[1], (1, 1), False), (IMAGENET, (0, 0), False), (IMAGENET, (1, 1), True)],
)
def test_a_frame_is_laid_only_where_the_layer_pads_and_the_means_differ(preprocessing, padding, framed):
    shared, _ = share_normalization(convolution(preprocessing, padding), preprocessing)
    assert (FRAMED in {node.name for node in shared.graph.node}) is framed


def test_without_a_bias_the_layer_gets_one():
    shared, alike = share_normalization(convolution(GRAY, bias=False), GRAY)
    images = pixels(GRAY)
    expected = answers(convolution(GRAY, bias=False), GRAY, images)
    np.testing.assert_allclose(answers(shared, alike, images), expected, atol=0.02)


@pytest.mark.parametrize("family", list(NETWORKS))
@pytest.mark.parametrize("preprocessing", ALL)
def test_a_file_that_takes_pixels_answers_bit_for_bit_as_the_one_that_takes_floats(family, preprocessing):
    network = NETWORKS[family](channels=preprocessing.channels)
    model, alike = share_normalization(to_onnx(network, SIZE, preprocessing.channels, {}), preprocessing)
    of_floats = quantized(model, alike)
    of_pixels = take_pixels(of_floats, alike)
    images = pixels(preprocessing)
    expected = answers(of_floats, alike, images)
    found = answers(of_pixels, replace(alike, takes_pixels=True), images)
    np.testing.assert_array_equal(found, expected)
    assert np.ptp(expected) > 0
    # The conversion at the input is gone, and no other has come.
    assert fusions_of(of_pixels).conversions == fusions_of(of_floats).conversions - 1
    assert fusions_of(of_pixels).integer_layers == fusions_of(of_floats).integer_layers


@pytest.mark.parametrize("preprocessing", [GRAY, IMAGENET])
def test_the_emulation_of_processors_without_vnni_takes_pixels_too(preprocessing):
    network = NETWORKS["residual-cnn"](channels=preprocessing.channels)
    model, alike = share_normalization(to_onnx(network, SIZE, preprocessing.channels, {}), preprocessing)
    of_floats = quantized(model, alike)
    images = pixels(preprocessing)
    expected, saturated = Emulator(of_floats).run(normalize(images, alike))
    found, also_saturated = Emulator(take_pixels(of_floats, alike)).run(images)
    np.testing.assert_array_equal(found, expected)
    assert saturated == also_saturated


@pytest.mark.parametrize("preprocessing", [GRAY, IMAGENET])
def test_a_first_layer_in_float_gets_its_pixels_through_their_grid(preprocessing):
    network = NETWORKS["residual-cnn"](channels=preprocessing.channels)
    model, alike = share_normalization(to_onnx(network, SIZE, preprocessing.channels, {}), preprocessing)
    first = next(node.name for node in model.graph.node if node.op_type == "Conv")
    of_floats = quantized(model, alike, (first,))
    images = pixels(preprocessing)
    found = answers(take_pixels(of_floats, alike), replace(alike, takes_pixels=True), images)
    expected = answers(of_floats, alike, images)
    # The last bits of a normalized pixel differ, and may move a sum to the next of 256 levels.
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.9
    assert np.abs(found - expected).mean() < 0.01 * np.ptp(expected)


@pytest.mark.parametrize("preprocessing", ALL)
def test_floats_are_taken_again_with_the_same_integers_behind_them(preprocessing):
    network = NETWORKS["residual-cnn"](channels=preprocessing.channels)
    model, alike = share_normalization(to_onnx(network, SIZE, preprocessing.channels, {}), preprocessing)
    of_floats = quantized(model, alike)
    of_pixels = take_pixels(of_floats, alike)
    add_metadata(of_pixels, {"preprocessing": replace(alike, takes_pixels=True).to_dict(), "classes": ["a"]})
    back = take_floats(of_pixels)
    images = pixels(preprocessing)
    np.testing.assert_array_equal(answers(back, alike, images), answers(of_floats, alike, images))
    written = {item.key: item.value for item in back.metadata_props}
    assert written.keys() == {"kinglet.preprocessing", "kinglet.classes"}
    assert "takes_pixels" not in written["kinglet.preprocessing"]
    assert take_floats(back) is back


def test_a_model_without_metadata_is_left_as_it_is():
    model = convolution(GRAY)
    assert take_floats(model) is model


def padded_by_rule(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER"))


def read_twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Identity", ["images"], ["other"]))


def read_by_another(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Relu", ["images"], ["other"]))
    model.graph.node[1].input[0] = "other"


def computed_weights(model: onnx.ModelProto) -> None:
    name = model.graph.node[0].input[1]
    model.graph.node.insert(0, helper.make_node("Identity", [name], ["computed"]))
    model.graph.node[1].input[1] = "computed"


@pytest.mark.parametrize("change", [padded_by_rule, read_twice, read_by_another, computed_weights])
def test_a_graph_that_does_not_begin_with_one_plain_convolution_is_refused(change: Callable[[onnx.ModelProto], None]):
    model = convolution(GRAY)
    assert share_normalization(model, GRAY) is not None
    change(model)
    assert share_normalization(model, GRAY) is None


@pytest.mark.parametrize("mean", [-0.1, 1.1])
def test_a_mean_that_no_pixel_can_have_is_refused(mean):
    assert share_normalization(convolution(GRAY), replace(GRAY, mean=(mean,))) is None


def test_whole_pixels_lie_on_the_grid():
    _, alike = share_normalization(convolution(IMAGENET), IMAGENET)
    grid = Grid.of(alike)
    every = np.arange(256, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    normalized = normalize(every, alike)[:, 0, 0, 0]
    np.testing.assert_array_equal(np.rint(normalized / np.float32(grid.step)) + grid.zero_point, np.arange(256))
    np.testing.assert_allclose(grid.range, (normalized[0], normalized[-1]), rtol=1e-5)
