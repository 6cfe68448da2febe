"""A real server of a small network over clips: videos and frames in, classes out, and what is refused."""

from __future__ import annotations

import io

import jsonschema
import numpy as np
import pytest

import kinglet.serving.clip_answers
from kinglet.errors import KingletError
from kinglet.runtime.clips import ClipPredictor
from kinglet.runtime.preprocessing import prepare
from kinglet.serving.application import Application
from kinglet.serving.logs import JsonLog
from kinglet.serving.served_model import open_model
from kinglet.serving.settings import Settings
from tasks.clip_bundle import pack_clip_network
from tests.unit.models.clip_files import CLASSES, FRAMES, moving_bars, write_clip_network
from tests.unit.serving.running_server import encoded, running
from tests.unit.tracking.made_videos import write_frames

CLIPS, LABELS = moving_bars(9, seed=4)
RATE = 10.0
MP4 = {"Content-Type": "video/mp4"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    write_clip_network(root / "teacher")
    pack_clip_network(root / "bundle", root / "teacher", CLIPS[:4], LABELS[:4], RATE, "# bars\n")
    return root / "bundle"


@pytest.fixture(scope="module")
def predictor(bundle):
    return ClipPredictor(bundle, threads=1)


@pytest.fixture(scope="module")
def server(bundle):
    with running(open_model(bundle, threads=1), max_frames=40, max_megapixels=0.01, max_body_mb=0.5) as started:
        yield started


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A video of two clips, one after the other, large enough to survive its encoding."""
    frames = [np.kron(frame, np.ones((4, 4, 1), np.uint8)) for clip in CLIPS[[1, 0]] for frame in clip]
    return write_frames(tmp_path_factory.mktemp("video") / "bars.mp4", frames, range(0, 1200, 100))


def frames_of(clip: np.ndarray) -> list:
    """Return a clip as the files of a multipart body."""
    return [("frame", (f"{number}.png", encoded(frame), "image/png")) for number, frame in enumerate(clip)]


def test_the_clips_of_a_video_are_answered_as_the_predictor_answers_them(server, predictor, video):
    answer = server.client.post("/predict?top=2&per_frame=true", content=video.read_bytes(), headers=MP4)
    assert answer.status_code == 200, answer.text
    expected = predictor.predict_video(video)
    found = answer.json()["predictions"]
    assert [item["class"] for item in found] == expected.classes == ["right", "left"]
    assert [item["seconds"] for item in found] == [[0.0, 0.5], [0.6, 1.1]]
    for item, probabilities in zip(found, expected.probabilities, strict=True):
        assert (item["frames"], len(item["per_frame"]), len(item["top"])) == (FRAMES, FRAMES, 2)
        assert list(item["per_frame"][-1]) == CLASSES
        np.testing.assert_allclose(list(item["per_frame"][-1].values()), probabilities, atol=1e-5)
        assert item["image"] == {"name": "", "format": "MP4", "width": 64, "height": 64}


def test_images_of_one_body_are_the_frames_of_one_clip_in_order(server, predictor):
    for clip, label in zip(CLIPS[3:5], LABELS[3:5], strict=True):
        (found,) = server.client.post("/predict", files=frames_of(clip)).json()["predictions"]
        assert found["class"] == CLASSES[label] == predictor.predict([clip]).classes[0]
        assert found["confidence"] == pytest.approx(predictor.predict([clip]).confidences[0], abs=1e-5)
        assert (found["frames"], found["image"]["name"]) == (FRAMES, "0.png")
        assert not {"seconds", "per_frame"} & set(found)
    backwards = server.client.post("/predict", files=frames_of(CLIPS[3][::-1])).json()["predictions"]
    assert backwards[0]["class"] == "right"
    assert CLASSES[LABELS[3]] == "left"


def test_a_video_may_come_as_the_file_of_a_form(server, video):
    files = {"file": ("bars.mp4", video.read_bytes(), "video/mp4")}
    found = server.client.post("/predict", files=files).json()["predictions"]
    assert [item["image"]["name"] for item in found] == ["bars.mp4"] * 2


def test_a_video_shorter_than_a_clip_is_answered_after_the_frames_that_it_has(server, tmp_path):
    frames = [np.kron(frame, np.ones((4, 4, 1), np.uint8)) for frame in CLIPS[1][:4]]
    content = write_frames(tmp_path / "short.mp4", frames, range(0, 400, 100)).read_bytes()
    (found,) = server.client.post("/predict", content=content, headers=MP4).json()["predictions"]
    assert (found["frames"], found["seconds"]) == (4, pytest.approx([0, 0.3]))


def test_tensors_are_the_frames_of_one_clip_and_answered_after_each(server, predictor):
    tensor = prepare(CLIPS[1], predictor.preprocessing)
    shape = list(tensor.shape)
    body = {"inputs": [{"name": "images", "datatype": "FP32", "shape": shape, "data": tensor.ravel().tolist()}]}
    answer = server.client.post("/v2/models/bars/infer", json=body).json()
    outputs = {item["name"]: np.reshape(item["data"], item["shape"]) for item in answer["outputs"]}
    np.testing.assert_allclose(outputs["probabilities"], predictor.after_each_frame(CLIPS[1]), atol=1e-6)
    metadata = server.client.get("/v2/models/bars").json()
    assert metadata["outputs"][0] == {"name": "logits", "datatype": "FP32", "shape": [-1, len(CLASSES)]}


def test_answers_have_the_shape_that_the_document_says(server, video):
    document = server.client.get("/openapi.json").json()
    schema = {**document["components"]["schemas"]["Predictions"], "components": document["components"]}
    predict = document["paths"]["/predict"]["post"]
    assert {"video/mp4", "image/png", "multipart/form-data"} <= set(predict["requestBody"]["content"])
    assert [item["name"] for item in predict["parameters"]] == ["top", "per_frame"]
    assert "501" in predict["responses"]
    for query in ("", "?per_frame=true"):
        answer = server.client.post(f"/predict{query}", content=video.read_bytes(), headers=MP4).json()
        jsonschema.validate(answer, schema)


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"\x00\x00\x00\x18ftypisom" + bytes(500), 422, "The video is no video that FFmpeg can read"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", 415, "It is no image"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", 415, "It is no image"),
        (b"", 400, "The body is empty; send the bytes of a video"),
    ],
)
def test_what_is_no_video_is_refused_in_a_sentence(server, content, status, words):
    answer = server.client.post("/predict", content=content, headers=MP4)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text


def test_a_video_that_breaks_off_is_refused(server, video):
    content = video.read_bytes()
    answer = server.client.post("/predict", content=content[: len(content) // 2], headers=MP4)
    assert (answer.status_code, answer.json()["code"]) == (422, "undecodable_video")
    assert "The video" in answer.json()["error"]


def test_a_video_of_too_many_frames_or_pixels_is_refused_undecoded(server, tmp_path):
    many = write_frames(tmp_path / "many.mp4", [np.zeros((32, 32, 3), np.uint8)] * 41, range(0, 4100, 100)).read_bytes()
    answer = server.client.post("/predict", content=many, headers=MP4)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_frames")
    assert answer.json()["error"] == "The video has 41 frames, at most 40 are allowed."
    large = write_frames(tmp_path / "large.mp4", [np.zeros((128, 128, 3), np.uint8)] * 2, [0, 100]).read_bytes()
    answer = server.client.post("/predict", content=large, headers=MP4)
    assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")
    assert "128 x 128 pixels" in answer.json()["error"]


def test_a_video_among_images_an_image_that_is_none_and_odd_questions_are_refused(server, video):
    files = [*frames_of(CLIPS[0][:2]), ("frame", ("v.mp4", video.read_bytes(), "video/mp4"))]
    answer = server.client.post("/predict", files=files)
    assert (answer.status_code, "Part 3 of 3 is a video" in answer.json()["error"]) == (400, True)
    files = [*frames_of(CLIPS[0][:1]), ("frame", ("x.png", b"no", "image/png"))]
    answer = server.client.post("/predict", files=files)
    assert (answer.status_code, answer.json()["error"].startswith("Image 2 ('x.png') is no image")) == (415, True)
    answer = server.client.post("/predict?per_frame=maybe", files=frames_of(CLIPS[0]))
    assert (answer.status_code, "per_frame is 'maybe'" in answer.json()["error"]) == (400, True)
    answer = server.client.post("/predict", content=b"x", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, "video/mp4" in answer.json()["error"]) == (415, True)


def test_without_a_decoder_of_videos_frames_are_still_answered(server, video, monkeypatch):
    def missing() -> None:
        raise KingletError("PyAV is not installed.", "Send frames.")

    monkeypatch.setattr(kinglet.serving.clip_answers, "require_av", missing)
    answer = server.client.post("/predict", content=video.read_bytes(), headers=MP4)
    assert (answer.status_code, answer.json()["code"]) == (501, "no_video_decoder")
    assert answer.json()["error"] == "PyAV is not installed. Send frames."
    assert server.client.post("/predict", files=frames_of(CLIPS[0])).status_code == 200


def test_batches_of_several_clips_are_refused_before_the_port_is_opened(bundle):
    with pytest.raises(KingletError, match="frame by frame, and batch_size is 4"):
        Application(open_model(bundle, threads=1), Settings(batch_size=4), JsonLog(io.StringIO()))


def test_the_page_takes_a_video_or_frames(server):
    page = server.client.get("/").text
    assert "video/mp4" in page
    assert "Drop a video here" in page
    assert "Sorts a clip into one of 3 classes" in page
