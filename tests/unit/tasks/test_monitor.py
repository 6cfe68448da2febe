"""The check of what servers saw, for detectors and networks over clips: what moved, and in whose words."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from kinglet.errors import KingletError
from kinglet.runtime.detection import Detections
from kinglet.runtime.sketches import INPUTS, Reference, Sketch, reference_of, sketch_of_values
from kinglet.runtime.watched_answers import Answers, Values, class_answers, object_answers, one_each
from tasks.live_labels import accuracy_in_use
from tasks.monitor import PAGE, check
from tasks.parameters import Parameters
from tests.unit.tasks.detector_project import parameters as detector_parameters

CLASSES = ["car", "bus"]
FACTS = {"model": "street", "version": "1", "process": "a", "lost": 2}
FACTS |= {"started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T00:05:00+00:00"}


@pytest.fixture
def parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parameters:
    monkeypatch.chdir(tmp_path)
    return detector_parameters(monitor={"sketches": "sketches"})


def write(reference: Reference, sketch: Sketch, **facts: object) -> None:
    """Write what a server writes."""
    Path("sketches").mkdir(exist_ok=True)
    content = json.dumps(reference.to_dict()).encode()
    digest = hashlib.sha256(content).hexdigest()
    Path(f"sketches/reference-{digest}.json").write_bytes(content)
    fields = {**FACTS, **facts, "reference": digest, **sketch.to_dict()}
    Path(f"sketches/sketch-{sketch.n_images}.json").write_text(json.dumps(fields))


def inputs(n: int, generator: np.random.Generator) -> dict[str, Values]:
    return {name: one_each(generator.random(n)) for name in INPUTS}


def objects(n: int, generator: np.random.Generator, label: int) -> Answers:
    """Return up to three objects in each image, half of them of one class and the rest of any."""
    found = []
    for count in generator.integers(0, 4, n).tolist():
        labels = np.where(generator.random(count) < 0.5, label, generator.integers(0, 2, count))
        corners = generator.uniform(0, 50, (count, 2))
        boxes = np.concatenate([corners, corners + generator.uniform(5, 40, (count, 1))], axis=1)
        scores = np.sort(generator.uniform(0.3, 1, count))[::-1]
        found.append(Detections(boxes.astype(np.float32), labels, scores.astype(np.float32)))
    return object_answers(found, [(100, 100)] * n, 2)


def test_a_detector_that_finds_other_classes_has_drifted_and_knows_no_accuracy_in_use(parameters: Parameters) -> None:
    generator = np.random.default_rng(0)
    reference = reference_of("detection", inputs(1000, generator), objects(1000, generator, 0), CLASSES)
    write(reference, sketch_of_values(reference, inputs(800, generator), objects(800, generator, 1)))
    (found,) = check(parameters)["models"]
    assert found["verdict"] == "drift"
    assert [item["name"] for item in found["findings"]][-4:] == ["objects", "confidence", "object size", "classes"]
    assert [item["name"] for item in found["findings"] if item["verdict"] == "moved"] == ["classes"]
    assert found["sentence"].startswith("Drift in 800 images: classes (")
    Path("labels.csv").write_text("id,label\na,car\n")
    with pytest.raises(
        KingletError, match="in sketches are for detection: the accuracy in use is known of models that"
    ):
        accuracy_in_use(Path("labels.csv"), parameters)


def test_what_rests_on_too_few_images_is_named_and_is_no_absence_of_drift(parameters: Parameters) -> None:
    generator = np.random.default_rng(0)
    for n_training, n_held_out, said in (
        (
            1000,
            60,
            "No drift in 800 images. Not compared, for too few images on a side: objects, confidence, object size,",
        ),
        (60, 60, "The reference rests on fewer than 100 images: there is nothing to compare with."),
    ):
        reference = reference_of("detection", inputs(n_training, generator), objects(n_held_out, generator, 0), CLASSES)
        write(reference, sketch_of_values(reference, inputs(800, generator), objects(800, generator, 0)))
        (found,) = check(parameters)["models"]
        assert found["sentence"].startswith(said)
        assert (found["verdict"] == "no drift") == (n_training == 1000)


@pytest.mark.parametrize("saturates", [True, False])
def test_an_alarm_says_that_the_answers_came_from_sums_that_saturate(parameters: Parameters, saturates: bool) -> None:
    generator = np.random.default_rng(0)
    reference = reference_of("detection", inputs(1000, generator), objects(1000, generator, 0), CLASSES)
    moved = sketch_of_values(reference, inputs(800, generator), objects(800, generator, 1))
    write(reference, moved, saturates=saturates)
    (found,) = check(parameters)["models"]
    assert found["saturates"] is saturates
    assert ("a processor whose 8-bit sums saturate" in found["sentence"]) == saturates


def test_videos_are_counted_as_such(parameters: Parameters) -> None:
    generator = np.random.default_rng(0)
    clips = generator.dirichlet([1, 1], 900).astype(np.float32)
    answers = class_answers(clips, np.arange(900) // 3)
    reference = reference_of("video", inputs(300, generator), answers, CLASSES, (80, 100))
    write(reference, sketch_of_values(reference, inputs(300, generator), answers))
    (found,) = check(parameters)["models"]
    assert (found["verdict"], found["images"]) == ("not enough images", 300)
    assert found["sentence"] == "Not enough videos: 300 of 500."
    assert "300 videos from 2026-01-01T00:00:00 to" in PAGE.read_text()
