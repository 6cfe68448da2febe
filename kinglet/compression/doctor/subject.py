"""What is known of a file under examination, found out once and read by every check."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.compression.calibration import Histogram, stream_histograms
from kinglet.compression.doctor.graph import Graph
from kinglet.compression.doctor.layers import Layer
from kinglet.compression.doctor.matching import Match, match
from kinglet.compression.doctor.qdq_form import to_qdq
from kinglet.compression.doctor.twin import float_twin, float_weights


@dataclass(frozen=True)
class Subject:
    """An int8 file and what was found out about it.

    original: the file. graph: its QDQ form. found: its match with the float file, None without one. twin: the
    float twin. histograms: of the twin's tensors where the file rounds, by the output of the QuantizeLinear.
    inputs: the images that they are of, float32 (n, channels, height, width).
    """

    original: onnx.ModelProto
    graph: Graph
    found: Match | None
    twin: onnx.ModelProto
    histograms: dict[str, Histogram]
    inputs: NDArray[np.float32]

    def float_weights(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return a layer's weights and biases before rounding, as far as they are known."""
        return float_weights(self.graph.layer[name], self.found)

    def knows_weights(self, layer: Layer) -> bool:
        """Whether the float file tells what a layer's weights were before rounding."""
        return self.found is not None and layer.name in self.found.layers

    @property
    def quantized(self) -> list[Layer]:
        """The layers with stored weights and a rounded input, in graph order."""
        return [layer for layer in self.graph.layers if layer.is_quantized]


def open_subject(model: onnx.ModelProto, float_model: onnx.ModelProto | None, inputs: NDArray[np.float32]) -> Subject:
    """Return what is known of an int8 file.

    model: with the input `images` and a free batch axis. float_model: the file that it was made from, if at hand.
    inputs: float32 (n, channels, height, width), a few dozen images as the file wants them.
    Raises KingletError if the float file is of another network.
    """
    graph = Graph(to_qdq(model))
    found = None if float_model is None else match(graph, float_model)
    twin = float_twin(graph, found)
    rounded = {pair.quantize.output[0] for pair in graph.pairs}
    return Subject(model, graph, found, twin, stream_histograms(twin, inputs, tensors=rounded), inputs)


def names_of(layers: Iterable[Layer]) -> tuple[str, ...]:
    """Return the layers' names in order."""
    return tuple(layer.name for layer in layers)
