"""An ONNX graph computed piece by piece, so that a layer can be changed after all that lies before it is known."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.runtime.sessions import open_as_written


class Walk:
    """A model's tensors for fixed inputs, each computed when it is asked for, from those at hand.

    inputs: float32 (n, channels, height, width). What a piece computes follows the initializers as they
    are then: whoever walks may change those of a layer before its output is asked for, or put another
    value for the output into `known` afterwards. Tensors that no node waits for any more are forgotten.
    """

    def __init__(self, model: onnx.ModelProto, inputs: NDArray[np.float32]) -> None:
        self.model = model
        self.known: dict[str, NDArray[np.generic]] = {model.graph.input[0].name: inputs}
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.initializers = {item.name: item for item in model.graph.initializer}
        self.waiting = {id(node): node for node in model.graph.node}

    def value(self, name: str) -> NDArray[np.float32]:
        """Return a float tensor of the model. Raises KeyError if it was forgotten or does not exist."""
        if name not in self.known:
            self._compute(self.makers[name])
        return np.asarray(self.known[name], dtype=np.float32)

    def _compute(self, node: onnx.NodeProto) -> None:
        piece = self._missing_before(node)
        for done in piece:
            del self.waiting[id(done)]
        needed = {name for other in self.waiting.values() for name in other.input}
        made = [name for done in piece for name in done.output if name in needed or done is node]
        inputs = sorted({name for done in piece for name in done.input if name in self.known})
        stored = sorted({name for done in piece for name in done.input if name in self.initializers})
        graph = onnx.helper.make_graph(
            piece,
            "piece",
            [_typed(name, self.known[name]) for name in inputs],
            [onnx.ValueInfoProto(name=name) for name in made],
            [self.initializers[name] for name in stored],
        )
        model = onnx.helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)
        values = open_as_written(model.SerializeToString()).run(made, {name: self.known[name] for name in inputs})
        self.known = {name: value for name, value in self.known.items() if name in needed}
        self.known.update(zip(made, values, strict=True))

    def _missing_before(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        wanted = {id(node)}
        open_names = list(node.input)
        while open_names:
            name = open_names.pop()
            maker = None if name in self.known else self.makers.get(name)
            if maker is not None and id(maker) not in wanted:
                wanted.add(id(maker))
                open_names.extend(maker.input)
        return [waiting for waiting in self.waiting.values() if id(waiting) in wanted]


def _typed(name: str, value: NDArray[np.generic]) -> onnx.ValueInfoProto:
    element = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    return onnx.helper.make_tensor_value_info(name, element, [None] * value.ndim)
