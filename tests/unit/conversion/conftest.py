"""Small networks of both families as ONNX files, in float and in int8, made once for all tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from kinglet.compression.calibration import stream_histograms
from kinglet.compression.quantization import quantize_static
from kinglet.models.export import to_onnx
from tests.unit.models.small_networks import NETWORKS

SHAPE = (3, 24, 24)
IMAGES = np.random.default_rng(0).standard_normal((70, *SHAPE), dtype=np.float32)


@dataclass(frozen=True)
class Files:
    """Paths of ONNX files by (family, precision)."""

    paths: dict[tuple[str, str], Path]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("onnx")
    paths = {}
    for family, make in NETWORKS.items():
        model = to_onnx(make(), SHAPE[1], SHAPE[0], {"classes": ["a", "b", "c", "d"]})
        models = {"fp32": model, "int8": quantize_static(model, stream_histograms(model, IMAGES[:32]), "minmax")}
        last = [node.name for node in models["int8"].graph.node if node.op_type == "Conv"][2]
        histograms = stream_histograms(model, IMAGES[:32])
        models["mixed"] = quantize_static(model, histograms, "minmax", float_layers=[last])
        for precision, made in models.items():
            paths[family, precision] = folder / f"{family}-{precision}.onnx"
            onnx.save(made, paths[family, precision])
    return Files(paths)
