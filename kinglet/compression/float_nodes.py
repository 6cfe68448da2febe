"""Single float nodes of an ONNX graph, computed by ONNX Runtime apart from the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from kinglet.runtime.sessions import open_as_written

Array = NDArray[Any]


class FloatNodes:
    """Single nodes of a model computed by ONNX Runtime as they are written, each opened once."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._opsets, self._ir_version = list(model.opset_import), model.ir_version
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def run(self, node: onnx.NodeProto, arguments: list[Any]) -> dict[str, Array]:
        """Return the node's outputs by name. arguments: its inputs in their order, None where one is left out."""
        given = {name: np.asarray(value) for name, value in zip(node.input, arguments, strict=True) if name}
        key = node.output[0]
        if key not in self._sessions:
            self._sessions[key] = open_as_written(self._alone(node, given).SerializeToString())
        names = [name for name in node.output if name]
        return dict(zip(names, self._sessions[key].run(names, given), strict=True))

    def _alone(self, node: onnx.NodeProto, given: dict[str, Array]) -> onnx.ModelProto:
        inputs = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim
            )
            for name, value in given.items()
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = onnx.helper.make_graph([node], "node", inputs, outputs)
        return onnx.helper.make_model(graph, opset_imports=self._opsets, ir_version=self._ir_version)
