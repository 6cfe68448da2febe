"""Answers to clips from a bundle: streamed and at once, what is in the bundle, and what the predictor refuses."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
import torch

from kinglet.atomic import read_json, write_bytes, write_json
from kinglet.errors import KingletError
from kinglet.runtime import ClipPredictor, Predictor, bundles, open_predictor
from kinglet.runtime.preprocessing import prepare
from kinglet.runtime.recurrence import open_recurrence
from tasks.clip_bundle import pack_clip_network
from tests.unit.models.clip_classifier_files import clip_files, moving_squares, small_clip_classifier
from tests.unit.models.clip_files import CLASSES, FRAMES, SIZE, frame_part, moving_bars, write_clip_network
from tests.unit.tracking.made_videos import write_frames

CLIPS, LABELS = moving_bars(12, seed=3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    write_clip_network(root / "teacher")
    pack_clip_network(root / "bundle", root / "teacher", CLIPS[:4], LABELS[:4], 12.5, "# bars\n")
    return root / "bundle"


@pytest.fixture
def changed(bundle, tmp_path):
    """A copy of the bundle to change."""
    shutil.copytree(bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_clips_answer_is_what_the_network_says_after_its_last_frame(bundle):
    predictor = ClipPredictor(bundle, threads=1)
    found = predictor.predict(CLIPS)
    assert np.mean([name == CLASSES[label] for name, label in zip(found.classes, LABELS, strict=True)]) > 0.8
    for clip, probabilities in zip(CLIPS, found.probabilities, strict=True):
        after = predictor.after_each_frame(clip)
        assert after.shape == (FRAMES, len(CLASSES))
        assert np.array_equal(after[-1], probabilities)
        # Before anything has moved, no way is likelier than the other.
        assert after[0, 0] == after[0, 1]


def test_a_stream_gives_the_bits_of_its_clip_whatever_else_is_answered(bundle):
    predictor = open_predictor(bundle, threads=1)
    at_once = predictor.predict(CLIPS).probabilities
    streams = [predictor.stream() for _ in CLIPS]
    # The frames of all clips arrive in turns, as those of several cameras do.
    for number in range(FRAMES):
        last = [stream.push(clip[number]) for stream, clip in zip(streams, CLIPS, strict=True)]
    assert np.array_equal(np.stack(last), at_once)
    assert [stream.frames for stream in streams] == [FRAMES] * len(CLIPS)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_pretrained_networks_stream_gives_the_bits_and_torchs_answers(tmp_path, cell):
    frame_file, recurrent_file = clip_files(cell)
    write_bytes(tmp_path / "made" / bundles.MODEL, frame_file)
    write_bytes(tmp_path / "made" / bundles.RECURRENT, recurrent_file)
    clips, labels = moving_squares(5, seed=2)
    pack_clip_network(tmp_path / "bundle", tmp_path / "made", clips[:3], labels[:3], 10.0, "# squares\n")
    predictor = ClipPredictor(tmp_path / "bundle", threads=1)
    at_once = predictor.predict(clips).probabilities
    streams = [predictor.stream() for _ in clips]
    for frames in clips.swapaxes(0, 1):
        last = [stream.push(frame) for stream, frame in zip(streams, frames, strict=True)]
    assert np.array_equal(np.stack(last), at_once)
    with torch.no_grad():
        pixels = prepare(clips.reshape(-1, *clips.shape[2:]), predictor.preprocessing)
        expected = small_clip_classifier(cell)(torch.from_numpy(pixels)).softmax(1).numpy()
    np.testing.assert_allclose(at_once, expected, atol=1e-4)


def test_a_video_is_cut_as_a_data_set_is(bundle, tmp_path):
    predictor = ClipPredictor(bundle, threads=1)
    frames = [np.kron(frame, np.ones((4, 4, 1), np.uint8)) for clip in CLIPS[[1, 0]] for frame in clip]
    video = write_frames(tmp_path / "bars.mp4", frames, range(0, 960, 80))
    assert predictor.predict_video(video).classes == ["right", "left"]
    with pytest.raises(KingletError, match=r"none\.mp4 does not exist"):
        predictor.predict_video(tmp_path / "none.mp4")


def test_without_pyav_a_video_is_told_and_frames_are_answered(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("kinglet.runtime.clips.find_spec", lambda _: None)
    predictor = ClipPredictor(bundle, threads=1)
    with pytest.raises(KingletError, match=r"PyAV, which reads video files, is not installed"):
        predictor.predict_video(tmp_path / "bars.mp4")
    assert len(predictor.predict(CLIPS[:2])) == 2


def test_a_stream_that_restarts_has_forgotten_its_frames(bundle):
    stream = ClipPredictor(bundle, threads=1).stream()
    first = [stream.push(frame) for frame in CLIPS[1]]
    stream.restart()
    assert np.array_equal(first, [stream.push(frame) for frame in CLIPS[1]])


def test_frames_of_any_size_are_brought_to_the_models(bundle):
    predictor = ClipPredictor(bundle, threads=1)
    large = [np.kron(frame, np.ones((3, 3, 1), np.uint8)) for frame in CLIPS[1]]
    assert predictor.predict([large]).classes == predictor.predict([CLIPS[1]]).classes


def test_the_bundle_says_what_it_is(bundle):
    facts = read_json(bundle / bundles.PREPROCESSING)
    assert (facts["problem"], facts["format"]) == ("video", 4)
    predictor = ClipPredictor(bundle)
    assert (predictor.frames, predictor.frames_per_second) == (FRAMES, 12.5)
    assert set(bundles.verify(bundle)) >= {"model.onnx", "recurrent.onnx", "golden.npz", "MODEL_CARD.md"}
    assert predictor.check_golden(bundle / bundles.GOLDEN) < 1e-5


def test_an_unusable_frame_is_named_and_leaves_the_state(bundle):
    predictor = ClipPredictor(bundle, threads=1)
    wrong = [*CLIPS[0][:2], np.zeros((SIZE, SIZE, 4), np.uint8)]
    with pytest.raises(ValueError, match=r"clip 1, frame 2: an image must have shape"):
        predictor.predict([CLIPS[0], wrong])
    with pytest.raises(ValueError, match="clip 0 has no frames"):
        predictor.predict([[]])
    stream = predictor.stream()
    for frame in CLIPS[0]:
        with pytest.raises(ValueError, match="uint8"):
            stream.push(frame.astype(np.float32))
        last = stream.push(frame)
    assert np.array_equal(last, predictor.predict([CLIPS[0]]).probabilities[0])


def test_another_predictor_says_what_opens_the_bundle(bundle):
    with pytest.raises(KingletError, match=r"bundle for video, not for classification") as caught:
        Predictor(bundle)
    assert "ClipPredictor" in caught.value.hint


def test_golden_clips_that_are_answered_otherwise_are_told(changed):
    with np.load(changed / bundles.GOLDEN) as opened:
        golden = dict(opened)
    golden[bundles.EXACT][2] = golden[bundles.EXACT][2][::-1]
    write_bytes(changed / bundles.GOLDEN, bundles.npz_bytes(golden))
    bundles.seal(changed)
    with pytest.raises(KingletError, match=r"first in clip 2, class"):
        ClipPredictor(changed).check_golden(changed / bundles.GOLDEN)


def test_a_bundle_without_its_recurrent_part_is_refused(changed):
    (changed / bundles.RECURRENT).unlink()
    bundles.seal(changed)
    with pytest.raises(KingletError, match=r"does not list recurrent\.onnx"):
        ClipPredictor(changed)


def test_parts_of_two_models_are_refused(changed):
    model = frame_part(0.0, CLASSES)
    del model.graph.node[-1:]
    model.graph.node[0].output[0] = "features"
    (changed / bundles.MODEL).write_bytes(model.SerializeToString())
    (changed / bundles.RECURRENT).write_bytes((changed / bundles.MODEL).read_bytes())
    bundles.seal(changed)
    with pytest.raises(KingletError, match=r"recurrent\.onnx is no step of a recurrence: it has inputs \['images'\]"):
        ClipPredictor(changed)


def test_a_bundle_of_a_newer_format_is_refused(changed):
    facts = read_json(changed / bundles.PREPROCESSING)
    write_json(changed / bundles.PREPROCESSING, {**facts, "format": bundles.FORMAT + 1})
    bundles.seal(changed)
    with pytest.raises(KingletError, match=f"reads up to format {bundles.FORMAT}"):
        ClipPredictor(changed)


def test_a_recurrent_part_of_another_width_is_refused(changed, tmp_path):
    other = open_recurrence(changed / bundles.RECURRENT)
    assert (other.feature_size, other.state_size, other.n_classes) == (1, 3, len(CLASSES))
    model = onnx.load(changed / bundles.RECURRENT)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2
    for item in model.graph.initializer:
        if item.name == "nothing":
            item.CopyFrom(onnx.numpy_helper.from_array(np.zeros((2, 1), np.float32), "nothing"))
    del model.graph.node[:]
    model.graph.node.extend(
        [
            onnx.helper.make_node("MatMul", ["features", "nothing"], ["zero"]),
            onnx.helper.make_node("Mul", ["zero", "zero"], ["square"]),
            onnx.helper.make_node("Add", ["state", "square"], ["next_state"]),
            onnx.helper.make_node("Add", ["state", "square"], ["logits"]),
        ]
    )
    onnx.save(model, changed / bundles.RECURRENT)
    bundles.seal(changed)
    with pytest.raises(KingletError, match="takes 2 features of a frame; the model beside it gives 1"):
        ClipPredictor(changed)
