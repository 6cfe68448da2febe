"""A LiteRT model while it is put together: tensors, operators, and at last the bytes of a .tflite file.

Source: the schema of the format, tensorflow/compiler/mlir/lite/schema/schema.fbs, whose names the classes and
fields here have; LiteRT's package brings the code that is generated from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from numpy.typing import NDArray

from kinglet.runtime.engines import import_runtime

NAME = "litert"
FORMAT_VERSION = 3
FILE_IDENTIFIER = b"TFL3"
# Codes above this do not fit the field that the first readers of the format knew.
LAST_OLD_CODE = 127
TYPES = {"float32": "FLOAT32", "int8": "INT8", "int32": "INT32"}


@dataclass(frozen=True)
class Quantization:
    """What the integers of a tensor stand for: scale * (integer - zero_point).

    scales: float32 (1,), or one for each place along `axis`.
    """

    scales: NDArray[np.float32]
    zero_point: int = 0
    axis: int = 0


class LiteRtGraph:
    """Tensors and operators in the order in which they are added; a tensor is known by its number."""

    def __init__(self) -> None:
        self.schema = import_runtime(NAME, "ai_edge_litert.schema_py_generated")
        empty = self.schema.BufferT()  # the first buffer stands for no content
        self._buffers: list[Any] = [empty]
        self._tensors: list[Any] = []
        self._codes: list[Any] = []
        self._operators: list[Any] = []

    def tensor(self, name: str, shape: tuple[int, ...], dtype: str, quantization: Quantization | None = None) -> int:
        """Add what an operator computes, or the model's input: its first axis is the batch, of any size.

        shape: with 1 for the batch. dtype: a key of `TYPES`.
        """
        number = self._add(name, shape, dtype, quantization)
        self._tensors[number].shapeSignature = [-1, *shape[1:]]
        return number

    def constant(self, name: str, values: NDArray[Any], quantization: Quantization | None = None) -> int:
        """Add a tensor with content."""
        number = self._add(name, values.shape, values.dtype.name, quantization)
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._tensors[number].buffer = len(self._buffers)
        self._buffers.append(buffer)
        return number

    def operator(
        self, name: str, inputs: list[int], output: int, version: int = 1, options: str = "", **fields: Any
    ) -> None:
        """Add an operator: its name in the schema's BuiltinOperator, and its options' type and fields."""
        added = self.schema.OperatorT()
        added.opcodeIndex = self._code(name, version)
        added.inputs, added.outputs = inputs, [output]
        if options:
            added.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            added.builtinOptions = getattr(self.schema, f"{options}T")()
            for field, value in fields.items():
                if not hasattr(added.builtinOptions, field):
                    raise AttributeError(f"{options} has no field {field}")
                setattr(added.builtinOptions, field, value)
        self._operators.append(added)

    def to_bytes(self, model_input: int, model_output: int) -> bytes:
        """Return the content of the .tflite file."""
        subgraph = self.schema.SubGraphT()
        subgraph.name = "kinglet"
        subgraph.tensors, subgraph.operators = self._tensors, self._operators
        subgraph.inputs, subgraph.outputs = [model_input], [model_output]
        model = self.schema.ModelT()
        model.version = FORMAT_VERSION
        model.description = ""
        model.operatorCodes, model.subgraphs, model.buffers = self._codes, [subgraph], self._buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _add(self, name: str, shape: tuple[int, ...], dtype: str, quantization: Quantization | None) -> int:
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), 0
        tensor.type = getattr(self.schema.TensorType, TYPES[dtype])
        if quantization is not None:
            parameters = self.schema.QuantizationParametersT()
            parameters.scale = quantization.scales.tolist()
            parameters.zeroPoint = [quantization.zero_point] * len(quantization.scales)
            parameters.quantizedDimension = quantization.axis
            tensor.quantization = parameters
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _code(self, name: str, version: int) -> int:
        code = self.schema.OperatorCodeT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, LAST_OLD_CODE)
        code.version = version
        for number, known in enumerate(self._codes):
            if (known.builtinCode, known.version) == (code.builtinCode, code.version):
                return number
        self._codes.append(code)
        return len(self._codes) - 1
