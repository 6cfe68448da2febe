"""How the file says what is quantized: integer operators, types of activations, scales chosen while it runs."""

from __future__ import annotations

import numpy as np
import onnx

from kinglet.compression.doctor.findings import NOTE, WARNING, Finding, counted
from kinglet.compression.doctor.qdq_form import QOPERATORS, dynamic_nodes
from kinglet.compression.doctor.repairs import with_unsigned_activations
from kinglet.compression.doctor.subject import Subject


def check_operators(subject: Subject) -> list[Finding]:
    """Return findings on integer operators with int8 activations and weights per channel, and on int8 activations.

    That combination gave 0 % with some versions of ONNX Runtime (onnxruntime#12072).
    """
    signed = [
        pair
        for pair in subject.graph.pairs
        if pair.grid.zero_point.dtype == np.int8 and pair.tensor in subject.graph.makers
    ]
    if not signed:
        return []
    integer_operators = [node.name for node in subject.original.graph.node if node.op_type in QOPERATORS]
    per_channel = [layer.name for layer in subject.quantized if layer.weight and layer.weight.grid.per_channel]
    if integer_operators and per_channel:
        return [
            Finding(
                "qoperator-int8-per-channel",
                WARNING,
                tuple(per_channel),
                f"{len(integer_operators)} integer operators (QOperator) with int8 activations and weights per "
                "channel: some versions of ONNX Runtime compute them wrong.",
                {"integer_operators": len(integer_operators), "layers_per_channel": len(per_channel)},
                "Write the file as QDQ pairs with uint8 activations.",
                with_unsigned_activations,
            )
        ]
    return [
        Finding(
            "int8-activations",
            NOTE,
            tuple(dict.fromkeys(subject.graph.makers[pair.tensor].name for pair in signed)),
            f"In int8: {counted(len(signed), 'tensor')}; ONNX Runtime's kernels for x86 want uint8.",
            {"tensors": len(signed)},
            "Quantize activations to uint8: the same numbers, 128 added to each integer.",
            with_unsigned_activations,
        )
    ]


def check_dynamic(model: onnx.ModelProto) -> list[Finding]:
    """Return a finding if nodes choose their scales while the file runs."""
    names = dynamic_nodes(model)
    if not names:
        return []
    return [
        Finding(
            "dynamic-quantization",
            WARNING,
            tuple(names),
            f"{len(names)} nodes choose their scales anew for every image (dynamic quantization), which costs time "
            "and suits convolutions badly; what they round was not looked at.",
            {"nodes": len(names)},
            "Quantize statically, with calibration images.",
        )
    ]
