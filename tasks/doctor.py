"""`kinglet doctor`: what is wrong with an int8 file, on labelled images, and what each repair is worth."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.adoption import Facts, adopt, facts_of, read_onnx
from kinglet.adoption.channel_order import red_first
from kinglet.atomic import write_bytes
from kinglet.compression.doctor.checks.preprocessing import PREPROCESSING_IMAGES, Way, check_preprocessing
from kinglet.compression.doctor.effects import logits_of
from kinglet.compression.doctor.examination import Examination, examine
from kinglet.compression.doctor.findings import NOTE, Finding, ranked
from kinglet.compression.doctor.qdq_form import is_quantized
from kinglet.compression.pixel_input import share_normalization, take_floats
from kinglet.data.classes import number_labels, read_class_names
from kinglet.errors import KingletError
from kinglet.models.onnx_graph import add_metadata, read_metadata
from kinglet.runtime.preprocessing import FITS, Preprocessing
from tasks.held_out import HeldOut
from tasks.labelled_images import LabelledImages, open_labelled_images
from tasks.optimize_preprocessing import find_scale, known_scale
from tasks.progress import progress

# Fewer tell nothing about an accuracy.
LEAST_IMAGES = 50
# Prepared images are held all at once, 4 bytes a number.
MOST_BYTES = 400_000_000


@dataclass(frozen=True)
class Request:
    """What to examine, and on what.

    preprocessing, mean, std, fit, classes: None where they stand in the file or are to be found out. output_name,
    input_size: as for `adopt`. tolerance: accuracy that may be lost, [0, 1). seconds: of timing for every file.
    """

    model: Path
    data: str
    float_model: Path | None = None
    write: Path | None = None
    classes: Path | None = None
    preprocessing: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fit: str | None = None
    output_name: str | None = None
    input_size: int | None = None
    tolerance: float = 0.005
    max_images: int = 1000
    threads: int = 1
    seconds: float = 0.5


@dataclass(frozen=True)
class Prepared:
    """Images as the file wants them, float32 (n, channels, size, size), the numbers of their classes, and the way.

    findings: on the preprocessing itself. notes: sentences on what was assumed.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: list[str]
    way: Way
    findings: list[Finding]
    notes: list[str] = field(default_factory=list)


def diagnose(request: Request) -> dict[str, Any]:
    """Return what is wrong with a file, JSON-ready: accuracy, findings, errors of layers, prices of repairs.

    Writes the repaired file if that is asked for and a repair helps.
    Raises KingletError for a file, a float file or images that cannot be used.
    """
    check(request)
    given = read_onnx(request.model)
    model = adopted(request, request.model, given, allow_quantized=True)
    float_model = None if request.float_model is None else adopted(request, request.float_model)
    refuse_other_network(request, model, float_model)
    if float_model is not None and take_floats(given) is not given:
        float_model = normalized_alike(float_model)
    prepared = prepare_images(request, model, float_model)
    result: dict[str, Any] = {
        "model": str(request.model),
        "float": None if request.float_model is None else str(request.float_model),
        "preprocessing": prepared.way.preprocessing.to_dict(),
        "notes": prepared.notes,
    }
    if not is_quantized(model):
        if request.write is not None:
            result["notes"] = [*prepared.notes, f"{request.write} was not written: there is nothing to repair."]
        return result | of_a_float_file(model, prepared)
    with progress("doctor") as report:
        found = examine(
            model,
            float_model,
            prepared.inputs,
            prepared.labels,
            request.tolerance,
            request.seconds,
            request.threads,
            report,
        )
    result |= found.to_dict()
    result["findings"] = [finding.to_dict() for finding in ranked([*prepared.findings, *found.findings])]
    if request.write is not None:
        write_repaired(request.write, model, prepared, found, result)
    return result


def check(request: Request) -> None:
    """Raise KingletError for options that cannot be followed, before any work is done."""
    for name in ("max_images", "threads"):
        if getattr(request, name) < 1:
            value = getattr(request, name)
            raise KingletError(f"--{name.replace('_', '-')} {value}: a number of 1 or more is wanted.")
    if not 0 <= request.tolerance < 1:
        raise KingletError(f"--tolerance {request.tolerance}: a share from 0 up to 1 is wanted, as 0.005.")
    if not request.seconds > 0:
        raise KingletError(f"--seconds {request.seconds}: a number above 0 is wanted.")
    if request.fit is not None and request.fit not in FITS:
        raise KingletError(f"--fit {request.fit}: unknown; known: {', '.join(FITS)}.")
    given = [request.model, *([request.float_model] if request.float_model else [])]
    if request.write is not None and request.write.resolve() in [path.resolve() for path in given]:
        raise KingletError(f"--write {request.write} is a file that is examined.", "Name another one.")


def adopted(
    request: Request, path: Path, model: onnx.ModelProto | None = None, allow_quantized: bool = False
) -> onnx.ModelProto:
    """Return the classifier in a file in the form that Kinglet knows; model: what is in it, if it was read already."""
    return adopt(
        take_floats(read_onnx(path) if model is None else model),
        str(path),
        output=request.output_name,
        input_size=request.input_size,
        allow_quantized=allow_quantized,
    )


def normalized_alike(float_model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the float model of a file that takes pixels with its channels normalized as that file's are."""
    written = read_metadata(float_model)
    stated = written.get("preprocessing")
    shared = share_normalization(float_model, Preprocessing.from_dict(stated)) if stated else None
    if shared is None:
        return float_model
    add_metadata(shared[0], {**written, "preprocessing": shared[1].to_dict()})
    return shared[0]


def refuse_other_network(request: Request, model: onnx.ModelProto, float_model: onnx.ModelProto | None) -> None:
    """Raise KingletError if the float file takes other images or knows other classes than the file."""
    if float_model is None or facts_of(float_model) == facts_of(model):
        return
    raise KingletError(
        f"{request.float_model} is no float file of {request.model}: it takes {described(facts_of(float_model))}, "
        f"the other {described(facts_of(model))}.",
        "Name the file that the int8 file was made from.",
    )


def described(facts: Facts) -> str:
    """Return what a model takes and gives, in words."""
    return f"{facts.input_size} px, {facts.channels} channels and has {facts.n_classes} outputs"


def prepare_images(request: Request, model: onnx.ModelProto, float_model: onnx.ModelProto | None) -> Prepared:
    """Return the images as the file says that they are prepared, as the user says, or as suits the float file best."""
    facts = facts_of(model)
    written = read_metadata(model).get("preprocessing") or read_metadata(float_model or model).get("preprocessing")
    fit = request.fit or (written or {}).get("fit", "stretch")
    most = MOST_BYTES // (4 * facts.channels * facts.input_size**2)
    with packed_images(request, facts, fit, min(request.max_images, most)) as images:
        classes, labels = labels_of(request, model, float_model, images)
        if len(labels) < LEAST_IMAGES:
            raise KingletError(
                f"--data: {len(labels)} usable images in {request.data}; at least {LEAST_IMAGES} are needed.",
                "Give images of all classes with their labels; a thousand tell differences of a point apart.",
            )
        packed = np.asarray(images.packed[images.rows])
    notes = []
    if most < min(request.max_images, images.n_files):
        notes.append(f"{most} images of {facts.input_size} px are as many as are held at once.")
    if images.left_out:
        notes.append(f"{len(images.left_out)} files were left out, the first: {images.left_out[0]['reason']}.")
    known = known_scale(request, facts.channels, written)
    if known is not None:
        scale = known[2]
    else:
        parts = [HeldOut(rows=np.arange(len(packed)), paths=images.paths.tolist(), labels=labels)]
        found = find_scale(float_model or model, packed, parts, fit, request)
        notes.append(f"the file does not say how its pixels are scaled: {found.sentence}.")
        scale = found.normalization
    way = Way("stated", Preprocessing(facts.input_size, facts.channels, fit, scale.mean, scale.std), scale.blue_first)
    findings = preprocessing_findings(request, float_model or model, way, facts, classes)
    return Prepared(way.prepare(packed), labels, classes, way, findings, notes)


@contextmanager
def packed_images(request: Request, facts: Facts, fit: str, count: int) -> Iterator[LabelledImages]:
    """Yield a sample of the images, packed into a file that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.npy"
        yield open_labelled_images(request.data, file, facts.input_size, facts.channels, fit, count)


def labels_of(
    request: Request, model: onnx.ModelProto, float_model: onnx.ModelProto | None, images: LabelledImages
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the class names in the order of the file's outputs, and the number of every image's class."""
    names = read_metadata(model).get("classes") or read_metadata(float_model or model).get("classes")
    if request.classes is not None:
        names = read_class_names(request.classes)
    return number_labels(list(images.labels), facts_of(model).n_classes, names, str(request.model))


def preprocessing_findings(
    request: Request, model: onnx.ModelProto, stated: Way, facts: Facts, classes: list[str]
) -> list[Finding]:
    """Return a finding if a model is right more often on images that are prepared in another way."""
    packed = {}
    for fit in FITS:
        with packed_images(request, facts, fit, PREPROCESSING_IMAGES) as images:
            packed[fit] = np.asarray(images.packed[images.rows])
            _, labels = number_labels(list(images.labels), facts.n_classes, classes, str(request.model))
    # Of square images all fits are the same.
    different = {
        fit: pixels for fit, pixels in packed.items() if not np.array_equal(pixels, packed[stated.preprocessing.fit])
    }
    fits = {**different, stated.preprocessing.fit: packed[stated.preprocessing.fit]}
    return check_preprocessing(stated, fits, labels, lambda inputs: logits_of(model, inputs), request.tolerance)


def of_a_float_file(model: onnx.ModelProto, prepared: Prepared) -> dict[str, Any]:
    """Return the result for a file that is not quantized: of all checks only that of the preprocessing applies."""
    answers = logits_of(model, prepared.inputs)
    finding = Finding(
        "not-quantized",
        NOTE,
        (),
        "This file is not quantized: no node rounds anything.",
        {},
        "Name the int8 file, and this one with --float; `kinglet optimize` makes an int8 file of it.",
    )
    return {
        "images": len(prepared.labels),
        "accuracy": round(float((answers.argmax(1) == prepared.labels).mean()), 6),
        "reference_accuracy": None,
        "guard": None,
        "latency_us": None,
        "findings": [item.to_dict() for item in ranked([*prepared.findings, finding])],
        "layers": [],
        "bisection": None,
        "layers_in_float": [],
        "left_out": ["All checks of quantization: the file is not quantized."],
        "repaired": None,
    }


def write_repaired(
    path: Path, model: onnx.ModelProto, prepared: Prepared, found: Examination, result: dict[str, Any]
) -> None:
    """Write the repaired file, with the metadata of the examined one, and put its path into the result."""
    if found.repaired is None:
        result["notes"] = [*result["notes"], f"{path} was not written: no repair helps."]
        return
    # A file with these metadata takes red first.
    repaired = red_first(found.repaired.model) if prepared.way.blue_first else found.repaired.model
    facts = {"preprocessing": prepared.way.preprocessing.to_dict(), "classes": prepared.classes}
    add_metadata(repaired, read_metadata(model) | facts)
    write_bytes(path, repaired.SerializeToString())
    result["repaired"]["file"] = str(path)
