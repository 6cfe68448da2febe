"""What a real server notes of boxes, masks and clips: what its predictor answers, each image once."""

from __future__ import annotations

import csv
import json
from functools import reduce
from pathlib import Path

import numpy as np
import pytest

from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.clips import ClipPredictor
from kinglet.runtime.detection_predictor import DetectionPredictor
from kinglet.runtime.preprocessing import prepare, square_of
from kinglet.runtime.segmentation_predictor import SegmentationPredictor
from kinglet.runtime.sketches import (
    INPUTS,
    Sketch,
    input_statistics,
    merged,
    read_reference,
    reference_of,
    sketch_from,
    sketch_of_values,
)
from kinglet.runtime.vnni import products_saturate
from kinglet.runtime.watched_answers import (
    SHARED_WEIGHT,
    Answers,
    Values,
    class_answers,
    mask_answers,
    mask_facts,
    object_answers,
    one_each,
)
from kinglet.serving.application import Application
from kinglet.serving.logs import JsonLog
from kinglet.serving.served_model import open_model
from kinglet.serving.settings import Settings
from tasks.clip_bundle import pack_clip_network
from tests.unit.models.clip_files import moving_bars, write_clip_network
from tests.unit.models.detector_files import pictures
from tests.unit.runtime.detector_bundle import build_detector_bundle
from tests.unit.serving.running_server import Running, encoded, running
from tests.unit.tasks.segmenter_project import TEACHER, photos_of_blots, write_bundle, write_segmenter
from tests.unit.tracking.made_videos import write_frames

PHOTOS = [image[: 60 + 10 * number] for number, image in enumerate(pictures(5, 120, seed=5))]


def inputs_of(images: list[np.ndarray], predictor) -> dict[str, Values]:
    """Return what images are measured by, each by itself."""
    squares = np.stack([square_of(image, predictor.preprocessing) for image in images])
    sizes = np.array([image.shape[1::-1] for image in images], np.float64)
    values = {**input_statistics(squares), "width": sizes[:, 0], "height": sizes[:, 1]}
    return {name: one_each(values[name]) for name in INPUTS}


def add_reference(bundle: Path, inputs: dict[str, Values], answers: Answers, classes: list[str]) -> None:
    """Give a bundle a reference of these images and answers."""
    reference = reference_of(bundles.problem_of(bundle), inputs, answers, classes)
    (bundle / bundles.REFERENCE).write_text(json.dumps(reference.to_dict()))
    bundles.seal(bundle)


def written(folder: Path, bundle: Path) -> Sketch:
    """Return all sketches in a folder as one."""
    reference = read_reference(bundle / bundles.REFERENCE)
    return reduce(merged, [sketch_from(file.read_bytes(), file.name, reference) for file in folder.glob("sketch-*")])


def send(server: Running, images: list[np.ndarray]) -> None:
    """Send images in one request."""
    files = [("images", (f"{number}.png", encoded(image))) for number, image in enumerate(images)]
    assert server.client.post("/predict", files=files).status_code == 200


def send_tensors(server: Running, tensors: np.ndarray) -> None:
    """Send prepared images, or the frames of a clip, by the Open Inference Protocol."""
    item = {"name": "images", "datatype": "FP32", "shape": list(tensors.shape), "data": tensors.ravel().tolist()}
    answer = server.client.post(f"/v2/models/{server.application.model.name}/infer", json={"inputs": [item]})
    assert answer.status_code == 200, answer.text


def assert_same(found: Sketch, expected: Sketch) -> None:
    assert found.n_images == expected.n_images
    for name, counts in expected.columns.items():
        assert found.columns[name].tolist() == counts.tolist(), name
    assert found.class_counts.tolist() == expected.class_counts.tolist()


@pytest.fixture(scope="module")
def detector_bundle(tmp_path_factory) -> Path:
    bundle = build_detector_bundle(tmp_path_factory.mktemp("detector"))
    predictor = DetectionPredictor(bundle, threads=1)
    sizes = [(image.shape[1], image.shape[0]) for image in PHOTOS]
    answers = object_answers(predictor.predict(PHOTOS), sizes, len(predictor.classes))
    add_reference(bundle, inputs_of(PHOTOS, predictor), answers, predictor.classes)
    return bundle


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_objects_of_a_detector_are_those_of_its_predictor(detector_bundle, tmp_path, batch_size):
    predictor = DetectionPredictor(detector_bundle, threads=1)
    with running(open_model(detector_bundle, 1), monitor=str(tmp_path), batch_size=batch_size) as server:
        send(server, PHOTOS[:3])
        send(server, PHOTOS[3:4])
        send_tensors(server, prepare(PHOTOS[4:], predictor.preprocessing))
    sketch = written(tmp_path, detector_bundle)
    objects = predictor.predict(PHOTOS[:4])
    sizes = [(image.shape[1], image.shape[0]) for image in PHOTOS[:4]]
    reference = read_reference(detector_bundle / bundles.REFERENCE)
    answers = object_answers(objects, sizes, len(predictor.classes))
    expected = sketch_of_values(reference, inputs_of(PHOTOS[:4], predictor), answers)
    assert sketch.n_images == 5
    for name in ("width", "height", "object size"):
        # Nobody knows how large the image was that came as a tensor.
        assert sketch.columns[name].tolist() == expected.columns[name].tolist()
    for name in ("objects", "confidence", "brightness"):
        rest = (sketch.columns[name] - expected.columns[name]).tolist()
        assert min(rest) >= 0
        assert sum(rest) == pytest.approx(SHARED_WEIGHT, rel=1e-3)
    assert sketch.class_counts.sum() / SHARED_WEIGHT == pytest.approx(5, abs=1e-3)


@pytest.mark.parametrize("fit", ["pad", "tile"])
def test_the_masks_of_a_segmenter_are_those_of_its_logits_tile_by_tile(tmp_path, fit):
    write_segmenter(tmp_path, TEACHER, fit=fit)
    write_bundle(tmp_path, TEACHER, tmp_path / "bundle")
    bundle, predictor = tmp_path / "bundle", SegmentationPredictor(tmp_path / "bundle", threads=1)
    photos = [*photos_of_blots(3, seed=5)[0], photos_of_blots(1, seed=6)[0][0][:30, :40]]
    tiles = [
        (number, tile.cut(photo))
        for number, photo in enumerate(photos)
        for tile in predictor.tiles(photo.shape[1], photo.shape[0])
    ]
    assert (len(tiles) > len(photos)) == (fit == "tile")
    images, cut = np.array([number for number, _ in tiles]), [pixels for _, pixels in tiles]
    placements = [predictor.placement(pixels.shape[1], pixels.shape[0]) for pixels in cut]
    facts = mask_facts(predictor.outputs(prepare(cut, predictor.preprocessing)), placements)
    answers = mask_answers(*facts, images, predictor.classes)
    inputs = {name: Values(found.values, images) for name, found in inputs_of(cut, predictor).items()}
    add_reference(bundle, inputs, answers, predictor.classes)
    with running(open_model(bundle, 1), monitor=str(tmp_path / "out")) as server:
        send(server, photos[:2])
        send(server, photos[2:])
    expected = sketch_of_values(read_reference(bundle / bundles.REFERENCE), inputs, answers)
    assert_same(written(tmp_path / "out", bundle), expected)
    assert expected.columns["brightness"].sum() == pytest.approx(4 * SHARED_WEIGHT, rel=1e-4)


def test_a_video_counts_once_by_the_middle_frames_of_its_clips_and_keeps_an_answer_of_each(tmp_path):
    clips, labels = moving_bars(6, seed=4)
    write_clip_network(tmp_path / "teacher")
    bundle = tmp_path / "bundle"
    pack_clip_network(bundle, tmp_path / "teacher", clips[:4], labels[:4], 10.0, "# bars\n")
    predictor = ClipPredictor(bundle, threads=1)
    answers = class_answers(predictor.predict(clips).probabilities)
    add_reference(bundle, inputs_of(list(clips[:, 3]), predictor), answers, predictor.classes)
    frames = [np.kron(frame, np.ones((4, 4, 1), np.uint8)) for clip in clips[[1, 0]] for frame in clip]
    video = write_frames(tmp_path / "bars.mp4", frames, range(0, 1200, 100)).read_bytes()
    with running(open_model(bundle, 1), monitor=str(tmp_path / "out"), monitor_answers="all") as server:
        send(server, list(clips[2]))
        send_tensors(server, prepare(clips[3], predictor.preprocessing))
        answer = server.client.post("/predict", content=video, headers={"content-type": "video/mp4"})
    sketch, reference = written(tmp_path / "out", bundle), read_reference(bundle / bundles.REFERENCE)
    sent = sketch_of_values(
        reference,
        inputs_of([clips[2][3], clips[3][3]], predictor),
        class_answers(predictor.predict(clips[2:4]).probabilities),
    )
    assert sketch.n_images == 3
    assert sketch.sample.shape == (3, len(predictor.classes))
    assert sketch.columns["width"].sum() == 2 * SHARED_WEIGHT
    for name in ("brightness", "confidence"):
        rest = (sketch.columns[name] - sent.columns[name]).tolist()
        assert (min(rest), sum(rest)) == (0, SHARED_WEIGHT)
    (file,) = (tmp_path / "out").glob("answers-*.csv")
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [(row["image"], row["class"]) for row in rows[-2:]] == [("0", "right"), ("1", "left")]
    assert {row["id"] for row in rows[-2:]} == {answer.headers["x-request-id"]}


def test_a_sketch_says_whether_the_sums_of_an_int8_model_saturate_here(detector_bundle, tmp_path):
    int8 = build_detector_bundle(tmp_path / "int8", int8=True)
    (int8 / bundles.REFERENCE).write_bytes((detector_bundle / bundles.REFERENCE).read_bytes())
    bundles.seal(int8)
    for bundle, expected in ((detector_bundle, False), (int8, products_saturate())):
        out = tmp_path / str(bundle.parent.name)
        with running(open_model(bundle, 1), monitor=str(out)) as server:
            send(server, PHOTOS[:1])
        (file,) = out.glob("sketch-*.json")
        assert json.loads(file.read_bytes())["saturates"] is expected


def test_answers_that_are_no_classes_are_not_kept_for_labels(detector_bundle, tmp_path):
    settings = Settings(monitor=str(tmp_path), monitor_answers="all")
    with pytest.raises(KingletError, match="blood-cells answers no single class to an image: labels to come"):
        Application(open_model(detector_bundle, threads=1), settings, JsonLog())
