"""What is wrong with a request is the client's to know: a status, a code, a sentence; never a 5xx."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.unit.serving.running_server import encoded
from tests.unit.tasks.small_project import noisy_quadrants

IMAGE = noisy_quadrants(1, 20, 3)[0][0]
PNG, JPEG = encoded(IMAGE), encoded(IMAGE, "JPEG")
INFER = "/v2/models/small-student/infer"


def png_that_claims(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes whose header announces so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def text_bomb() -> bytes:
    """Return a PNG whose compressed text unpacks to 300 MB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    packed = b"".join([*(packer.compress(bytes(1_000_000)) for _ in range(300)), packer.flush()])
    start = PNG.index(b"IDAT") - 4
    return PNG[:start] + chunk(b"zTXt", b"Comment\x00\x00" + packed) + PNG[start:]


def many_scans() -> bytes:
    """Return a JPEG of 1000 x 900 pixels with the last of its scans repeated a thousand times."""
    buffer = io.BytesIO()
    Image.new("RGB", (1000, 900), (90, 120, 30)).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * 1000 + content[-2:]


def multipart(*parts: bytes, end: bytes = b"--x--\r\n") -> dict:
    body = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="%d.png"\r\n\r\n%s\r\n' % pair
        for pair in enumerate(parts)
    )
    return {"content": body + end, "headers": {"content-type": "multipart/form-data; boundary=x"}}


def image(content: bytes, kind: str = "application/octet-stream") -> dict:
    return {"content": content, "headers": {"content-type": kind}}


PREDICT = {
    "an empty body": (image(b""), 400, "empty_body"),
    "text": (image(b"hello", "image/jpeg"), 415, "unsupported_type"),
    "a GIF": (image(encoded(IMAGE, "GIF")), 415, "unsupported_type"),
    "another content type": (image(PNG, "text/plain"), 415, "unsupported_type"),
    "curl's default content type": (image(PNG, "application/x-www-form-urlencoded"), 415, "unsupported_type"),
    "a compressed body": (
        {"content": zlib.compress(PNG), "headers": {"content-type": "image/png", "content-encoding": "deflate"}},
        415,
        "unsupported_type",
    ),
    "half a PNG": (image(PNG[: len(PNG) // 2]), 422, "undecodable_image"),
    "half a JPEG": (image(JPEG[: len(JPEG) // 2]), 422, "undecodable_image"),
    "a PNG's first bytes": (image(PNG[:12]), 422, "undecodable_image"),
    "a WebP of nothing": (image(b"RIFF\x00\x00\x00\x00WEBPVP8 "), 422, "undecodable_image"),
    "a body that is too large": (image(bytes(600_000)), 413, "body_too_large"),
    "a PNG of 4 gigapixels": (image(png_that_claims(65_535, 65_535)), 413, "image_too_large"),
    "a PNG just above the limit": (image(png_that_claims(1001, 1000)), 413, "image_too_large"),
    "a PNG without pixels": (image(png_that_claims(0, 10)), 422, "undecodable_image"),
    "a PNG with a text of 300 MB": (image(text_bomb()), 422, "undecodable_image"),
    "a JPEG of a thousand scans": (image(many_scans()), 413, "image_too_large"),
    "multipart without a boundary": (image(PNG, "multipart/form-data"), 400, "bad_multipart"),
    "multipart cut off": (multipart(PNG, end=b""), 400, "bad_multipart"),
    "multipart of nothing": (multipart(), 400, "empty_body"),
    "multipart of something else": ({**multipart(PNG), "content": b"no parts"}, 400, "bad_multipart"),
    "one bad image among good ones": (multipart(PNG, PNG[:50], PNG), 422, "undecodable_image"),
    "an empty image among good ones": (multipart(PNG, b""), 400, "empty_body"),
    "more images than allowed": (multipart(*[PNG] * 5), 413, "too_many_images"),
    "no classes asked for": ({**image(PNG), "params": {"top": "0"}}, 400, "bad_request"),
    "a word for a number": ({**image(PNG), "params": {"top": "²"}}, 400, "bad_request"),
}


@pytest.mark.parametrize("what", PREDICT)
def test_a_bad_image_is_refused_with_a_status_and_a_sentence(server, what):
    request, status, code = PREDICT[what]
    answer = server.client.post("/predict", **request)
    said = answer.json()
    assert (answer.status_code, said["code"]) == (status, code), said
    assert said["error"].endswith(".")
    assert said["request_id"] == answer.headers["x-request-id"]
    # The server is none the worse for it.
    assert server.client.post("/predict", **image(PNG)).status_code == 200


def test_the_bad_one_of_several_images_is_named(server):
    said = server.client.post("/predict", **multipart(PNG, PNG[:50], PNG)).json()
    assert said["error"].startswith("Image 2 ('1.png') cannot be decoded")


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(server):
    answer = server.client.post(
        "/predict", content=(bytes(50_000) for _ in range(100)), headers={"content-type": "image/png"}
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def tensor(**changes: object) -> dict:
    item = {"name": "images", "datatype": "FP32", "shape": [1, 3, 16, 16], "data": [0.5] * 768}
    return {key: value for key, value in {**item, **changes}.items() if value is not None}


def inputs(*items: object, **fields: object) -> bytes:
    return json.dumps({"inputs": list(items), **fields}).encode()


def with_length(header: bytes, raw: bytes, length: object = None) -> dict:
    return {
        "content": header + raw,
        "headers": {"inference-header-content-length": str(len(header) if length is None else length)},
    }


RAW = {"data": None, "parameters": {"binary_data_size": 3072}}
NAN = np.full(768, 0.5, "<f4")
NAN[700] = np.nan
TENSORS = {
    "an empty body": ({"content": b""}, "empty_body", "inputs"),
    "no JSON": ({"content": b"{"}, "bad_json", "no JSON"),
    "NaN as JSON": ({"content": inputs(tensor(data=[float("nan")] * 768))}, "bad_json", "no JSON"),
    "deep nesting": ({"content": b"[" * 100_000}, "bad_json", "no JSON"),
    "a list": ({"content": b"[]"}, "bad_tensor", "JSON object"),
    "no inputs": ({"content": b"{}"}, "bad_tensor", "list of one tensor"),
    "two inputs": ({"content": inputs(tensor(), tensor())}, "bad_tensor", "list of one tensor"),
    "another name": ({"content": inputs(tensor(name="pixels"))}, "bad_tensor", "no input 'pixels'"),
    "another type": ({"content": inputs(tensor(datatype="UINT8"))}, "bad_tensor", "datatype 'UINT8'"),
    "no shape": ({"content": inputs(tensor(shape=None))}, "bad_tensor", "shape None"),
    "another shape": ({"content": inputs(tensor(shape=[1, 1, 16, 16]))}, "bad_tensor", "[n, 3, 16, 16]"),
    "no images": ({"content": inputs(tensor(shape=[0, 3, 16, 16], data=[]))}, "bad_tensor", "at least 1"),
    "a huge batch": ({"content": inputs(tensor(shape=[2**62, 3, 16, 16]))}, "bad_tensor", "at least 1"),
    "a true shape": ({"content": inputs(tensor(shape=[True, 3, 16, 16]))}, "bad_tensor", "shape [True"),
    "too few numbers": ({"content": inputs(tensor(data=[0.5] * 767))}, "bad_tensor", "takes 768 numbers"),
    "words": ({"content": inputs(tensor(data=["0.5"] * 768))}, "bad_tensor", "no number"),
    "nothing for a number": ({"content": inputs(tensor(data=[None] * 768))}, "bad_tensor", "no number"),
    "uneven nesting": ({"content": inputs(tensor(data=[[0.5], [0.5, 1]]))}, "bad_tensor", "nested unevenly"),
    "too large for a float": ({"content": inputs(tensor(data=[1e300] * 768))}, "bad_tensor", "at [0, 0, 0, 0]"),
    "too large for the model": ({"content": inputs(tensor(data=[3e38] * 768))}, "bad_tensor", "too large"),
    "another output": ({"content": inputs(tensor(), outputs=[{"name": "x"}])}, "bad_tensor", "no output 'x'"),
    "a number for an id": ({"content": inputs(tensor(), id=3)}, "bad_tensor", "`id`"),
    "NaN as bytes": (with_length(inputs(tensor(**RAW)), NAN.tobytes()), "bad_tensor", "at [0, 2, 11, 12]"),
    "too few bytes": (with_length(inputs(tensor(**RAW)), bytes(3071)), "bad_tensor", "3071 bytes follow"),
    "too many bytes": (with_length(inputs(tensor(**RAW)), bytes(3073)), "bad_tensor", "3073 bytes follow"),
    "bytes that no input claims": (with_length(inputs(tensor()), bytes(4)), "bad_tensor", "4 bytes follow"),
    "numbers and bytes": (
        with_length(inputs(tensor(parameters=RAW["parameters"])), bytes(3072)),
        "bad_tensor",
        "both data and",
    ),
    "a header longer than the body": (with_length(inputs(tensor()), b"", 10**9), "bad_tensor", "1000000000"),
    "a header of a negative length": (with_length(inputs(tensor()), b"", -1), "bad_tensor", "'-1'"),
}


@pytest.mark.parametrize("what", TENSORS)
def test_a_bad_tensor_is_refused_with_what_is_wrong(server, what):
    request, code, words = TENSORS[what]
    answer = server.client.post(INFER, **request)
    said = answer.json()
    assert (answer.status_code, said["code"]) == (400, code), said
    assert words in said["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/predict", 405, "method_not_allowed"),
        ("POST", "/v2", 405, "method_not_allowed"),
        ("BREW", "/healthz", 400, "bad_request"),  # no method of HTTP
        ("GET", "/v2/models/another", 404, "unknown_model"),
        ("GET", "/v2/models/small-student/versions/1", 404, "unknown_model"),
        ("POST", "/v2/models/another/infer", 404, "unknown_model"),
        ("GET", "/v2/models/", 404, "unknown_model"),
        ("GET", "/../../etc/passwd", 404, "not_found"),
    ],
)
def test_what_is_not_there(server, method, path, status, code):
    answer = server.client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
