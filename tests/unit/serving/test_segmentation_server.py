"""A real server of a small segmenter: masks in the photo's own pixels, as PNG and run lengths, and what is refused."""

from __future__ import annotations

import base64
import io

import jsonschema
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from kinglet.runtime.preprocessing import prepare
from kinglet.runtime.segmentation_predictor import SegmentationPredictor
from kinglet.serving import served_model
from kinglet.serving.run_lengths import as_text, run_lengths
from kinglet.serving.served_model import open_model
from tests.unit.serving.running_server import encoded, running
from tests.unit.tasks.segmenter_project import (
    CLASSES,
    HEIGHT,
    TEACHER,
    WIDTH,
    photos_of_blots,
    write_bundle,
    write_segmenter,
)

PHOTOS, _ = photos_of_blots(3, seed=5)
PHOTO = PHOTOS[0]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    root = tmp_path_factory.mktemp("segmenter")
    write_segmenter(root, TEACHER)
    write_bundle(root, TEACHER, root / "bundle")
    return root / "bundle"


@pytest.fixture(scope="module")
def predictor(bundle):
    return SegmentationPredictor(bundle, threads=1)


@pytest.fixture(scope="module", params=[1, 4], ids=["one by one", "in batches"])
def server(bundle, request):
    with running(open_model(bundle, threads=1), batch_size=request.param) as started:
        yield started


def decoded(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as opened:
        assert (opened.format, opened.mode) == ("PNG", "L")
        return np.asarray(opened)


def test_an_image_gets_the_predictors_mask_and_the_share_of_every_class(server, predictor):
    (found,) = server.client.post("/predict", content=encoded(PHOTO)).json()["predictions"]
    (expected,) = predictor.predict([PHOTO])
    assert np.array_equal(decoded(base64.b64decode(found["mask"]["png"])), expected)
    assert found["image"] == {"name": "", "format": "PNG", "width": WIDTH, "height": HEIGHT}
    shares = {item["label"]: item["share"] for item in found["classes"]}
    assert shares == {
        label: pytest.approx((expected == index).mean(), abs=1e-6)
        for index, label in enumerate(CLASSES)
        if (expected == index).any()
    }
    assert len(shares) > 1
    assert [item["share"] for item in found["classes"]] == sorted(shares.values(), reverse=True)
    assert [CLASSES[item["index"]] for item in found["classes"]] == [item["label"] for item in found["classes"]]


@pytest.mark.parametrize(
    ("query", "accept"), [("?format=png", "*/*"), ("", "image/png"), ("", "image/webp, image/png;q=0.9, */*;q=0.1")]
)
def test_the_mask_alone_is_the_whole_body_where_it_is_asked_for(server, predictor, query, accept):
    answer = server.client.post(f"/predict{query}", content=encoded(PHOTO), headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert np.array_equal(decoded(answer.content), predictor.predict([PHOTO])[0])


@pytest.mark.parametrize(
    ("query", "accept"), [("", "*/*"), ("?format=json", "image/png"), ("", "application/json, image/png")]
)
def test_json_is_answered_where_it_is_taken(server, query, accept):
    answer = server.client.post(f"/predict{query}", content=encoded(PHOTO), headers={"accept": accept})
    assert answer.headers["content-type"] == "application/json"


def test_run_lengths_are_those_that_coco_reads(server, predictor):
    (found,) = server.client.post("/predict?format=rle", content=encoded(PHOTO)).json()["predictions"]
    (expected,) = predictor.predict([PHOTO])
    regions = found["mask"]["rle"]
    assert {item["label"] for item in regions} == {item["label"] for item in found["classes"]}
    together = np.full(expected.shape, 255, np.uint8)
    for item in regions:
        region = coco.decode({"size": item["size"], "counts": item["counts"].encode()}).astype(bool)
        assert np.array_equal(region, expected == item["index"])
        together[region] = item["index"]
    assert np.array_equal(together, expected)


@pytest.mark.parametrize("seed", range(4))
def test_every_region_is_written_as_coco_writes_it(seed):
    generator = np.random.default_rng(seed)
    height, width = generator.integers(1, 90, 2)
    region = generator.random((height, width)) < (0.001, 0.5, 0.999, 1)[seed]
    written = coco.encode(np.asfortranarray(region.astype(np.uint8)))["counts"].decode()
    assert as_text(run_lengths(region)) == written


def test_long_runs_are_written_as_coco_writes_them():
    region = np.zeros((3000, 3000), bool)
    region[1000:1001, 1500:] = region[:, 2900:2950] = True
    written = coco.encode(np.asfortranarray(region.astype(np.uint8)))["counts"].decode()
    assert as_text(run_lengths(region)) == written


def test_a_photo_lying_on_its_side_gets_a_mask_as_it_is_shown(server, predictor):
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = encoded(np.rot90(PHOTO), exif=exif)
    answer = server.client.post("/predict?format=png", content=lying)
    assert np.array_equal(decoded(answer.content), predictor.predict([PHOTO])[0])


def test_several_images_keep_their_order_and_have_no_single_png(server, predictor):
    images = [PHOTOS[0], PHOTOS[1][:30], PHOTOS[2][:, :50]]
    files = [("images", (f"{number}.png", encoded(image))) for number, image in enumerate(images)]
    answer = server.client.post("/predict", files=files).json()["predictions"]
    masks = [decoded(base64.b64decode(item["mask"]["png"])) for item in answer]
    assert all(np.array_equal(*pair) for pair in zip(masks, predictor.predict(images), strict=True))
    refused = server.client.post("/predict?format=png", files=files)
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_request")
    assert "has 3" in refused.json()["error"]


@pytest.mark.parametrize("wrong", ["tiff", "", "PNG", "png&format=gif"])
def test_an_unknown_format_is_refused(server, wrong):
    answer = server.client.post(f"/predict?format={wrong}", content=encoded(PHOTO))
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert "json, rle, png" in answer.json()["error"]


def test_tensors_get_logits_of_pixels(server, predictor):
    tensor = prepare(PHOTOS[:2], predictor.preprocessing)
    model = server.application.model
    data = {"name": "images", "datatype": "FP32", "shape": list(tensor.shape), "data": tensor.ravel().tolist()}
    answer = server.client.post(f"/v2/models/{model.name}/infer", json={"inputs": [data]}).json()
    (logits,) = answer["outputs"]
    assert logits["shape"] == [2, 3, 16, 16]
    np.testing.assert_allclose(
        np.reshape(logits["data"], logits["shape"]), predictor.outputs(tensor), rtol=1e-4, atol=1e-4
    )
    metadata = server.client.get(f"/v2/models/{model.name}").json()
    assert metadata["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 3, -1, -1]}]


@pytest.mark.parametrize("wanted", ["json", "rle"])
def test_the_document_says_what_is_answered(server, wanted):
    document = server.client.get("/openapi.json").json()
    assert document["info"]["description"].startswith("Says of every pixel which of 3 classes it belongs to")
    operation = document["paths"]["/predict"]["post"]
    assert operation["parameters"][0]["schema"]["enum"] == ["json", "rle", "png"]
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "image/png"}
    answer = server.client.post(f"/predict?format={wanted}", content=encoded(PHOTO)).json()
    schema = {"$ref": "#/components/schemas/Predictions", "components": document["components"]}
    jsonschema.validate(answer, schema)
    answer["predictions"][0]["classes"][0]["label"] = "something else"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(answer, schema)


def test_the_page_says_what_the_model_does(server):
    page = server.client.get("/").text
    assert "<p>Says of every pixel which of 3 classes it belongs to. Version" in page
    assert "<title>teacher: segment an image</title>" in page


def test_large_images_are_answered_tile_by_tile_and_too_large_ones_refused(tmp_path, monkeypatch):
    write_segmenter(tmp_path, TEACHER, fit="tile")
    write_bundle(tmp_path, TEACHER, tmp_path / "bundle")
    predictor = SegmentationPredictor(tmp_path / "bundle", threads=1)
    large, small = np.tile(PHOTO, (2, 2, 1)), PHOTO[:30, :40]
    with running(open_model(tmp_path / "bundle", threads=1)) as started:
        files = [("images", (name, encoded(image))) for name, image in (("a", large), ("b", small), ("c", PHOTO))]
        answer = started.client.post("/predict", files=files).json()
        monkeypatch.setattr(served_model, "MOST_TILES", 5)
        refused = started.client.post("/predict", content=encoded(large))
    found = [decoded(base64.b64decode(item["mask"]["png"])) for item in answer["predictions"]]
    for mask, expected in zip(found, predictor.predict([large, small, PHOTO]), strict=True):
        assert np.array_equal(mask, expected)
    assert refused.status_code == 413
    assert f"{2 * WIDTH} x {2 * HEIGHT} pixels large, which are" in refused.json()["error"]
