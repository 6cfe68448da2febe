"""What the server notes of its images: everything it answered, never an image, and never at a request's cost."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.preprocessing import prepare
from kinglet.runtime.sketches import (
    Reference,
    Sketch,
    input_statistics,
    merged,
    reference_from,
    sketch_from,
    sketch_of_statistics,
)
from kinglet.serving import monitoring
from kinglet.serving.served_model import ServedModel, open_model
from kinglet.serving.settings import read_settings
from tests.unit.serving.running_server import build_bundle, encoded, running
from tests.unit.serving.test_process import process
from tests.unit.tasks.small_project import noisy_quadrants

IMAGES = noisy_quadrants(24, 20, 3, seed=3)[0]
PNGS = [encoded(image) for image in IMAGES]
TYPE = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def monitored_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bundle(tmp_path_factory.mktemp("monitored"), reference=True)


@pytest.fixture(scope="module")
def monitored(monitored_bundle: Path) -> ServedModel:
    return open_model(monitored_bundle, threads=1)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    root = tmp_path / "disk"
    root.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(root)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield root
    subprocess.run(["umount", "--lazy", str(root)], check=True)


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.05)


def written(folder: Path, model: ServedModel) -> tuple[Sketch, list[dict[str, Any]]]:
    """Return all sketches in a folder as one, and what each says of itself."""
    reference = reference_from(model.reference, "reference")
    files = sorted(folder.glob("sketch-*.json"))
    sketches = [sketch_from(file.read_bytes(), file.name, reference) for file in files]
    return reduce(merged, sketches), [json.loads(file.read_bytes()) for file in files]


def expected_of(model: ServedModel, images: np.ndarray) -> Sketch:
    reference: Reference = reference_from(model.reference, "reference")
    squares = np.concatenate([model.squares_of(encoded(image), 10**6)[0] for image in images])
    sizes = np.array([[image.shape[1], image.shape[0]] for image in images])
    return sketch_of_statistics(
        reference, input_statistics(squares), sizes, model.predictor.predict(list(images)).probabilities
    )


def counts(sketch: Sketch) -> dict[str, Any]:
    return {**sketch.to_dict(), "sample": None}


def test_the_last_sketch_holds_all_that_was_answered_from_many_clients_at_once(
    monitored: ServedModel, tmp_path: Path
) -> None:
    with (
        running(monitored, monitor=str(tmp_path / "out"), monitor_sample=5) as server,
        ThreadPoolExecutor(4) as clients,
    ):
        answers = list(clients.map(lambda png: server.client.post("/predict", content=png, headers=TYPE), PNGS))
        assert {answer.status_code for answer in answers} == {200}
        assert server.client.post("/predict", content=b"no image", headers=TYPE).status_code == 415
    sketch, facts = written(tmp_path / "out", monitored)
    assert counts(sketch) == counts(expected_of(monitored, IMAGES))
    assert sketch.sample.shape == (5, 4)
    assert facts[0]["model"] == monitored.name
    assert facts[0]["version"] == monitored.version
    assert facts[0]["lost"] == 0
    digest = hashlib.sha256(monitored.reference).hexdigest()
    assert (tmp_path / "out" / f"reference-{digest}.json").read_bytes() == monitored.reference
    # Counts and some probabilities: nothing as large as an image could be.
    assert {path.name.split("-")[0] for path in (tmp_path / "out").iterdir()} == {"reference", "sketch"}


@pytest.mark.parametrize("batch_size", [1, 8])
def test_several_images_and_tensors_are_sketched_as_single_images_are(
    monitored: ServedModel, tmp_path: Path, batch_size: int
) -> None:
    with running(monitored, monitor=str(tmp_path / "out"), batch_size=batch_size) as server:
        files = [("images", (f"{number}.png", PNGS[number])) for number in range(8)]
        assert server.client.post("/predict", files=files).status_code == 200
        tensor = prepare(list(IMAGES[8:10]), monitored.predictor.preprocessing)
        item = {"name": "images", "datatype": "FP32", "shape": list(tensor.shape), "data": tensor.ravel().tolist()}
        answer = server.client.post(f"/v2/models/{monitored.name}/infer", json={"inputs": [item]})
        assert answer.status_code == 200
    sketch, _ = written(tmp_path / "out", monitored)
    expected = expected_of(monitored, IMAGES[:10])
    assert sketch.n_images == 10
    assert sketch.columns["width"].sum() == 8
    for name in ("brightness", "sharpness", "entropy", "confidence"):
        assert sketch.columns[name].tolist() == expected.columns[name].tolist()


def test_an_interval_is_one_file_and_a_quiet_one_none(monitored: ServedModel, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with running(monitored, monitor=str(folder), monitor_interval=0.3) as server:
        for expected in (1, 2):
            server.client.post("/predict", content=PNGS[0], headers=TYPE)
            wait_until(lambda expected=expected: len(list(folder.glob("sketch-*.json"))) == expected)
            time.sleep(0.5)
    sketch, facts = written(folder, monitored)
    assert sketch.n_images == 2
    assert len(facts) == 2
    assert facts[0]["ended"] <= facts[1]["started"]


def test_kept_answers_name_request_image_class_and_confidence(monitored: ServedModel, tmp_path: Path) -> None:
    with running(monitored, monitor=str(tmp_path), monitor_answers="all") as server:
        files = [("images", (f"{number}.png", PNGS[number])) for number in range(2)]
        answers = server.client.post("/predict", files=files, headers={"x-request-id": "shelf-7"}).json()
        own = server.client.post("/predict", content=PNGS[2], headers=TYPE)
    (file,) = tmp_path.glob("answers-*.csv")
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [(row["id"], row["image"]) for row in rows] == [
        ("shelf-7", "0"),
        ("shelf-7", "1"),
        (own.headers["x-request-id"], "0"),
    ]
    said = [*answers["predictions"], *own.json()["predictions"]]
    assert [row["class"] for row in rows] == [item["class"] for item in said]
    assert [float(row["confidence"]) for row in rows] == pytest.approx([item["confidence"] for item in said], abs=1e-5)
    assert {row["version"] for row in rows} == {monitored.version}


def test_a_full_disk_costs_no_request_and_no_count(monitored_bundle: Path, monitored: ServedModel, disk: Path) -> None:
    options = ("--port", "0", "--monitor", str(disk), "--monitor-interval", "0.2", "--monitor-answers", "all")
    with process(monitored_bundle, *options, "--log", "none") as (server, ready):
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free))
        with httpx.Client(base_url=ready["url"], timeout=30) as client:
            for png in PNGS:
                assert client.post("/predict", content=png, headers=TYPE).status_code == 200
            wait_until(lambda: "kinglet_failed_monitor_writes_total 0.0" not in client.get("/metrics").text)
        assert not list(disk.glob("sketch-*"))
        assert not list(disk.glob(".*part"))
        (disk / "filler").unlink()
        # A signal comes at once: the last sketch is written on the way out.
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        said = [json.loads(line)["event"] for line in server.stderr.read().splitlines()]
    assert said.count("monitor_cannot_write") == 1
    sketch, _ = written(disk, monitored)
    assert counts(sketch) == counts(expected_of(monitored, IMAGES))
    rows = [row for file in disk.glob("answers-*.csv") for row in csv.DictReader(file.read_text().splitlines())]
    assert len(rows) == len(PNGS)


def test_images_that_come_too_fast_are_counted_as_lost_and_answered(
    monitored: ServedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "MAX_WAITING_BYTES", 3 * (16 * 16 * 3 + 4 * 4))  # pixels and logits
    monkeypatch.setattr(monitoring, "SECONDS_BETWEEN_LOOKS", 3600)
    with running(monitored, monitor=str(tmp_path)) as server:
        for png in PNGS[:10]:
            assert server.client.post("/predict", content=png, headers=TYPE).status_code == 200
        assert "kinglet_unmonitored_images_total 7.0" in server.client.get("/metrics").text
    sketch, facts = written(tmp_path, monitored)
    assert (sketch.n_images, facts[0]["lost"]) == (3, 7)


def test_every_answer_is_as_likely_to_be_in_the_sample() -> None:
    generator = np.random.default_rng(0)
    answers = np.arange(40, dtype=np.float32)[:, None].repeat(4, axis=1)
    taken = np.zeros(40)
    for _ in range(400):
        sample = np.empty((0, 4), np.float32)
        for start in range(0, 40, 8):
            sample = monitoring.sampled(sample, 10, start, answers[start : start + 8], generator)
        assert len(set(sample[:, 0])) == 10
        taken[sample[:, 0].astype(int)] += 1
    # 100 of each are expected, with a standard deviation of 8.7.
    assert np.abs(taken - 100).max() < 45
    assert monitoring.sampled(answers[:0], 0, 0, answers, generator).shape == (0, 4)


def test_a_bundle_without_reference_is_served_and_says_that_monitoring_is_off(model, tmp_path: Path) -> None:
    assert model.reference == b""
    with running(model, monitor=str(tmp_path / "out")) as server:
        assert server.client.post("/predict", content=PNGS[0], headers=TYPE).status_code == 200
        assert "The bundle has no reference.json" in server.log.getvalue()
    assert not (tmp_path / "out").exists()


def test_a_damaged_reference_and_a_wrong_place_are_one_sentence(monitored_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(monitored_bundle, tmp_path / "bundle")
    (copy / bundles.REFERENCE).write_text("{}")
    bundles.seal(copy)
    with (
        pytest.raises(KingletError, match=r"reference\.json of the bundle is no"),
        running(open_model(copy, threads=1), monitor=str(tmp_path / "out")),
    ):
        pass
    (tmp_path / "file").write_text("")
    for place, said in ((tmp_path / "file" / "x", "cannot be written to"), ("s3://bucket", "names no prefix")):
        with pytest.raises(KingletError, match=said), running(open_model(monitored_bundle, 1), monitor=str(place)):
            pass
    with pytest.raises(KingletError, match="monitor_answers is 'some'; known are all, none"):
        read_settings(["b", "--monitor-answers", "some"], {}, "serve")
