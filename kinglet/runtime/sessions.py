"""ONNX Runtime sessions as they are served: threads within the container's quota, telemetry off."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplementedByRuntime

from kinglet.errors import KingletError
from kinglet.runtime.preprocessing import InputTensor, Preprocessing, model_input
from kinglet.runtime.processors import available_processors

INPUT_NAME, OUTPUT_NAME = "images", "logits"
# What the part of a network over clips gives that sees single frames (kinglet.runtime.recurrence).
FEATURES_NAME = "features"
PREPROCESSING_KEY, CLASSES_KEY = "kinglet.preprocessing", "kinglet.classes"
# Where the runtime looks for weights that a model keeps in other files.
FOLDER_OF_WEIGHTS = "session.model_external_initializers_file_folder_path"
# On x86 without VNNI, "1" takes kernels whose sums of 8-bit products do not saturate; elsewhere it changes nothing.
# Source: onnxruntime, onnxruntime_session_options_config_keys.h, kOrtSessionOptionsAvx2PrecisionMode
EXACT_SUMS = "session.x64quantprecision"

onnxruntime.disable_telemetry_events()

Result = TypeVar("Result")


def open_session(
    model: Path | bytes,
    threads: int | None = None,
    *,
    exact_sums: bool = True,
    outputs: tuple[str, ...] = (OUTPUT_NAME,),
) -> onnxruntime.InferenceSession:
    """Return a session on the CPU for an ONNX file of Kinglet's, or its bytes.

    threads: size of the pool that works on one batch; None takes every processor that is granted. exact_sums: sums of
    8-bit products are those of a processor with VNNI, whatever this one is, so that what is decided does not depend on
    it; False: as fast as this processor can, as a model is served. outputs: those of a classifier,
    `detection.DETECTOR_OUTPUTS`, or FEATURES_NAME alone.
    Raises KingletError if it is no ONNX model or has another input than `images`, or other outputs.
    """
    session = load_session(model, threads, exact_sums=exact_sums)
    require_ends(session, model, outputs)
    return session


def require_ends(session: onnxruntime.InferenceSession, model: Path | bytes, outputs: tuple[str, ...]) -> None:
    """Raise KingletError if a model has another input than `images`, or other outputs. model: what was opened."""
    found_inputs, found = [item.name for item in session.get_inputs()], [item.name for item in session.get_outputs()]
    if found_inputs != [INPUT_NAME] or found != list(outputs):
        raise KingletError(
            f"{called(model)} has inputs {found_inputs} and outputs {found}; "
            f"Kinglet's models have {INPUT_NAME} and {' and '.join(outputs)}."
        )


def load_session(
    model: Path | bytes, threads: int | None = None, *, exact_sums: bool = True
) -> onnxruntime.InferenceSession:
    """Return a session on the CPU for an ONNX file of anybody's, or its bytes; threads and sums as for `open_session`.

    Raises KingletError if it is no ONNX model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or available_processors()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # Errors are raised; warnings about unused initializers help nobody.
    try:
        content = model if isinstance(model, bytes) else Path(model).read_bytes()
        if not isinstance(model, bytes):
            options.add_session_config_entry(FOLDER_OF_WEIGHTS, str(Path(model).resolve().parent))
        options.add_session_config_entry(EXACT_SUMS, str(int(exact_sums)))
        try:
            return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except NotImplementedByRuntime:
            # On x86 without VNNI those kernels do not take int8 activations, which only other tools write.
            options.add_session_config_entry(EXACT_SUMS, "0")
            return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except FileNotFoundError:
        raise KingletError(f"{called(model)} does not exist.", "Run `dvc repro` to make it.") from None
    except OSError:
        raise
    except Exception as error:  # onnxruntime has a dozen exception types without a common one.
        raise KingletError(
            f"{called(model)} cannot be loaded by onnxruntime: {' '.join(str(error).split())}."
        ) from error


def open_as_written(model: bytes) -> onnxruntime.InferenceSession:
    """Return a session for the bytes of an ONNX file that fuses nothing, on one thread.

    The same sums on any number of processors; int8 is computed in float32 between its roundings.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def called(model: Path | bytes) -> str:
    """Return what errors call a model."""
    return "the model" if isinstance(model, bytes) else str(model)


def read_metadata(session: onnxruntime.InferenceSession) -> tuple[Preprocessing, list[str]]:
    """Return the preprocessing and the class names that the model carries.

    Raises KingletError if it carries none.
    """
    metadata = session.get_modelmeta().custom_metadata_map
    try:
        return Preprocessing.from_dict(json.loads(metadata[PREPROCESSING_KEY])), list(json.loads(metadata[CLASSES_KEY]))
    except (KeyError, ValueError, TypeError) as error:
        raise KingletError(f"The model's metadata lack {PREPROCESSING_KEY} or {CLASSES_KEY} ({error!r}).") from None


def logits_of(
    session: onnxruntime.InferenceSession,
    packed: NDArray[np.uint8],
    rows: NDArray[np.integer[Any]],
    preprocessing: Preprocessing,
    batch_size: int = 64,
    workers: int = 1,
    report: Callable[[float, float], None] | None = None,
) -> NDArray[np.float32]:
    """Return the logits of these rows of packed images, float32 of shape (len(rows), n_classes).

    packed: uint8 of shape (n, input_size, input_size, channels), memory-mapped or not; only `workers`
    batches are held at a time. rows: row numbers. workers: batches computed side by side; a session of
    one thread with several workers gives the same bits on any number of processors.
    report is called with the rows done and all rows.
    """
    compute, width = partial(run, session), output_width(session)
    return gather_logits(compute, width, packed, rows, preprocessing, batch_size, workers, report)


def gather_logits(
    compute: Callable[[InputTensor], NDArray[np.float32]],
    n_classes: int,
    packed: NDArray[np.uint8],
    rows: NDArray[np.integer[Any]],
    preprocessing: Preprocessing,
    batch_size: int = 64,
    workers: int = 1,
    report: Callable[[float, float], None] | None = None,
) -> NDArray[np.float32]:
    """Return what `compute` makes of these rows of packed images, float32 (len(rows), n_classes); see `logits_of`.

    compute: the logits, float32 (n, n_classes), of a batch as `model_input` makes it, by any runtime.
    """
    results = []
    for logits in map_batches(compute, packed, rows, preprocessing, batch_size, workers):
        results.append(logits)
        if report:
            report(min(len(results) * batch_size, len(rows)), len(rows))
    return np.concatenate(results) if results else np.empty((0, n_classes), np.float32)


def map_batches(
    compute: Callable[[InputTensor], Result],
    packed: NDArray[np.uint8],
    rows: NDArray[np.integer[Any]],
    preprocessing: Preprocessing,
    batch_size: int,
    workers: int,
) -> Iterator[Result]:
    """Yield what `compute` makes of these rows of packed images, batch by batch, `workers` of them side by side.

    compute: takes a batch as `model_input` makes it.
    """

    def compute_from(start: int) -> Result:
        return compute(model_input(np.asarray(packed[rows[start : start + batch_size]]), preprocessing))

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(compute_from, range(0, len(rows), batch_size))


def run(session: onnxruntime.InferenceSession, images: InputTensor, output: str = OUTPUT_NAME) -> NDArray[np.float32]:
    """Return the logits of one batch, float32 (n, n_classes), or another output.

    images: as `model_input` makes them, uint8 where `takes_pixels` is true of the session.
    """
    return np.asarray(session.run([output], {INPUT_NAME: images})[0], dtype=np.float32)


def takes_pixels(session: onnxruntime.InferenceSession) -> bool:
    """Return whether a model takes pixels, uint8 (n, size, size, channels), and normalizes them itself."""
    return bool(session.get_inputs()[0].type == "tensor(uint8)")


def output_width(session: onnxruntime.InferenceSession) -> int:
    """Return the number of classes of the model."""
    width = session.get_outputs()[0].shape[-1]
    return int(width) if isinstance(width, int) else len(read_metadata(session)[1])


def softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return probabilities of shape (n, n_classes), float32, each row summing to 1; computed in float64."""
    shifted = logits.astype(np.float64) - np.maximum.reduce(logits, axis=-1, keepdims=True)
    exponentials = np.exp(shifted, out=shifted)
    exponentials /= np.add.reduce(exponentials, axis=-1, keepdims=True)
    return exponentials.astype(np.float32)
