"""Int8 for clip classifiers: what judges the frame part, and the recurrent part by itself."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from kinglet.compression.calibration import stream_histograms
from kinglet.compression.classification_judge import ClassificationJudge, LabelledRows
from kinglet.compression.clip_judge import OfClips, features_of_clips, logits_of_clips
from kinglet.compression.latency import Latency
from kinglet.compression.quantization import quantize_static
from kinglet.compression.recurrent_quantization import Judgement, accuracy_of_step, quantize_step
from kinglet.runtime.preprocessing import normalize
from kinglet.runtime.recurrence import open_recurrence
from tests.unit.models.clip_classifier_files import FRAMES, PREPROCESSING, clip_files, moving_squares

N = 9


def models():
    return [onnx.load_from_string(content) for content in clip_files()]


@pytest.fixture(scope="module")
def rows():
    clips, labels = moving_squares(N)
    return LabelledRows(clips, np.arange(N), labels)


def judge_of(rows, n_first=N):
    recurrence = open_recurrence(clip_files()[1], threads=1)
    return ClassificationJudge(models()[0], rows, PREPROCESSING, OfClips(recurrence), n_first)


def test_a_clip_is_judged_by_what_the_recurrent_part_says_after_its_last_frame(rows):
    judge = judge_of(rows, n_first=4)
    frame_part, _ = models()
    features = features_of_clips(frame_part, rows, PREPROCESSING)
    recurrence = open_recurrence(clip_files()[1], threads=1)
    state = recurrence.first_state()
    for frame in features[2]:
        logits, state = recurrence.step(frame[None], state)
    np.testing.assert_array_equal(judge.reference[2], logits[0])
    assert judge.first_reference.shape == (4, 3)
    assert judge.score(frame_part, PREPROCESSING) == pytest.approx((1.0, 0.0), abs=1e-9)
    assert judge.verdict(frame_part, PREPROCESSING, 0.01).difference.value == 0


def test_processors_without_vnni_are_emulated_frame_by_frame(rows):
    judge, (frame_part, _) = judge_of(rows), models()
    histograms = stream_histograms(frame_part, normalize(rows.packed[:, 0], PREPROCESSING))
    quantized = quantize_static(frame_part, histograms, "minmax", 7)
    assert judge.quality_without_vnni(quantized, PREPROCESSING)[0] == judge.quality(quantized, PREPROCESSING)
    wide = quantize_static(frame_part, histograms, "minmax", 8)
    _, saturated = judge.quality_without_vnni(wide, PREPROCESSING)
    assert all(count >= 0 for count in saturated.values())


def test_a_step_in_int8_stores_all_its_matrices_in_integers_and_answers_nearly_the_same(rows):
    frame_part, step = models()
    quantized = quantize_step(step)
    assert quantized.SerializeToString() == quantize_step(step).SerializeToString()
    stored = [item for item in quantized.graph.initializer if item.data_type == onnx.TensorProto.INT8]
    assert len(stored) >= 4
    assert max(np.abs(onnx.numpy_helper.to_array(item).astype(int)).max() for item in stored if item.dims) <= 64
    products = [node.op_type for node in quantized.graph.node if node.op_type.startswith("MatMul")]
    assert products == ["MatMulInteger"] * 4
    features = features_of_clips(frame_part, rows, PREPROCESSING)
    exact, found = (
        logits_of_clips(features, open_recurrence(model.SerializeToString(), threads=1)) for model in (step, quantized)
    )
    assert np.abs(exact - found).max() < 0.1 * np.ptp(exact)
    assert features.shape[1] == FRAMES


def test_the_accuracy_of_a_step_is_that_of_its_answers(rows):
    frame_part, step = models()
    features = features_of_clips(frame_part, rows, PREPROCESSING)
    answers = logits_of_clips(features, open_recurrence(clip_files()[1], threads=1)).argmax(1)
    assert accuracy_of_step(step, features, answers) == 1.0
    assert accuracy_of_step(step, features, (answers + 1) % 3) == 0.0


@pytest.mark.parametrize(
    ("accuracy", "low", "kept"),
    [(0.9, 0.010, True), (0.95, 0.010, True), (0.89, 0.010, False), (0.9, 0.013, False), (0.9, 0.012, True)],
)
def test_int8_is_kept_where_it_is_neither_worse_nor_slower_beyond_doubt(accuracy, low, kept):
    int8, fp32 = Latency(low + 0.001, low, low + 0.002, "int8"), Latency(0.011, 0.010, 0.012, "fp32")
    judgement = Judgement(accuracy, 0.9, int8, fp32)
    assert judgement.is_kept is kept
    assert judgement.to_dict()["precision"] == ("int8" if kept else "fp32")
