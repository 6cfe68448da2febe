"""A model brought to int8: up the ladder, checked on the graph that ONNX Runtime runs, with a variant without VNNI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import onnx

from kinglet.compression.fusion import fusions_of
from kinglet.compression.ladder import Bench, Step, calibrated, climb
from kinglet.compression.pixel_input import take_pixels
from kinglet.compression.quantization import weighted_layers
from kinglet.compression.without_vnni import judge_without_vnni
from kinglet.models.onnx_graph import PROBLEM, add_metadata, read_metadata
from kinglet.runtime.preprocessing import Preprocessing


@dataclass(frozen=True)
class Quantized:
    """An int8 model and what is to be known of it.

    without_vnni: a variant for x86 processors without VNNI, None where the model is good enough there or cannot be
    emulated. preprocessing: how an image becomes the input of both. notes: how it was made and judged, JSON-ready.
    """

    model: onnx.ModelProto
    without_vnni: onnx.ModelProto | None
    preprocessing: Preprocessing
    notes: dict[str, Any]

    @property
    def unfused_layers(self) -> int:
        """How many layers ONNX Runtime computes in float though they were quantized."""
        return int(self.notes["runtime"]["unfused_layers"])


def quantize_up(bench: Bench, steps: Mapping[str, Step], classes: list[str]) -> Quantized:
    """Return the bench's model as int8, made the cheapest way that the guard lets pass.

    steps: those of the ladder after calibration. classes: names that go into the metadata.
    """
    candidate, tried = calibrated(bench)
    candidate, verdict, taken = climb(candidate, bench, steps)
    judged, variant = judge_without_vnni(candidate, bench)
    preprocessing = replace(bench.preprocessing, takes_pixels=bench.takes_pixels)
    facts = {**of_problem(bench.model), "classes": classes}
    model = finished(candidate.quantized, preprocessing, facts)
    fusions = fusions_of(model)
    notes = {
        "steps": taken,
        "variant": asdict(candidate.variant),
        "tried": [asdict(item) for item in tried],
        "guard": verdict.to_dict(),
        "runtime": {
            **fusions.to_dict(),
            "unfused_layers": max(
                0,
                len(weighted_layers(candidate.source)) - len(candidate.variant.float_layers) - fusions.integer_layers,
            ),
        },
        "without_vnni": judged,
    }
    without_vnni = None if variant is None else finished(variant, preprocessing, facts)
    return Quantized(model, without_vnni, preprocessing, notes)


def of_problem(model: onnx.ModelProto) -> dict[str, Any]:
    """Return what the float model's metadata say of its problem; nothing for a classifier."""
    return {name: value for name, value in read_metadata(model).items() if name == PROBLEM}


def finished(quantized: onnx.ModelProto, preprocessing: Preprocessing, facts: dict[str, Any]) -> onnx.ModelProto:
    """Return the int8 model with its metadata, and with pixels as its input if `preprocessing` says so."""
    model = take_pixels(quantized, preprocessing) if preprocessing.takes_pixels else quantized
    add_metadata(model, {**facts, "preprocessing": preprocessing.to_dict()})
    return model
