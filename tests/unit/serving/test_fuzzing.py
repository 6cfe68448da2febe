"""Requests made up by machines: by schemathesis from the server's own OpenAPI document, and images broken at random."""

import json

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.unit.serving.running_server import encoded
from tests.unit.tasks.small_project import noisy_quadrants

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
IMAGES = noisy_quadrants(2, 24, 3)[0]


def test_every_answer_to_made_up_requests_is_as_the_document_says(server):
    document = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) == 13  # all but the document itself
    asked = []
    for operation in operations:
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):

            @settings(
                max_examples=10,
                derandomize=True,
                database=None,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def answers_as_documented(case):
                response = case.call(timeout=20)
                case.validate_response(response, checks=CHECKS)
                asked.append((case.operation.label, response.status_code))

            try:
                answers_as_documented()
            except Unsatisfiable:
                assert mode == schemathesis.GenerationMode.NEGATIVE  # nothing in it that could be wrong
    # It was no fuzzing of errors alone.
    assert {("POST /v2/models/{name}/infer", 200), ("GET /metrics", 200), ("POST /predict", 415)} <= set(asked)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_images_broken_at_random_never_break_the_server(server, form):
    generator = np.random.default_rng(7)
    statuses = set()
    for number in range(120):
        content = bytearray(encoded(IMAGES[number % 2], form))
        kind = number % 4
        if kind == 0:  # some bytes changed
            for place in generator.integers(0, len(content), 1 + number % 9):
                content[place] = generator.integers(0, 256)
        elif kind == 1:  # cut off
            del content[int(generator.integers(1, len(content))) :]
        elif kind == 2:  # a piece repeated
            start, length = (int(value) for value in generator.integers(1, len(content) // 2, 2))
            content[start:start] = content[start : start + length]
        else:  # noise behind a good beginning
            keep = int(generator.integers(12, len(content)))
            content[keep:] = generator.integers(0, 256, 200, dtype=np.uint8).tobytes()
        answer = server.client.post(
            "/predict", content=bytes(content), headers={"content-type": "application/octet-stream"}
        )
        statuses.add(answer.status_code)
        assert answer.status_code in (200, 413, 415, 422), (kind, answer.text)
    # PNG has checksums; the others decode in spite of some damage.
    assert statuses >= ({422} if form == "PNG" else {200, 422})


def test_random_bytes_never_break_the_server(server):
    generator = np.random.default_rng(11)
    starts = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\x00\x00\x00WEBP", b"--x\r\n"]
    kinds = ["image/jpeg", "application/octet-stream", "multipart/form-data; boundary=x"]
    for number in range(150):
        content = starts[number % 5] + generator.integers(0, 256, int(generator.integers(1, 400)), np.uint8).tobytes()
        answer = server.client.post("/predict", content=content, headers={"content-type": kinds[number % 3]})
        assert 400 <= answer.status_code < 500, answer.text


def test_random_json_never_breaks_the_server(server):
    generator = np.random.default_rng(13)
    values = [None, True, 0, -1, 2**70, 1e308, "", "images", [], [[]], {}, {"name": "images"}, ["FP32"], [1, 3, 16, 16]]
    keys = ["name", "datatype", "shape", "data", "parameters"]
    for _ in range(150):
        item = {key: values[generator.integers(len(values))] for key in keys if generator.random() < 0.8}
        item = {**item, **({"name": "images", "datatype": "FP32"} if generator.random() < 0.6 else {})}
        request = {"inputs": [item], "outputs": values[generator.integers(len(values))]}
        length = {"inference-header-content-length": str(generator.integers(0, 99))} if generator.random() < 0.2 else {}
        answer = server.client.post("/v2/models/small-student/infer", content=json.dumps(request), headers=length)
        assert answer.status_code == 400, answer.text
