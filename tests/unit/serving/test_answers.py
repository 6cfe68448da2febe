import json
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kinglet.runtime.predictor import Predictor
from kinglet.runtime.preprocessing import prepare
from tests.unit.serving.running_server import encoded, running
from tests.unit.tasks.small_project import CLASSES, noisy_quadrants

IMAGES = noisy_quadrants(6, 20, 3, seed=3)[0]


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor(bundle, threads=1)


@pytest.mark.parametrize(
    ("form", "kind", "options"),
    [
        ("PNG", "image/png", {}),
        ("WEBP", "image/webp", {"lossless": True}),
        ("PNG", "application/octet-stream", {}),
        ("PNG", None, {}),  # no Content-Type at all: the bytes tell
    ],
)
def test_an_image_gets_the_predictors_answer(server, predictor, form, kind, options):
    expected = predictor.predict(IMAGES[:1])
    headers = {"content-type": kind} if kind else {}
    answer = server.client.post("/predict", content=encoded(IMAGES[0], form, **options), headers=headers)
    assert answer.status_code == 200
    found = answer.json()["predictions"][0]
    assert found["class"] == expected.classes[0]
    assert found["confidence"] == pytest.approx(expected.confidences[0], abs=1e-5)
    assert found["image"] == {"name": "", "format": form, "width": 20, "height": 20}


def test_a_jpeg_is_decoded_as_by_the_library(server, predictor, tmp_path):
    content = encoded(IMAGES[1], "JPEG")
    (tmp_path / "a.jpg").write_bytes(content)
    expected = predictor.predict_files([tmp_path / "a.jpg"])
    answer = server.client.post("/predict?top=4", content=content, headers={"content-type": "image/jpeg"}).json()
    by_class = {item["class"]: item["probability"] for item in answer["predictions"][0]["top"]}
    assert by_class == pytest.approx(dict(zip(CLASSES, expected.probabilities[0], strict=True)), abs=1e-5)
    assert list(by_class.values()) == sorted(by_class.values(), reverse=True)
    assert set(answer["time_ms"]) == {"decode", "compute", "total"}


def test_several_images_in_one_request_keep_their_order_and_names(server, predictor):
    files = [("images", (f"ä{number}.png", encoded(IMAGES[number]))) for number in range(4)]
    answer = server.client.post("/predict", files=files).json()
    assert [item["image"]["name"] for item in answer["predictions"]] == [f"ä{number}.png" for number in range(4)]
    assert [item["class"] for item in answer["predictions"]] == predictor.predict(IMAGES[:4]).classes


@pytest.mark.parametrize("nested", [True, False])
def test_tensors_as_json_get_logits_and_probabilities(server, model, nested):
    tensor = prepare(IMAGES[:3], model.predictor.preprocessing)
    data = (tensor if nested else tensor.ravel()).tolist()
    request = {"id": "a1", "inputs": [{"name": "images", "datatype": "FP32", "shape": [3, 3, 16, 16], "data": data}]}
    answer = server.client.post(f"/v2/models/{model.name}/infer", json=request).json()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("a1", model.name, model.version)
    logits, probabilities = answer["outputs"]
    np.testing.assert_allclose(np.reshape(logits["data"], logits["shape"]), model.predictor.logits(tensor), rtol=1e-5)
    expected = model.predictor.predict(IMAGES[:3]).probabilities
    np.testing.assert_allclose(np.reshape(probabilities["data"], (3, 4)), expected, atol=1e-5)


def binary_request(tensor, **fields):
    inputs = [
        {
            "name": "images",
            "datatype": "FP32",
            "shape": list(tensor.shape),
            "parameters": {"binary_data_size": tensor.nbytes},
        }
    ]
    header = json.dumps({"inputs": inputs, **fields}).encode()
    return header + tensor.astype("<f4").tobytes(), {"inference-header-content-length": str(len(header))}


def test_tensors_as_raw_bytes_come_back_as_raw_bytes(server, model):
    tensor = prepare(IMAGES, model.predictor.preprocessing)
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "logits"}]
    body, headers = binary_request(tensor, outputs=outputs)
    path = f"/v2/models/{model.name}/versions/{model.version}/infer"
    answer = server.client.post(path, content=body, headers=headers)
    length = int(answer.headers["inference-header-content-length"])
    assert answer.headers["content-type"] == "application/octet-stream"
    described = json.loads(answer.content[:length])["outputs"]
    assert described[0]["parameters"] == {"binary_data_size": 6 * 4 * 4}
    assert "data" not in described[0]
    found = np.frombuffer(answer.content[length:], "<f4").reshape(6, 4)
    np.testing.assert_allclose(found, model.predictor.predict(IMAGES).probabilities, atol=1e-5)
    np.testing.assert_allclose(np.reshape(described[1]["data"], (6, 4)), model.predictor.logits(tensor), rtol=1e-5)


def test_the_whole_answer_in_raw_bytes(server, model):
    tensor = prepare(IMAGES[:2], model.predictor.preprocessing)
    body, headers = binary_request(tensor, parameters={"binary_data_output": True})
    answer = server.client.post(f"/v2/models/{model.name}/infer", content=body, headers=headers)
    length = int(answer.headers["inference-header-content-length"])
    assert len(answer.content) == length + 2 * 2 * 4 * 4


def test_the_server_and_its_model_describe_themselves(server, model):
    get = server.client.get
    assert get("/v2").json()["extensions"] == ["binary_tensor_data"]
    described = get(f"/v2/models/{model.name}").json()
    assert described["name"] == "small-student"
    assert described["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 3, 16, 16]}]
    assert described["parameters"]["classes"] == CLASSES
    ready = (
        "/v2/health/ready",
        f"/v2/models/{model.name}/ready",
        f"/v2/models/{model.name}/versions/{model.version}/ready",
    )
    for path in ("/healthz", "/v2/health/live", *ready):
        assert get(path).status_code == 200


def test_request_ids_are_kept_or_made_and_logged(server):
    given = server.client.get("/healthz", headers={"x-request-id": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    made = [server.client.get("/healthz", headers={"x-request-id": "a b"}).headers["x-request-id"] for _ in range(2)]
    assert len({*made, "a b"}) == 3
    assert all(re.fullmatch(r"[0-9a-f]{12}-\d+", one) for one in made)
    lines = [json.loads(line) for line in server.log.getvalue().splitlines()]
    logged = {line["id"]: line for line in lines}
    assert logged["abc-1"]["path"] == "/healthz"
    assert logged[made[0]]["status"] == 200


def test_head_answers_without_a_body(server):
    answer = server.client.head("/")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 1000


def test_the_page_shows_the_card_and_no_html_of_it(server):
    page = server.client.get("/").text
    assert "<h1>small student</h1>" in page
    assert "&lt;b&gt;bold?" in page
    assert "{{" not in page


def test_metrics_count_what_happened(model):
    with running(model) as started:
        for _ in range(3):
            started.client.post("/predict", content=encoded(IMAGES[0]), headers={"content-type": "image/png"})
        started.client.post("/predict", content=b"")
        started.client.get("/v2/models/another")
        started.client.get("/nowhere/at/all")
        text = started.client.get("/metrics").text
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    predict = (("method", "POST"), ("route", "/predict"))
    assert samples["kinglet_requests_total", (*predict, ("status", "200"))] == 3
    assert samples["kinglet_requests_total", (*predict, ("status", "400"))] == 1
    assert samples["kinglet_errors_total", (("code", "empty_body"), ("route", "/predict"))] == 1
    assert samples["kinglet_errors_total", (("code", "unknown_model"), ("route", "/v2/models/{name}"))] == 1
    assert samples["kinglet_errors_total", (("code", "not_found"), ("route", ""))] == 1
    assert samples["kinglet_request_duration_seconds_count", (("route", "/predict"),)] == 4
    assert samples["kinglet_batch_size_sum", ()] == 3
    assert samples["kinglet_requests_in_flight", ()] == 1  # the one that asks
    assert samples["kinglet_connections", ()] == 1
    info = next(labels for name, labels in samples if name == "kinglet_model_info")
    assert dict(info)["version"] == model.version


def test_batches_gather_images_of_several_requests_and_change_no_answer(model, predictor):
    images = noisy_quadrants(24, 20, 3, seed=5)[0]
    with running(model, batch_size=8, batch_wait_ms=100.0) as started, ThreadPoolExecutor(24) as pool:

        def ask(image):
            return started.client.post("/predict", content=encoded(image), headers={"content-type": "image/png"})

        answers = list(pool.map(ask, images))
        text = started.client.get("/metrics").text
    expected = predictor.predict(images)
    assert [answer.json()["predictions"][0]["class"] for answer in answers] == expected.classes
    sizes = {
        line.split()[0]: float(line.split()[1])
        for line in text.splitlines()
        if "kinglet_batch_size_" in line and line[0] != "#"
    }
    assert sizes["kinglet_batch_size_sum"] == 24
    assert sizes["kinglet_batch_size_count"] <= 12


def test_large_images_go_through_the_pool_and_get_the_same_answer(server, predictor):
    smooth = np.repeat(np.repeat(IMAGES[2], 30, axis=0), 30, axis=1)  # 600 x 600, small as a file
    answer = server.client.post("/predict", content=encoded(smooth), headers={"content-type": "image/png"}).json()
    assert answer["predictions"][0]["class"] == predictor.predict([smooth]).classes[0]
