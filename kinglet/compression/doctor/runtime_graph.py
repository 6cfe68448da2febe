"""The graph that ONNX Runtime really runs for a file, and the time that each of its nodes takes."""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from kinglet.compression.doctor.graph import ACTIVATIONS
from kinglet.compression.doctor.qdq_form import with_names
from kinglet.compression.fusion import CONVERSIONS, INTEGER_LAYERS, optimized
from kinglet.runtime.engines.onnxruntime import engine_of

RUNS = 40
WARM_UP_RUNS = 5


@dataclass(frozen=True)
class RuntimeGraph:
    """What is run for a file.

    operators: {node's name: operator}. shares: {node's name: its share of the time of all nodes}, [0, 1], measured
    at batch 1 on one thread.
    """

    model: onnx.ModelProto
    operators: dict[str, str]
    shares: dict[str, float]

    def is_integer(self, name: str) -> bool:
        """Whether the layer of this name is computed in integers."""
        return self.operators.get(name) in INTEGER_LAYERS

    def share_of(self, names: list[str]) -> float:
        """Return the share of the time that these nodes take together."""
        return sum(self.shares.get(name, 0.0) for name in names)

    def conversions_between(self) -> list[onnx.NodeProto]:
        """Return the conversions that do not stand at the ends of the network, where every int8 file has one."""
        ends = {item.name for item in (*self.model.graph.input, *self.model.graph.output)}
        return [
            node
            for node in self.model.graph.node
            if node.op_type in CONVERSIONS and not ends.intersection((*node.input, *node.output))
        ]


def runtime_graph(model: onnx.ModelProto) -> RuntimeGraph:
    """Return the graph that ONNX Runtime makes of a file on this machine, with times from its own profiler."""
    named = with_names(model)
    graph = optimized(named)
    taken: set[str] = set()
    for index, node in enumerate(graph.graph.node):
        name = _name_in_file(node.name or f"{node.op_type}_{index}", named)
        node.name = name if name not in taken else f"{name}_{index}"
        taken.add(node.name)
    operators = {node.name: node.op_type for node in graph.graph.node}
    microseconds = profile(graph)
    total = sum(microseconds.values())
    return RuntimeGraph(graph, operators, {name: time / total for name, time in microseconds.items()})


def _name_in_file(name: str, model: onnx.ModelProto) -> str:
    """Return what the file calls a node that ONNX Runtime gave another name when it changed the layout of images.

    Channels last: the file's name and "_token_N". Channels in blocks: the tensor behind the node, or behind the
    activation that was fused into it, and "_nchwc".
    """
    plain = re.sub(r"_token_\d+$", "", name)
    if not plain.endswith("_nchwc"):
        return plain
    makers = {output: node for node in model.graph.node for output in node.output}
    maker = makers.get(plain.removesuffix("_nchwc"))
    if maker is not None and maker.op_type in ACTIVATIONS:
        maker = makers.get(maker.input[0], maker)
    return plain if maker is None else str(maker.name)


def profile(model: onnx.ModelProto, runs: int = RUNS) -> dict[str, float]:
    """Return the median time in microseconds of every node at batch 1 on one thread, {name: time}.

    model: optimized already, it is run as it is.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        image = np.random.default_rng(0).standard_normal((1, *engine_of(session).input_shape), dtype=np.float32)
        for _ in range(WARM_UP_RUNS + runs):
            session.run(None, {session.get_inputs()[0].name: image})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"].removesuffix("_kernel_time")].append(float(event["dur"]))
    return {name: float(np.median(values[WARM_UP_RUNS:])) for name, values in sorted(times.items())}
