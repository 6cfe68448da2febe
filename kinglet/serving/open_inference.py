"""The Open Inference Protocol, version 2, over REST: tensors in, tensors out, as JSON or as raw bytes after it.

Source: github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md; its binary tensor
extension, github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from kinglet.runtime.preprocessing import InputTensor
from kinglet.runtime.sessions import INPUT_NAME
from kinglet.serving.problems import problem_of
from kinglet.serving.refusals import RefusedError
from kinglet.serving.served_model import InputFormat, ServedModel

HEADER_LENGTH = b"inference-header-content-length"
# Of the outputs, and how the numbers of each datatype lie in raw bytes.
DATATYPE = "FP32"
NUMBERS: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}
EXTENSIONS = ("binary_tensor_data",)


@dataclass(frozen=True)
class TensorRequest:
    """What is asked for: a tensor, and outputs as (name, whether in raw bytes) pairs. id: "" if none was given."""

    id: str
    tensor: InputTensor
    outputs: tuple[tuple[str, bool], ...]


def model_metadata(model: ServedModel) -> dict[str, Any]:
    """Return what `GET /v2/models/NAME` says."""
    takes = model.input_format
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": f"{model.predictor.runtime}_{model.predictor.model_file.rpartition('.')[2]}",
        "inputs": [{"name": INPUT_NAME, "datatype": takes.datatype, "shape": [-1, *takes.shape]}],
        "outputs": [
            {"name": name, "datatype": DATATYPE, "shape": shape}
            for name, shape in problem_of(model).shapes(model).items()
        ],
        # Not of the protocol, and allowed by it: what a client needs to make the tensor and to read the answer.
        "parameters": {
            "classes": model.predictor.classes,
            "preprocessing": model.predictor.preprocessing.to_dict(),
            "golden_difference": model.golden_difference,
        },
    }


def read_request(body: bytes, header_length: bytes | None, model: ServedModel) -> TensorRequest:
    """Return the request in a body.

    header_length: the value of Inference-Header-Content-Length, None without one.
    Raises RefusedError that says which part is not as the model needs it.
    """
    header, raw = split_body(body, header_length)
    fields = read_object(header)
    request_id = fields.get("id", "")
    if not isinstance(request_id, str):
        raise bad("`id` has to be a string")
    tensor = read_input(fields.get("inputs"), raw, model.input_format)
    return TensorRequest(request_id, tensor, read_outputs(fields, tuple(problem_of(model).shapes(model))))


def split_body(body: bytes, header_length: bytes | None) -> tuple[bytes, memoryview]:
    """Return the JSON of a body and the raw bytes behind it."""
    if header_length is None:
        return body, memoryview(b"")
    if not (header_length.isascii() and header_length.isdigit()) or int(header_length) > len(body):
        raise bad(
            f"Inference-Header-Content-Length is {header_length.decode('ascii', 'replace')[:40]!r}; it is the number "
            f"of bytes of JSON at the start of a body that has {len(body)}"
        )
    length = int(header_length)
    return body[:length], memoryview(body)[length:]


def read_object(header: bytes) -> dict[str, Any]:
    """Return the JSON object of a request."""
    if not header.strip():
        raise RefusedError("empty_body", "The body is empty; a JSON object with `inputs` is needed.")
    try:
        fields = orjson.loads(header)
    except orjson.JSONDecodeError as error:
        # NaN and Infinity are no JSON either.
        raise RefusedError("bad_json", f"The body is no JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise bad("the request has to be a JSON object with `inputs`")
    return fields


def read_input(inputs: Any, raw: memoryview, takes: InputFormat) -> InputTensor:
    """Return the one input tensor."""
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise bad(f"`inputs` has to be a list of one tensor, {INPUT_NAME!r}")
    item = inputs[0]
    if item.get("name") != INPUT_NAME:
        raise bad(f"there is no input {shown(item.get('name'))}; the model has one, {INPUT_NAME!r}")
    if item.get("datatype") != takes.datatype:
        raise bad(f"input {INPUT_NAME!r} has datatype {shown(item.get('datatype'))}; it takes {takes.datatype!r}")
    shape = read_shape(item.get("shape"), takes.shape)
    parameters = read_parameters(item)
    size = parameters.get("binary_data_size")
    if size is None:
        tensor = from_numbers(item.get("data"), shape, takes.datatype)
        if len(raw):
            raise bad(f"{len(raw)} bytes follow the JSON, but no input has binary_data_size")
    else:
        if "data" in item:
            raise bad(f"input {INPUT_NAME!r} has both data and binary_data_size")
        tensor = from_bytes(raw, size, shape, takes.datatype)
    finite = np.isfinite(tensor)
    if not finite.all():
        where = [int(index) for index in np.argwhere(~finite)[0]]
        raise bad(f"input {INPUT_NAME!r} holds NaN, infinity or a number too large for {takes.datatype} at {where}")
    return tensor


def read_shape(shape: Any, input_shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Return the shape of an input, n at least 1 images of the model's shape."""
    is_list = isinstance(shape, list) and all(type(edge) is int for edge in shape)
    if not is_list or len(shape) != 4 or tuple(shape[1:]) != input_shape or not 1 <= shape[0] < 2**31:
        wanted = ", ".join(map(str, ("n", *input_shape)))
        raise bad(f"input {INPUT_NAME!r} has shape {shown(shape)}; it takes [{wanted}] with n of at least 1")
    return tuple(shape)


def from_numbers(data: Any, shape: tuple[int, ...], datatype: str) -> InputTensor:
    """Return the tensor of a JSON list, flat or nested like the shape."""
    if not isinstance(data, list):
        raise bad(f"input {INPUT_NAME!r} has no `data`, and no binary_data_size either")
    try:
        numbers = np.asarray(data)
    except ValueError:
        raise bad(f"the `data` of input {INPUT_NAME!r} is nested unevenly") from None
    if numbers.dtype.kind not in "iuf" and numbers.size:
        raise bad(f"the `data` of input {INPUT_NAME!r} holds something that is no number")
    needed = int(np.prod(shape, dtype=object))
    if numbers.size != needed or numbers.shape not in (shape, (needed,)):
        raise bad(
            f"the `data` of input {INPUT_NAME!r} has shape {list(numbers.shape)}; flat or nested, {list(shape)} takes "
            f"{needed} numbers"
        )
    if datatype == "UINT8":
        return pixels_of(numbers).reshape(shape)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(numbers.reshape(shape), dtype=np.float32)


def pixels_of(numbers: NDArray[Any]) -> NDArray[np.uint8]:
    """Return numbers of JSON as pixels; raises RefusedError for the first that is no whole number from 0 to 255."""
    pixels = np.zeros(numbers.shape, np.uint8)
    with np.errstate(invalid="ignore"):
        np.copyto(pixels, numbers, casting="unsafe", where=(numbers >= 0) & (numbers <= np.iinfo(np.uint8).max))
    wrong = np.argwhere(pixels != numbers)
    if len(wrong):
        value = numbers[tuple(wrong[0])].item()
        raise bad(f"input {INPUT_NAME!r} holds {shown(value)}; UINT8 is a whole number from 0 to 255")
    return pixels


def from_bytes(raw: memoryview, size: Any, shape: tuple[int, ...], datatype: str) -> InputTensor:
    """Return the tensor of the raw bytes behind the JSON, little-endian, row by row."""
    numbers = NUMBERS[datatype]
    needed = numbers.itemsize * int(np.prod(shape, dtype=object))
    if type(size) is not int or size != needed or len(raw) != needed:
        raise bad(
            f"input {INPUT_NAME!r} of shape {list(shape)} takes {needed} bytes; binary_data_size is {shown(size)}, and "
            f"{len(raw)} bytes follow the JSON"
        )
    return np.frombuffer(raw, numbers).reshape(shape).astype(numbers.newbyteorder("="), copy=False)


def read_outputs(fields: dict[str, Any], names: tuple[str, ...]) -> tuple[tuple[str, bool], ...]:
    """Return which outputs are asked for, and whether in raw bytes; all of them if none is named. names: there are."""
    default = is_true(read_parameters(fields), "binary_data_output")
    asked = fields.get("outputs")
    if asked is None or asked == []:
        return tuple((name, default) for name in names)
    if not isinstance(asked, list) or not all(isinstance(item, dict) for item in asked):
        raise bad("`outputs` has to be a list of objects with a name")
    found: dict[str, bool] = {}
    for item in asked:
        name = item.get("name")
        if name not in names:
            raise bad(f"there is no output {shown(name)}; the model has {', '.join(map(repr, names))}")
        parameters = read_parameters(item)
        found[name] = is_true(parameters, "binary_data") if "binary_data" in parameters else default
        if parameters.get("classification") not in (None, 0):
            raise bad("the classification extension is not served; POST /predict answers with classes")
    return tuple(found.items())


def read_parameters(item: dict[str, Any]) -> dict[str, Any]:
    """Return the `parameters` of a request or a tensor, an object if there are any."""
    parameters = item.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise bad("`parameters` has to be an object")
    return parameters


def is_true(parameters: dict[str, Any], name: str) -> bool:
    """Return a parameter that is true or false, false if it is absent."""
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise bad(f"{name} is {shown(value)}; it is true or false")
    return value


def write_answer(
    model: ServedModel, request: TensorRequest, given: NDArray[np.float32]
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Return the body of the answer and its headers. given: what the model gives.

    Raises RefusedError if the numbers of the request were too large for the model's arithmetic.
    """
    if not np.isfinite(given).all():
        raise bad(f"the numbers of input {INPUT_NAME!r} are too large: the model's answer is not finite")
    arrays = problem_of(model).tensors(given)
    outputs, raw = [], []
    for name, in_bytes in request.outputs:
        array = np.ascontiguousarray(arrays[name], "<f4")
        output: dict[str, Any] = {"name": name, "datatype": DATATYPE, "shape": list(array.shape)}
        if in_bytes:
            output["parameters"] = {"binary_data_size": array.nbytes}
            raw.append(array.tobytes())
        else:
            output["data"] = array.ravel()
        outputs.append(output)
    answer: dict[str, Any] = {"model_name": model.name, "model_version": model.version, "outputs": outputs}
    if request.id:
        answer["id"] = request.id
    header = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    if not raw:
        return header, [(b"content-type", b"application/json")]
    length = str(len(header)).encode()
    return b"".join([header, *raw]), [(b"content-type", b"application/octet-stream"), (HEADER_LENGTH, length)]


def bad(words: str) -> RefusedError:
    """Return the refusal of a tensor; words: the sentence, without its capital and full stop."""
    return RefusedError("bad_tensor", f"{words[0].upper()}{words[1:]}.")


def shown(value: Any) -> str:
    """Return a value of a request as an error quotes it, cut short."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
