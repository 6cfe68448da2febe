from pathlib import Path

import numpy as np
import pytest

import tasks.benchmark
import tasks.bundle
import tasks.evaluate
import tasks.report
import tasks.select
from kinglet.atomic import read_json
from kinglet.errors import KingletError
from kinglet.runtime.predictor import Predictor
from tests.unit.tasks.small_project import build_project, parameters

BUNDLE = Path("artifacts/bundle")
FILES = ["MODEL_CARD.md", "SHA256SUMS", "golden.npz", "labels.json", "model.onnx", "preprocessing.json"]


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
