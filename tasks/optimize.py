"""`kinglet optimize`: an ONNX classifier that exists already, brought to int8 without training, measured, compared."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kinglet.adoption import adopt, read_onnx
from kinglet.atomic import atomic_folder, write_bytes, write_json
from kinglet.compression.classification_judge import ClassificationJudge, LabelledRows
from kinglet.compression.ladder import STEPS, Settings, open_bench
from kinglet.compression.quantized import quantize_up
from kinglet.runtime.device import this_device
from tasks.bench import refuse_too_many_threads
from tasks.compression_settings import Quantize
from tasks.optimize_evidence import compare_models, without_vnni_of
from tasks.optimize_inputs import Given, examine
from tasks.optimize_options import MADE_BY, RESULT, Options, check
from tasks.optimize_report import FLATTERY, PAGE, write_bundle, write_report
from tasks.progress import progress

FORMAT = 1
CHOICE_IMAGES = 6000
WITH_TRAINING = (
    "Without training only the precision of the numbers changes. `kinglet run` with these images as data.source in "
    "params.yaml also trains smaller networks from a big one, and measures what resolution, depth and width cost: on a "
    "small machine these usually decide more."
)


def run(options: Options) -> dict[str, Any]:
    """Write the models, the report, the result and, if a model fits the budget, the bundle; return the result.

    `chosen` in it is None where nothing fits; `reason` then names the nearest misses. The folder appears as a whole
    or not at all. Raises KingletError for what the user can mend.
    """
    check(options)
    refuse_too_many_threads(options.threads, this_device())
    adopted = adopt(
        read_onnx(options.model), str(options.model), output=options.output_name, input_size=options.input_size
    )
    with atomic_folder(options.output) as work:
        packed_file = work / "images.npy"
        given = examine(adopted, packed_file, options)
        result = optimize(given, work, options)
        packed_file.unlink()
        write_json(work / RESULT, result)
    return result


def optimize(given: Given, work: Path, options: Options) -> dict[str, Any]:
    """Quantize and compare; write everything but the result into `work`, and return the result."""
    files = {name: work / f"{name}.onnx" for name in (given.name, f"{given.name}-int8")}
    float_file, int8_file = files.values()
    write_bytes(float_file, given.model.SerializeToString())
    quantization = quantize(given, int8_file, options)
    comparison = compare_models(files, given.images.packed, given.parts, given.classes, options)
    counts = {
        part: {label: int((of_part.labels == number).sum()) for number, label in enumerate(given.classes)}
        for part, of_part in given.parts.items()
    }
    write_report(work, comparison, quantization, given, counts, options)
    if comparison.chosen is not None:
        write_bundle(work, files[comparison.chosen], comparison, given, counts)
    other = without_vnni_of(int8_file)
    return {
        "format": FORMAT,
        "made_by": MADE_BY,
        "model": str(options.model),
        "data": options.data,
        "classes": given.classes,
        "preprocessing": {**given.preprocessing.to_dict(), **given.scale.to_dict()},
        "images": {part: len(of_part.rows) for part, of_part in given.parts.items()},
        "left_out": given.images.left_out,
        "budget": asdict(options.budget),
        "quantization": quantization,
        "models": comparison.models,
        "latency": {key: value for key, value in comparison.latency.items() if key != "models"},
        "chosen": comparison.chosen,
        "reason": comparison.reason,
        "notes": [FLATTERY, WITH_TRAINING],
        "files": {
            **{name: file.name for name, file in files.items()},
            **({"without_vnni": other.name} if other.is_file() else {}),
            "report": PAGE,
            "bundle": None if comparison.chosen is None else "bundle",
        },
    }


def quantize(given: Given, file: Path, options: Options) -> dict[str, Any]:
    """Write the int8 model, made the cheapest way that the guard lets pass, and its variant; return notes on it."""
    defaults = Quantize()
    tolerance = min(defaults.tolerance, options.budget.max_accuracy_drop)
    settings = Settings(defaults.methods, defaults.weight_bits, tolerance, defaults.max_float_layers)
    with progress(f"quantize {given.name}") as report:
        choice = labelled_rows(given, "validation").first(CHOICE_IMAGES)
        bench = open_bench(
            given.name,
            given.model,
            labelled_rows(given, "calibration").first(defaults.calibration_images).images,
            ClassificationJudge(given.model, choice, given.preprocessing),
            given.preprocessing,
            settings,
            report,
            warn,
            uint8_input=defaults.uint8_input,
        )
        quantized = quantize_up(bench, STEPS, given.classes)
    write_bytes(file, quantized.model.SerializeToString())
    if quantized.unfused_layers:
        warn(f"ONNX Runtime computes {quantized.unfused_layers} of the layers of {file.name} in float.")
    if quantized.without_vnni is not None:
        write_bytes(without_vnni_of(file), quantized.without_vnni.SerializeToString())
    return quantized.notes


def labelled_rows(given: Given, part: str) -> LabelledRows:
    """Return the images of one part as the ladder takes them."""
    return LabelledRows(given.images.packed, given.parts[part].rows, given.parts[part].labels)


def warn(sentence: str) -> None:
    """Print a warning to stderr."""
    print(f"warning: {sentence}", file=sys.stderr)
