"""Detectors opened from a bundle: what they answer, and which bundles they refuse."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kinglet.atomic import write_bytes, write_json
from kinglet.errors import KingletError
from kinglet.runtime import DetectionPredictor, Predictor, bundles, open_predictor
from kinglet.runtime.detection import DETECTOR_OUTPUTS, decode_detections, run_detector
from kinglet.runtime.golden_detections import objects_in, table_of
from kinglet.runtime.preprocessing import placement, prepare
from kinglet.runtime.sessions import open_session
from tests.unit.models.detector_files import CLASSES, PREPROCESSING, detector_file, pictures
from tests.unit.models.test_detector import SIZE
from tests.unit.runtime.detector_bundle import build_detector_bundle

WIDE, TALL = pictures(1, 90, seed=5)[0][:60], pictures(1, 120, seed=6)[0][:, :70]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return build_detector_bundle(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="module")
def predictor(bundle):
    return DetectionPredictor(bundle, threads=1)


@pytest.fixture
def damaged(bundle, tmp_path):
    """A copy of the bundle to be changed; `bundles.seal` makes it whole again."""
    return shutil.copytree(bundle, tmp_path / "copy")


def test_objects_are_found_in_the_images_own_pixels(predictor):
    found = predictor.predict([WIDE, TALL])
    session = open_session(detector_file(), threads=1, outputs=DETECTOR_OUTPUTS)
    for image, of_image in zip([WIDE, TALL], found, strict=True):
        height, width = image.shape[:2]
        raw = run_detector(session, prepare([image], PREPROCESSING))
        (expected,) = decode_detections(*raw, [placement(width, height, SIZE, "pad")], max_detections=50)
        assert len(of_image) > 5
        np.testing.assert_allclose(of_image.xyxy, expected.xyxy, atol=1e-3)
        np.testing.assert_array_equal(of_image.labels, expected.labels)
        assert (of_image.xyxy >= 0).all()
        assert (of_image.xyxy <= [width, height, width, height]).all()
    assert predictor.classes == CLASSES
    assert predictor.predict([]) == []


def test_a_photo_lying_on_its_side_is_answered_as_it_is_shown(predictor, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    Image.fromarray(np.rot90(TALL)).save(tmp_path / "lying.png", exif=exif)
    (found,) = predictor.predict_files([tmp_path / "lying.png"])
    (expected,) = predictor.predict([TALL])
    np.testing.assert_array_equal(found.xyxy, expected.xyxy)


@pytest.mark.parametrize("image", [np.zeros((5, 5), np.float32), np.zeros((2, 3, 4, 5), np.uint8)])
def test_what_is_no_image_is_named(predictor, image):
    with pytest.raises(ValueError, match="image 1"):
        predictor.predict([WIDE, image])


def test_each_problem_has_its_predictor(bundle, tmp_path):
    assert isinstance(open_predictor(bundle, threads=1), DetectionPredictor)
    with pytest.raises(KingletError, match="for detection, not for classification") as refused:
        Predictor(bundle)
    assert "DetectionPredictor" in refused.value.hint


@pytest.mark.parametrize("key", ["problem", "format"])
def test_a_bundle_of_a_newer_kinglet_is_refused(damaged, key):
    facts = json.loads((damaged / bundles.PREPROCESSING).read_text())
    assert (facts["problem"], facts["format"]) == ("detection", 3)
    write_json(
        damaged / bundles.PREPROCESSING, {**facts, key: {"problem": "tracking", "format": bundles.FORMAT + 1}[key]}
    )
    bundles.seal(damaged)
    with pytest.raises(KingletError, match=rf"segmentation|format {bundles.FORMAT}"):
        open_predictor(damaged)


def test_the_golden_objects_are_found(predictor, bundle):
    assert predictor.check_golden(bundle / bundles.GOLDEN) < 1e-4


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda table: table[table[:, 0] > 0], "image 0 shows an object"),
        (lambda table: np.concatenate([table, [[2, 1, 0.9, 1, 1, 9, 9]]]), "image 2 lacks an object of class 1"),
        (lambda table: table + np.array([0, 0, 0, 9, 9, 9, 9]), "image 0 lacks"),
        (lambda table: table - np.array([0, 0, 0.05, 0, 0, 0, 0]), "image 0 lacks"),
    ],
)
def test_other_objects_than_the_golden_ones_are_named(predictor, bundle, tmp_path, change, complaint):
    with np.load(bundle / bundles.GOLDEN) as golden:
        arrays = dict(golden)
    table = arrays[bundles.EXACT_DETECTIONS]
    assert table[0, 2] > 0.4
    np.testing.assert_array_equal(table_of(objects_in(table, 6)), table)
    arrays[bundles.EXACT_DETECTIONS] = change(table).astype(np.float32)
    write_bytes(tmp_path / "golden.npz", bundles.npz_bytes(arrays))
    with pytest.raises(KingletError, match=complaint):
        predictor.check_golden(tmp_path / "golden.npz")


def test_an_int8_bundle_answers_as_expected_on_both_kinds_of_processors(tmp_path):
    bundle = build_detector_bundle(tmp_path, int8=True, without_vnni=True)
    predictor = DetectionPredictor(bundle, threads=1, saturates=True)
    assert predictor.model_file == bundles.WITHOUT_VNNI
    assert predictor.check_golden(bundle / bundles.GOLDEN) < 0.05
    with np.load(bundle / bundles.GOLDEN) as golden:
        assert set(golden) == {"images", bundles.EXACT_DETECTIONS, bundles.SATURATED_DETECTIONS}


def test_no_torch_is_needed(bundle):
    code = (
        "import sys, numpy as np\n"
        "from kinglet.runtime import open_predictor\n"
        f"found = open_predictor({str(bundle)!r}, threads=1).predict([np.zeros((40, 30, 3), np.uint8)])\n"
        "assert len(found) == 1 and 'torch' not in sys.modules and 'onnx' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
