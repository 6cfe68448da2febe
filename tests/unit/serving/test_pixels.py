"""A model that takes pixels, served: images and tensors, and tensors that are none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from kinglet.atomic import read_json, write_bytes, write_json
from kinglet.compression.calibration import FixedRange, stream_histograms
from kinglet.compression.pixel_input import pixel_ranges, share_normalization, take_pixels
from kinglet.compression.quantization import quantize_static
from kinglet.errors import KingletError
from kinglet.models.onnx_graph import add_metadata
from kinglet.runtime import bundles
from kinglet.runtime.predictor import Predictor
from kinglet.runtime.preprocessing import Preprocessing, model_input, normalize
from kinglet.runtime.sessions import open_session, read_metadata, run, softmax
from kinglet.serving.served_model import open_model
from tests.unit.serving.running_server import Running, encoded, running
from tests.unit.tasks.small_project import noisy_quadrants


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return noisy_quadrants(10, 16, 3, seed=1)[0]


@pytest.fixture(scope="module")
def of_floats(bundle: Path, images: np.ndarray) -> tuple[onnx.ModelProto, Preprocessing]:
    """The int8 model behind the bundle as it takes floats, and how images are prepared for it."""
    preprocessing, _ = read_metadata(open_session(bundle / bundles.MODEL))
    shared = share_normalization(onnx.load(bundle / bundles.MODEL), preprocessing)
    assert shared is not None
    model, alike = shared
    histograms = stream_histograms(model, normalize(images, alike))
    fixed = {name: FixedRange(*of) for name, of in pixel_ranges(alike).items() if name in histograms}
    return quantize_static(model, {**histograms, **fixed}, "minmax", 7), alike


@pytest.fixture(scope="module")
def pixel_bundle(bundle: Path, of_floats, images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the same model, in int8, that takes pixels."""
    folder = tmp_path_factory.mktemp("pixels") / "bundle"
    shutil.copytree(bundle, folder)
    preprocessing = replace(of_floats[1], takes_pixels=True)
    model = take_pixels(*of_floats)
    classes = read_json(folder / bundles.LABELS)
    add_metadata(model, {"preprocessing": preprocessing.to_dict(), "classes": classes})
    write_bytes(folder / bundles.MODEL, model.SerializeToString())
    facts = {**preprocessing.to_dict(), bundles.FORMAT_KEY: bundles.format_of(preprocessing)}
    write_json(folder / bundles.PREPROCESSING, facts)
    expected = softmax(run(open_session(folder / bundles.MODEL), model_input(images, preprocessing)))
    write_bytes(folder / bundles.GOLDEN, bundles.npz_bytes({"images": images, "probabilities": expected}))
    bundles.seal(folder)
    return folder


@pytest.fixture(scope="module")
def server(pixel_bundle: Path) -> Iterator[Running]:
    with running(open_model(pixel_bundle, threads=1)) as started:
        yield started


@pytest.fixture(scope="module")
def logits(of_floats, images) -> np.ndarray:
    model, preprocessing = of_floats
    return run(open_session(model.SerializeToString(), threads=1), normalize(images, preprocessing))


def test_only_bundles_that_take_pixels_are_of_the_new_format(pixel_bundle, of_floats):
    assert read_json(pixel_bundle / bundles.PREPROCESSING)[bundles.FORMAT_KEY] == 2
    assert bundles.format_of(of_floats[1]) == 1


def test_the_predictor_answers_as_the_file_that_takes_floats(pixel_bundle, images, logits):
    predictor = Predictor(pixel_bundle, threads=1)
    assert predictor.check_golden(pixel_bundle / bundles.GOLDEN) == 0
    np.testing.assert_array_equal(predictor.predict(images).probabilities, softmax(logits))
    assert predictor.predict([]).probabilities.shape == (0, 4)


def test_an_image_is_answered(server, images, logits):
    answer = server.client.post("/predict", content=encoded(images[0]), headers={"content-type": "image/png"})
    assert answer.status_code == 200
    best = answer.json()["predictions"][0]
    assert best["confidence"] == pytest.approx(float(softmax(logits)[0].max()), abs=1e-5)


def infer(server: Running, **changes: object):
    item = {"name": "images", "datatype": "UINT8", "shape": [1, 16, 16, 3], "data": [7] * 768, **changes}
    name = server.application.model.name
    return server.client.post(f"/v2/models/{name}/infer", json={"inputs": [item]})


def test_tensors_are_uint8_and_channels_last(server, images, logits):
    name = server.application.model.name
    described = server.client.get(f"/v2/models/{name}").json()
    assert described["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 16, 16, 3]}]
    assert described["outputs"][0]["datatype"] == "FP32"
    assert described["parameters"]["preprocessing"]["takes_pixels"] is True
    answer = infer(server, shape=[10, 16, 16, 3], data=images.tolist())
    assert answer.status_code == 200
    found = np.array(answer.json()["outputs"][0]["data"], np.float32).reshape(10, 4)
    np.testing.assert_allclose(found, logits, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"datatype": "FP32"}, "it takes 'UINT8'"),
        ({"shape": [1, 3, 16, 16]}, "it takes [n, 16, 16, 3]"),
        ({"data": [256] + [0] * 767}, "holds 256; UINT8 is a whole number from 0 to 255"),
        ({"data": [-1] + [0] * 767}, "holds -1;"),
        ({"data": [0] * 767 + [0.5]}, "holds 0.5;"),
        ({"data": [2**63] + [0] * 767}, "UINT8 is a whole number"),
        ({"data": [0] * 767}, "takes 768 numbers"),
    ],
)
def test_what_are_no_pixels_is_refused_with_the_first_that_is_none(server, changes, said):
    answer = infer(server, **changes)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_a_model_whose_input_is_not_what_the_bundle_says_is_refused(pixel_bundle, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(pixel_bundle, folder)
    facts = read_json(folder / bundles.PREPROCESSING)
    write_json(folder / bundles.PREPROCESSING, {**facts, "takes_pixels": False})
    bundles.seal(folder)
    with pytest.raises(KingletError, match=r"takes pixels, and preprocessing\.json says otherwise"):
        Predictor(folder)
