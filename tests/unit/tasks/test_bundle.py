from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

import tasks.benchmark
import tasks.bundle
import tasks.evaluate
import tasks.report
import tasks.select
from kinglet.atomic import read_json
from kinglet.errors import KingletError
from kinglet.runtime.predictor import Predictor
from kinglet.runtime.sketches import INPUTS, input_statistics, read_reference, sketch_of_statistics
from tests.unit.tasks.small_project import build_project, parameters

BUNDLE = Path("artifacts/bundle")
FILES = [
    "MODEL_CARD.md",
    "SHA256SUMS",
    "golden.npz",
    "labels.json",
    "model.onnx",
    "preprocessing.json",
    "reference.json",
]


@pytest.fixture
def project(tmp_path, monkeypatch):
    build_project(tmp_path, n=96, channels=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KINGLET_CACHE", str(tmp_path / "cache"))
    for task in (tasks.evaluate, tasks.benchmark, tasks.select):
        task.run(parameters())
    return tmp_path


def test_the_bundle_holds_the_chosen_model_and_answers_as_scored(project):
    tasks.bundle.run(parameters())
    assert sorted(path.name for path in BUNDLE.iterdir()) == FILES
    choice = read_json(Path("artifacts/select/choice.json"))
    assert read_json(BUNDLE / "preprocessing.json")["runtime"] == "onnxruntime"
    assert (BUNDLE / "model.onnx").read_bytes() == Path(choice["onnx"]).read_bytes()

    with np.load(BUNDLE / "golden.npz") as golden:
        images, labels, expected = golden["images"], golden["labels"], golden["probabilities"]
    assert images.dtype == np.uint8
    assert len(images) == 10
    assert set(labels) == {0, 1, 2, 3}
    answers = Predictor(BUNDLE).predict(list(images))
    np.testing.assert_allclose(answers.probabilities, expected, atol=1e-5)

    card = (BUNDLE / "MODEL_CARD.md").read_text()
    assert card.startswith(f"# {choice['chosen']}\n")
    for word in ("accuracy", "to the teacher", "Measured on", "Limits", choice["reason"]):
        assert word in card

    reference = read_reference(BUNDLE / "reference.json")
    scored = read_json(Path("artifacts/evaluate/scores.json"))["models"][choice["chosen"]]["test"]
    assert reference.n_right / reference.n_test == pytest.approx(scored["accuracy"]["value"], abs=1e-6)
    assert reference.classes == tuple(read_json(BUNDLE / "labels.json"))
    manifest = pyarrow.parquet.read_table("artifacts/split/manifest.parquet").to_pandas()
    n_training, n_held_out = (manifest["split"] == "train").sum(), (manifest["split"] != "train").sum()
    assert {int(reference.columns[name].counts.sum()) for name in INPUTS} == {n_training}
    assert reference.class_counts.sum() == n_held_out
    # Every third image is 100, 120, 140 pixels wide.
    assert reference.columns["width"].edges.tolist() == [100, 120, 140]
    # What the server will measure on a training image lies where the reference counted it.
    size = Predictor(BUNDLE).preprocessing.input_size
    packed = np.load(f"artifacts/ingest/images_{size}.npy")[manifest["index"][manifest["split"] == "train"]]
    seen = sketch_of_statistics(
        reference,
        input_statistics(packed),
        np.full((n_training, 2), 100),
        np.eye(4, dtype=np.float32)[[0] * n_training],
    )
    assert seen.columns["sharpness"].tolist() == reference.columns["sharpness"].counts.tolist()

    # Nothing of an earlier bundle stays, and the bytes are the same.
    before = {path.name: path.read_bytes() for path in BUNDLE.iterdir()}
    (BUNDLE / "left-over.txt").write_text("old")
    tasks.bundle.run(parameters())
    assert {path.name: path.read_bytes() for path in BUNDLE.iterdir()} == before

    content = bytearray((BUNDLE / "model.onnx").read_bytes())
    content[-1] ^= 1
    (BUNDLE / "model.onnx").write_bytes(content)
    with pytest.raises(KingletError, match=r"model\.onnx is not what"):
        Predictor(BUNDLE)
