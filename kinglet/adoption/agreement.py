"""Whether an adopted model answers as the one it was made from, alone and in batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from kinglet.errors import KingletError

N_IMAGES = 3
# Of the largest answer. Sums in another order, and a softmax taken off and put on again, stay far below.
TOLERANCE, TOLERANCE_OF_HALVES = 1e-3, 3e-2


def widths_of(model: onnx.ModelProto, name: str) -> tuple[int, ...]:
    """Return the lengths of the output's axes after the first, for a model with one output.

    Raises KingletError if onnxruntime cannot run the model, or if it does not give one number for each of two
    or more classes.
    """
    shape = _answers(model, name, _images(model))[0].shape
    classes = [width for width in shape if width != 1]
    if len(classes) != 1:
        raise KingletError(
            f"{name} gives {' x '.join(map(str, shape)) or 'one number'} per image; a classifier gives one number for "
            "each of two or more classes.",
            "Kinglet optimizes image classifiers; another output is chosen by --output-name NAME.",
        )
    return tuple(shape)


def compare_answers(
    original: onnx.ModelProto,
    adopted: onnx.ModelProto,
    name: str,
    *,
    pixels_last: bool,
    softmax: bool,
    halves: bool,
) -> None:
    """Raise KingletError unless both models answer alike, `adopted` also when it is given several images at once.

    pixels_last: whether `original` takes NHWC. softmax: whether it ends in a softmax, or its logarithm, that was
    taken off. halves: whether it computes in float16.
    """
    tensors = _images(original)
    expected = np.stack(_answers(original, name, tensors)).reshape(N_IMAGES, -1)
    if not np.isfinite(expected).all():
        raise KingletError(f"{name} gives NaN or infinity for random pixels.", "Export the network again.")
    images = tensors.astype(np.float32)
    images = images.transpose(0, 3, 1, 2) if pixels_last else images
    session = open_plain(adopted, name)
    alone = np.concatenate([_run(session, images[place : place + 1], name) for place in range(N_IMAGES)])
    tolerance = TOLERANCE_OF_HALVES if halves else TOLERANCE
    difference = _difference(expected, alone, softmax)
    if not difference <= tolerance:
        raise KingletError(
            f"{name} cannot be brought into Kinglet's form: its answers would differ by {difference:.2g}.",
            "Please report it, with the file.",
        )
    hint = "Export it with a free batch axis; for torch.onnx.export: dynamic_axes={'input': {0: 'batch'}}."
    try:
        together = np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])
    except Exception as error:  # onnxruntime has a dozen exception types without a common one.
        raise KingletError(f"{name} cannot take several images at once: {_first_words(error)}", hint) from error
    if together.shape != alone.shape or not _relative(alone, together) <= tolerance:
        raise KingletError(f"{name} answers otherwise where several images come at once.", hint)


def open_plain(model: onnx.ModelProto, name: str) -> onnxruntime.InferenceSession:
    """Return a session on one thread; raises KingletError in the runtime's words if there can be none."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise KingletError(
            f"{name} cannot be loaded by onnxruntime {onnxruntime.__version__}: {_first_words(error)}",
            "Export the network again, with operators and an opset that onnxruntime knows.",
        ) from error


def _images(model: onnx.ModelProto) -> NDArray[Any]:
    """Return random pixels of the type and shape that the model takes, three images."""
    value = model.graph.input[0].type.tensor_type
    shape = [N_IMAGES, *(dimension.dim_value for dimension in value.shape.dim[1:])]
    element = onnx.helper.tensor_dtype_to_np_dtype(value.elem_type)
    if np.issubdtype(element, np.integer):
        return np.random.default_rng(0).integers(0, 256, shape).astype(element)
    return np.random.default_rng(0).standard_normal(shape).astype(element)


def _answers(model: onnx.ModelProto, name: str, images: NDArray[Any]) -> list[NDArray[np.float64]]:
    """Return what the model gives for each image alone, repeated to fill a fixed batch."""
    session = open_plain(model, name)
    length = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    batches = (np.repeat(images[place : place + 1], length, axis=0) for place in range(len(images)))
    return [_run(session, batch, name)[0].astype(np.float64) for batch in batches]


def _run(session: onnxruntime.InferenceSession, images: NDArray[Any], name: str) -> NDArray[Any]:
    try:
        return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])
    except Exception as error:
        raise KingletError(f"{name} cannot be run by onnxruntime: {_first_words(error)}") from error


def _difference(expected: NDArray[np.float64], logits: NDArray[Any], softmax: bool) -> float:
    """Return the largest difference of the answers, as a share of the largest; after a softmax if there was one."""
    found = logits.astype(np.float64)
    if softmax:
        shifted = found - found.max(1, keepdims=True)
        logarithms = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        # The logarithm of a probability is never positive, and a probability never negative.
        found = logarithms if (expected < 0).any() else np.exp(logarithms)
    return _relative(expected, found)


def _relative(expected: NDArray[Any], found: NDArray[Any]) -> float:
    return float(np.abs(expected - found).max() / max(float(np.abs(expected).max()), 1e-6))


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
