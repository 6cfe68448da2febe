"""A copy of a network in QDQ form that repairs change in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from kinglet.compression.doctor.graph import Graph
from kinglet.models.onnx_graph import keep_only_needed


class Edit:
    """A copy of a model in QDQ form that is being changed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        del self.model.graph.value_info[:]
        self.graph = Graph(self.model)
        self.before = self.graph.layer  # read here: it tells what the layers were, whatever is changed afterwards
        self._first: list[onnx.NodeProto] = []

    def constant(self, name: str, values: Any) -> str:
        """Store a constant under this name, in place of one that a former repair stored; return the name."""
        tensor = numpy_helper.from_array(np.asarray(values), name)
        for item in self.model.graph.initializer:
            if item.name == name:
                item.CopyFrom(tensor)
                return name
        self.model.graph.initializer.append(tensor)
        return name

    def stored(self, name: str, values: NDArray[Any], scale: NDArray[np.float32], axis: int | None) -> str:
        """Store integers around 0 and their DequantizeLinear; return the name of what it gives."""
        scales = scale if axis is not None else scale.reshape(())
        inputs = [
            self.constant(f"{name}.stored", values),
            self.constant(f"{name}.scale", scales.astype(np.float32)),
            self.constant(f"{name}.zero_point", np.zeros(scales.shape, values.dtype)),
        ]
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        output = f"{name}.floats"
        node = helper.make_node("DequantizeLinear", inputs, [output], name=f"{output}.node", **attributes)
        if output in self.graph.makers:
            self.graph.makers[output].CopyFrom(node)
        else:
            self._first.append(node)
        return output

    def finish(self) -> onnx.ModelProto:
        """Return the changed model, its nodes in order and without what nothing reads."""
        nodes = [*self._first, *self.model.graph.node]
        del self.model.graph.node[:]
        self.model.graph.node.extend(nodes)
        keep_only_needed(self.model)
        return self.model


def constants_first(model: onnx.ModelProto) -> None:
    """Put the nodes that read constants only to the front: the format asks for nodes in order."""
    constants = {item.name for item in model.graph.initializer}
    first = [node for node in model.graph.node if constants.issuperset(node.input)]
    rest = [node for node in model.graph.node if not constants.issuperset(node.input)]
    del model.graph.node[:]
    model.graph.node.extend([*first, *rest])
