"""How int8 segmenters are judged, from the places of an image up to the verdict."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import scipy.special
import scipy.stats

from kinglet.compression.ladder import STEPS, Settings, open_bench
from kinglet.compression.quantized import quantize_up
from kinglet.compression.saturation import Emulator
from kinglet.compression.segmentation_judge import MaskedRows, SegmentationJudge, answers, compare
from kinglet.models.onnx_graph import read_metadata
from kinglet.reporting import silent
from kinglet.runtime.preprocessing import normalize, placement
from kinglet.runtime.segmentation import VOID, decode_masks
from kinglet.runtime.sessions import open_session, run
from kinglet.runtime.vnni import products_saturate
from tests.unit.models.detector_files import pictures
from tests.unit.models.segmenter_files import CLASSES, PREPROCESSING, SIZE, int8_file, segmenter_file

PACKED = pictures(14)
SQUARE = placement(SIZE, SIZE, SIZE, "pad")


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load_from_string(segmenter_file())


@pytest.fixture(scope="module")
def choice(model) -> MaskedRows:
    """Six images; what the float model says there counts as true but for a void stripe, so that it is always right."""
    masks = np.full(PACKED.shape[:3], VOID, np.uint8)
    rows = np.arange(8, 14)
    for row, logits in zip(rows, answers(model, MaskedRows(PACKED, masks, rows), PREPROCESSING), strict=True):
        masks[row] = decode_masks(logits, [SQUARE], [(SIZE, SIZE)])[0]
        masks[row, :4] = VOID
    assert min(np.bincount(masks[rows].ravel(), minlength=3)[:3]) > 100
    return MaskedRows(PACKED, masks, rows)


@pytest.fixture(scope="module")
def judge(model, choice) -> SegmentationJudge:
    return SegmentationJudge(model, choice, PREPROCESSING)


def test_the_float_model_is_as_good_as_itself(judge, model):
    assert judge.score(model, PREPROCESSING) == (1.0, 0.0)
    assert judge.reference_quality == judge.quality(model, PREPROCESSING) == 1.0
    verdict = judge.verdict(model, PREPROCESSING, 0.003)
    assert (verdict.difference.low, verdict.difference.value, verdict.difference.high) == (0, 0, 0)
    assert verdict.is_enough
    assert verdict.to_dict()["miou_difference"]["value"] == 0
    assert verdict.n_images == 6


def test_fewer_bits_are_further_away_and_less_right(judge):
    eight, seven = (onnx.load_from_string(int8_file(bits)) for bits in (8, 7))
    scores = [judge.score(item, PREPROCESSING) for item in (eight, seven)]
    assert 0 < scores[0][1] < scores[1][1]
    assert all(0.5 < agreement < 1 for agreement, _ in scores)
    verdict = judge.verdict(eight, PREPROCESSING, 0.0)
    assert verdict.difference.low <= verdict.difference.value < 0
    assert verdict.difference.value == pytest.approx(judge.quality(eight, PREPROCESSING) - 1.0, abs=1e-9)


def test_of_one_image_only_the_difference_itself_can_decide(model, choice):
    verdict = SegmentationJudge(model, choice.first(1), PREPROCESSING).verdict(model, PREPROCESSING, 0.003)
    assert (verdict.difference.low, verdict.difference.high) == (-1, 1)
    assert verdict.judged_by == "point difference"
    assert not verdict.established


def test_the_divergence_is_that_of_the_probabilities_of_places():
    generator = np.random.default_rng(0)
    one, other = (generator.normal(0, 3, (2, 3, 4, 5)).astype(np.float32) for _ in range(2))
    p, q = (scipy.special.softmax(item.astype(np.float64), 1) for item in (one, other))
    agreement, divergence = compare([one[:1], one[1:]], [other[:1], other[1:]])
    assert divergence == pytest.approx(scipy.stats.entropy(p, q, axis=1).mean())
    assert agreement == pytest.approx((p.argmax(1) == q.argmax(1)).mean())
    far = np.array([[[[-90.0]], [[90.0]]]], np.float32)
    assert compare([far], [-far]) == (0.0, pytest.approx(180.0))


@pytest.mark.skipif(not products_saturate(), reason="the emulation is held against a processor that saturates")
def test_the_emulator_answers_as_a_processor_that_saturates():
    model, images = onnx.load_from_string(int8_file()), normalize(PACKED[:2], PREPROCESSING)
    found, saturated = Emulator(model).run(images)
    assert saturated.total() > 0
    expected = run(open_session(int8_file(), threads=1, exact_sums=False), images)
    step = np.diff(np.unique(expected)).min()
    assert (np.abs(found - expected) < 0.5 * step).mean() > 0.999


def test_what_a_model_is_worth_without_vnni_is_what_its_emulation_is_right_about(judge, choice):
    quality, saturated = judge.quality_without_vnni(onnx.load_from_string(int8_file()), PREPROCESSING)
    assert saturated.total() > 0
    assert 0.2 < quality < 1.0
    seven = onnx.load_from_string(int8_file(7))
    assert judge.quality_without_vnni(seven, PREPROCESSING)[0] == judge.quality(seven, PREPROCESSING)


@pytest.mark.parametrize("uint8_input", [True, False])
def test_the_ladder_takes_a_segmenter(judge, model, uint8_input):
    bench = open_bench(
        "it",
        model,
        PACKED[:8],
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
    assert quantized.notes["guard"]["images"] == 6
    assert "miou_on_choice_images" in quantized.notes["without_vnni"]
    assert read_metadata(quantized.model)["problem"] == "segmentation"
    assert quantized.preprocessing.takes_pixels == uint8_input
    assert judge.quality(quantized.model, quantized.preprocessing) > 0.8
