"""A small trained classifier, and int8 files of it by ONNX Runtime's own quantizer, good ones and bad ones."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from kinglet.compression.doctor.effects import Trials
from kinglet.compression.doctor.subject import Subject, open_subject
from kinglet.data.batches import gather, standardize
from kinglet.models.export import to_onnx
from kinglet.training.loop import Recipe, fit
from kinglet.training.losses import label_loss
from tests.unit.models.small_networks import NETWORKS, bright_quadrants

MEAN, STD = [0.45] * 3, [0.25] * 3
N_IMAGES = 300


@dataclass(frozen=True)
class Work:
    """A float file, and images that it is tried on."""

    float_model: onnx.ModelProto
    inputs: np.ndarray
    labels: np.ndarray
    calibration: np.ndarray


def prepared(images) -> np.ndarray:
    return standardize(gather(images.packed[16], images.rows), MEAN, STD).contiguous().numpy()


def make_work(family: str) -> Work:
    """Train a network of a family for a second; it is right on most of the images, so that there is a lot to lose."""
    training, validation = bright_quadrants(320, seed=1), bright_quadrants(N_IMAGES, seed=2)
    recipe = Recipe(((4, 16),), 16, 0.02, 0.01, 0.1, 0.9, 0.9, 9, (), "fp32", 0)
    loss = label_loss(torch.from_numpy(training.labels), 0.1)
    network, _ = fit(
        NETWORKS[family](), training, validation, loss, recipe, mean=MEAN, std=STD, device=torch.device("cpu")
    )
    model = to_onnx(network, 16, 3, {"classes": ["a", "b", "c", "d"]})
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type.lower()}_{index}"
    return Work(model, prepared(validation), validation.labels, prepared(training)[:64])


class Images(CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self.batches = iter([{"images": images}])

    def get_next(self):
        return next(self.batches, None)


def quantized(model: onnx.ModelProto, calibration: np.ndarray, **settings) -> onnx.ModelProto:
    """Return what `quantize_static` makes of a model; per channel and uint8 activations unless told otherwise."""
    settings = {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, **settings}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(source, target, Images(calibration), **settings)
        return onnx.load(target)


INT8_SYMMETRIC = {"activation_type": QuantType.QInt8, "extra_options": {"ActivationSymmetric": True}}
QOPERATOR = {"quant_format": QuantFormat.QOperator}


def subject_of(model: onnx.ModelProto, work: Work, with_float: bool = True) -> Subject:
    return open_subject(model, work.float_model if with_float else None, work.inputs[:32])


def trials_of(work: Work, tolerance: float = 0.01) -> Trials:
    return Trials(work.inputs, work.labels, work.float_model, tolerance)


def changed(model: onnx.ModelProto, values: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return a copy with other values in these initializers."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for item in copy.graph.initializer:
        if item.name in values:
            item.CopyFrom(numpy_helper.from_array(values[item.name], item.name))
    return copy


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def with_uneven_channels(model: onnx.ModelProto, layer: str, factors: np.ndarray) -> onnx.ModelProto:
    """Return the model with the output channels of a convolution scaled, and scaled back in the one behind its ReLU."""
    nodes = {node.name: node for node in model.graph.node}
    relu = next(node for node in model.graph.node if nodes[layer].output[0] in node.input)
    second = next(node for node in model.graph.node if relu.output[0] in node.input)
    assert (relu.op_type, second.op_type) == ("Relu", "Conv")
    values = constants(model)
    factors = factors.astype(np.float32)
    weight, bias = nodes[layer].input[1:3]
    return changed(
        model,
        {
            weight: values[weight] * factors[:, None, None, None],
            bias: values[bias] * factors,
            second.input[1]: values[second.input[1]] / factors[None, :, None, None],
        },
    )
