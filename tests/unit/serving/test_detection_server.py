"""A real server of a small detector: boxes in the photo's own pixels, tensors, the document, and what is refused."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest
from PIL import Image

from kinglet.runtime.detection_predictor import DetectionPredictor
from kinglet.runtime.preprocessing import prepare
from kinglet.serving.served_model import open_model
from tests.unit.models.detector_files import CLASSES, pictures
from tests.unit.runtime.detector_bundle import build_detector_bundle
from tests.unit.serving.running_server import encoded, running

WIDE = pictures(1, 120, seed=5)[0][:80]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return build_detector_bundle(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="module")
def predictor(bundle):
    return DetectionPredictor(bundle, threads=1)


@pytest.fixture(scope="module", params=[1, 4], ids=["one by one", "in batches"])
def server(bundle, request):
    with running(open_model(bundle, threads=1), batch_size=request.param) as started:
        yield started


def objects_of(found, classes) -> list[dict]:
    return [
        {"label": classes[label], "score": pytest.approx(score, abs=1e-5), "box": pytest.approx(box, abs=0.011)}
        for label, score, box in zip(found.labels, found.scores.tolist(), found.xyxy.tolist(), strict=True)
    ]


def test_an_image_gets_the_predictors_objects(server, predictor):
    answer = server.client.post("/predict", content=encoded(WIDE), headers={"content-type": "image/png"}).json()
    (expected,) = predictor.predict([WIDE])
    (found,) = answer["predictions"]
    assert len(expected) > 5
    assert found["objects"] == objects_of(expected, CLASSES)
    assert found["image"] == {"name": "", "format": "PNG", "width": 120, "height": 80}
    assert set(answer["time_ms"]) == {"decode", "compute", "total"}


def test_a_photo_lying_on_its_side_gets_boxes_as_it_is_shown(server, predictor):
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = encoded(np.rot90(WIDE), exif=exif)
    (found,) = server.client.post("/predict", content=lying).json()["predictions"]
    assert found["objects"] == objects_of(predictor.predict([WIDE])[0], CLASSES)
    assert (found["image"]["width"], found["image"]["height"]) == (120, 80)


def test_several_images_keep_their_order(server, predictor):
    images = [WIDE, WIDE[:, :60], WIDE[:30]]
    files = [("images", (f"{number}.png", encoded(image))) for number, image in enumerate(images)]
    answer = server.client.post("/predict", files=files).json()["predictions"]
    assert [item["objects"] for item in answer] == [objects_of(item, CLASSES) for item in predictor.predict(images)]


def test_the_lowest_score_can_be_asked_for(server, predictor):
    (usual,) = predictor.predict([WIDE])

    def count(score: float) -> int:
        (found,) = server.client.post(f"/predict?score={score}", content=encoded(WIDE)).json()["predictions"]
        return len(found["objects"])

    surest = float(usual.scores[0])
    assert (count(0.3), count(surest + 1e-4)) == (len(usual), 0)
    assert count(0.05) > len(usual)
    for wrong in ("much", "1.5", "nan", "-1", ""):
        answer = server.client.post(f"/predict?score={wrong}", content=encoded(WIDE))
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


def test_tensors_get_logits_and_boxes(server, predictor):
    tensor = prepare([WIDE, WIDE], predictor.preprocessing)
    model = server.application.model
    data = {"name": "images", "datatype": "FP32", "shape": list(tensor.shape), "data": tensor.ravel().tolist()}
    answer = server.client.post(f"/v2/models/{model.name}/infer", json={"inputs": [data]}).json()
    outputs = {item["name"]: np.reshape(item["data"], item["shape"]) for item in answer["outputs"]}
    found = np.concatenate([outputs["logits"], outputs["boxes"]], axis=2)
    np.testing.assert_allclose(found, predictor.outputs(tensor), rtol=1e-4, atol=1e-4)
    metadata = server.client.get(f"/v2/models/{model.name}").json()
    assert metadata["outputs"] == [
        {"name": "logits", "datatype": "FP32", "shape": [-1, -1, 3]},
        {"name": "boxes", "datatype": "FP32", "shape": [-1, -1, 4]},
    ]


def test_the_document_says_what_is_answered(server):
    document = server.client.get("/openapi.json").json()
    assert document["info"]["description"].startswith("Finds objects of 3 classes in an image")
    (parameter,) = document["paths"]["/predict"]["post"]["parameters"]
    assert parameter["name"] == "score"
    answer = server.client.post("/predict", content=encoded(WIDE)).json()
    schema = {"$ref": "#/components/schemas/Predictions", "components": document["components"]}
    jsonschema.validate(answer, schema)
    answer["predictions"][0]["objects"][0]["label"] = "something else"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(answer, schema)


def test_the_page_says_what_the_model_does(server):
    page = server.client.get("/").text
    assert "<p>Finds objects of 3 classes in an image. Version" in page
    assert "<title>blood-cells: find objects in an image</title>" in page


def test_the_log_counts_images(server):
    server.client.post("/predict", content=encoded(WIDE))
    entries = [json.loads(line) for line in server.log.getvalue().splitlines()]
    assert [entry["images"] for entry in entries if entry["path"] == "/predict" and entry["status"] == 200][-1] == 1
