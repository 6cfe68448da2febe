"""How int8 detectors are judged, from the places of an image up to the verdict."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import scipy.special
import scipy.stats

from kinglet.compression.detection_judge import (
    Answers,
    BoxedRows,
    DetectionJudge,
    answers,
    answers_without_vnni,
    compare,
    divergences,
    overlaps,
)
from kinglet.compression.fusion import fusions_of
from kinglet.compression.integer_nodes import nodes_left_in_float
from kinglet.compression.ladder import STEPS, Settings, as_many, open_bench
from kinglet.compression.quantization import weighted_layers
from kinglet.compression.quantized import quantize_up
from kinglet.compression.saturation import Emulator
from kinglet.evidence.detection_matches import Objects
from kinglet.models.onnx_graph import read_metadata
from kinglet.reporting import silent
from kinglet.runtime.boxes import box_iou
from kinglet.runtime.detection import DETECTOR_OUTPUTS, decode_detections
from kinglet.runtime.preprocessing import normalize, placement
from kinglet.runtime.sessions import open_session
from kinglet.runtime.vnni import products_saturate
from tests.unit.models.detector_files import CLASSES, PREPROCESSING, detector_file, int8_file, pictures
from tests.unit.models.test_detector import SIZE

PACKED = pictures(24)
SQUARE = placement(SIZE, SIZE, SIZE, "pad")


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load_from_string(detector_file())


@pytest.fixture(scope="module")
def choice(model) -> BoxedRows:
    """Eight images; what the float model finds there counts as true, so that it finds everything."""
    rows = np.arange(16, 24)
    nothing = Objects(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 4)))
    found = answers(model, BoxedRows(PACKED, rows, nothing, len(CLASSES)), PREPROCESSING)
    detections = decode_detections(found.logits, found.boxes, [SQUARE] * 8)
    truths = Objects(
        np.repeat(np.arange(8), [len(item) for item in detections]),
        np.concatenate([item.labels for item in detections]),
        np.concatenate([item.xyxy for item in detections]),
    )
    assert len(truths) > 40
    return BoxedRows(PACKED, rows, truths, len(CLASSES))


@pytest.fixture(scope="module")
def judge(model, choice) -> DetectionJudge:
    return DetectionJudge(model, choice, PREPROCESSING)


def test_the_float_model_is_as_good_as_itself(judge, model):
    assert judge.score(model, PREPROCESSING) == (1.0, 0.0)
    assert judge.reference_quality == judge.quality(model, PREPROCESSING) > 0.99
    verdict = judge.verdict(model, PREPROCESSING, 0.003)
    assert (verdict.difference.low, verdict.difference.value, verdict.difference.high) == (0, 0, 0)
    assert verdict.is_enough
    assert verdict.to_dict()["map_50_difference"]["value"] == 0


def test_fewer_bits_are_further_away_and_find_less(judge, model):
    eight, seven = (onnx.load_from_string(int8_file(bits)) for bits in (8, 7))
    scores = [judge.score(item, PREPROCESSING) for item in (eight, seven)]
    assert 0 < scores[0][1] < scores[1][1]
    assert all(0.5 < agreement < 1 for agreement, _ in scores)
    verdict = judge.verdict(eight, PREPROCESSING, 0.0)
    assert verdict.difference.low <= verdict.difference.value < 0
    assert verdict.difference.value == pytest.approx(
        judge.quality(eight, PREPROCESSING) - judge.reference_quality, abs=1e-9
    )


def test_divergences_are_those_of_two_outcomes():
    generator = np.random.default_rng(0)
    one, other = (generator.normal(-2, 4, (30, 3)).astype(np.float32) for _ in range(2))
    p, q = scipy.special.expit(one.astype(np.float64)), scipy.special.expit(other.astype(np.float64))
    expected = scipy.stats.entropy(np.stack([p, 1 - p]), np.stack([q, 1 - q]), axis=0)
    np.testing.assert_allclose(divergences(one, other), expected, rtol=1e-6, atol=1e-12)
    far = np.array([[-80.0, 80.0]], np.float32)
    assert np.isfinite(divergences(far, -far)).all()


def test_overlaps_are_those_of_pairs_and_0_without_an_area():
    generator = np.random.default_rng(1)
    corners = generator.uniform(0, 40, (2, 20, 2)).astype(np.float32)
    one, other = (np.concatenate([item, item + 20], axis=1) for item in corners)
    np.testing.assert_allclose(overlaps(one, other), np.diag(box_iou(one, other)), rtol=1e-6)
    empty = np.array([[5, 5, 5, 9]], np.float32)
    assert overlaps(empty, empty).tolist() == [0.0]


def test_agreement_counts_places_that_show_an_object_in_either():
    boxes = np.tile(np.array([0, 0, 8, 8], np.float32), (1, 4, 1))
    reference = Answers(np.array([[[3, -9], [3, -9], [-9, -9], [-9, 3]]], np.float32), boxes)
    # The same, another class, one that was none, and none that was one.
    found = Answers(np.array([[[3, -9], [-9, 3], [3, -9], [-9, -9]]], np.float32), boxes)
    assert compare(reference, found)[0] == 0.25
    nothing = Answers(np.full((1, 4, 2), -9, np.float32), boxes)
    assert compare(nothing, nothing) == (1.0, 0.0)


def test_what_follows_the_layers_of_a_detector_stays_in_float(model):
    left = {node.op_type for node in nodes_left_in_float(model)}
    assert {"Concat", "Transpose", "Reshape", "Mul", "Add"} <= left
    fusions = fusions_of(onnx.load_from_string(int8_file()))
    assert (fusions.float_layers, fusions.integer_layers) == (0, len(weighted_layers(model)))
    # Of the image, and of class scores and distances at three levels: nothing in between is converted.
    assert fusions.conversions == 1 + 2 * 3


def test_the_emulator_computes_all_outputs_of_a_detector():
    model = onnx.load_from_string(int8_file())
    inputs = normalize(PACKED[:2], PREPROCESSING)
    exact = open_session(int8_file(), threads=1, outputs=DETECTOR_OUTPUTS).run(None, {"images": inputs})
    found, saturated = Emulator(model).run_all(inputs, saturate=False)
    assert not +saturated
    for own, expected in zip(found, exact, strict=True):
        np.testing.assert_allclose(own, expected, atol=1e-3)


@pytest.mark.skipif(not products_saturate(), reason="the emulation is held against a processor that saturates")
def test_the_emulator_answers_as_a_processor_that_saturates(choice):
    model, inputs = onnx.load_from_string(int8_file()), normalize(choice.images, PREPROCESSING)
    (logits, boxes), emulated_pairs = Emulator(model).run_all(inputs)
    found, saturated = answers_without_vnni(model, choice, PREPROCESSING)
    assert 0 < (+saturated).total() < (+emulated_pairs).total()
    np.testing.assert_allclose(found.logits, logits, atol=1e-3)
    np.testing.assert_allclose(found.boxes, boxes, atol=1e-2)


@pytest.mark.parametrize("uint8_input", [True, False])
def test_the_ladder_takes_a_detector(judge, model, uint8_input):
    bench = open_bench(
        "it",
        model,
        PACKED[:16],
        judge,
        PREPROCESSING,
        Settings(["minmax"], [8], 0.0, 0),
        silent,
        lambda _: None,
        uint8_input=uint8_input,
    )
    quantized = quantize_up(bench, STEPS, CLASSES)
    assert quantized.unfused_layers == 0
    divergence = [step["divergence"] for step in quantized.notes["steps"] if step["kept"]]
    assert divergence == sorted(divergence, reverse=True)
    assert quantized.notes["guard"]["images"] == 8
    assert "map_50_on_choice_images" in quantized.notes["without_vnni"]
    assert read_metadata(quantized.model)["problem"] == "detection"
    assert quantized.preprocessing.takes_pixels == uint8_input
    found = judge.quality(quantized.model, quantized.preprocessing)
    assert found == bench.quality(quantized.model) if not uint8_input else found > 0.5


def test_of_large_images_fewer_are_in_memory_at_once():
    small, large = (np.broadcast_to(np.float32(0), (9, 3, edge, edge)) for edge in (224, 448))
    assert (as_many(64, small), as_many(64, large), as_many(2, large)) == (64, 16, 1)
