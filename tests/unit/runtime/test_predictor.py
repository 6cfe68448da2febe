import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinglet.atomic import read_json, write_bytes, write_json
from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.memory import peak_memory_mb
from kinglet.runtime.predictor import BATCH_SIZE, Predictor
from kinglet.runtime.preprocessing import prepare
from kinglet.runtime.sessions import logits_of, open_session, read_metadata, softmax
from tests.unit.tasks.small_project import CLASSES, RECIPES, noisy_quadrants, write_model

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    images, labels = noisy_quadrants(80, 16, 3)
    root = tmp_path_factory.mktemp("model")
    return write_model(root, RECIPES[1], images, labels, np.ones(80, bool), CLASSES) / "model.onnx"


@pytest.fixture
def bundle(model, tmp_path):
    folder = tmp_path / "bundle"
    write_bytes(folder / bundles.MODEL, model.read_bytes())
    preprocessing, classes = read_metadata(open_session(model))
    write_json(folder / bundles.PREPROCESSING, preprocessing.to_dict())
    write_json(folder / bundles.LABELS, classes)
    images = noisy_quadrants(10, 16, 3, seed=1)[0]
    expected = softmax(logits_of(open_session(model), images, np.arange(10), preprocessing))
    golden = {"images": images, "probabilities": expected}
    write_bytes(folder / bundles.GOLDEN, bundles.npz_bytes(golden))
    bundles.seal(folder)
    return folder


def test_packed_images_get_the_golden_answers(bundle):
    assert Predictor(bundle, threads=1).check_golden(bundle / bundles.GOLDEN) < 1e-5


@pytest.fixture
def bundle_of_two(bundle, tmp_path_factory):
    """A bundle with another model, and its answers, for x86 without VNNI."""
    images, labels = noisy_quadrants(80, 16, 3, seed=7)
    other = write_model(tmp_path_factory.mktemp("other"), RECIPES[2], images, labels, np.ones(80, bool), CLASSES)
    write_bytes(bundle / bundles.WITHOUT_VNNI, (other / "model.onnx").read_bytes())
    with np.load(bundle / bundles.GOLDEN) as golden:
        arrays = dict(golden)
    session = open_session(other / "model.onnx")
    logits = logits_of(session, arrays["images"], np.arange(10), read_metadata(session)[0])
    write_bytes(bundle / bundles.GOLDEN, bundles.npz_bytes({**arrays, bundles.SATURATED: softmax(logits)}))
    bundles.seal(bundle)
    return bundle


@pytest.mark.parametrize(("saturates", "file"), [(False, "model.onnx"), (True, "model-without-vnni.onnx")])
def test_the_processor_decides_which_model_is_opened_and_the_log_says_it(bundle_of_two, saturates, file, caplog):
    with caplog.at_level("INFO", "kinglet.runtime"):
        predictor = Predictor(bundle_of_two, threads=1, saturates=saturates)
    assert predictor.model_file == file
    assert f"{file}: this processor is" in caplog.text
    assert predictor.check_golden(bundle_of_two / bundles.GOLDEN) < 1e-5


def test_the_predictor_asks_the_processor(bundle_of_two, monkeypatch):
    for saturates, file in ((False, bundles.MODEL), (True, bundles.WITHOUT_VNNI)):
        monkeypatch.setattr("kinglet.runtime.opened_bundle.products_saturate", lambda saturates=saturates: saturates)
        assert Predictor(bundle_of_two).model_file == file


def test_a_bundle_of_one_model_serves_all_processors(bundle):
    predictor = Predictor(bundle, saturates=True)
    assert predictor.model_file == bundles.MODEL
    assert predictor.check_golden(bundle / bundles.GOLDEN) < 1e-5


def test_a_model_that_the_checksums_do_not_list_is_not_opened(bundle, model):
    write_bytes(bundle / bundles.WITHOUT_VNNI, model.read_bytes())
    assert Predictor(bundle, saturates=True).model_file == bundles.MODEL


def test_images_of_any_size_and_of_both_kinds_of_channels(bundle):
    generator = np.random.default_rng(0)
    shapes = [(16, 16, 3), (40, 30, 3), (7, 9), (100, 3, 1), (1, 1, 3)]
    images = [generator.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    predictor = Predictor(bundle)
    answers = predictor.predict(images)
    assert len(answers) == 5
    assert answers.probabilities.shape == (5, 4)
    np.testing.assert_allclose(answers.probabilities.sum(axis=1), 1, atol=1e-6)
    assert answers.classes == [CLASSES[best] for best in answers.probabilities.argmax(axis=1)]
    np.testing.assert_array_equal(answers.confidences, answers.probabilities.max(axis=1))
    one_by_one = np.concatenate([predictor.predict([image]).probabilities for image in images])
    np.testing.assert_allclose(answers.probabilities, one_by_one, atol=1e-6)


def test_more_images_than_a_batch_keep_their_order(bundle):
    images = noisy_quadrants(BATCH_SIZE * 2 + 3, 16, 3)[0]
    predictor = Predictor(bundle)
    whole = predictor.predict(images).probabilities
    reverse = predictor.predict(list(images[::-1])).probabilities
    np.testing.assert_allclose(whole, reverse[::-1], atol=1e-6)


def test_no_images_give_no_answers(bundle):
    answers = Predictor(bundle).predict([])
    assert answers.classes == []
    assert answers.probabilities.shape == (0, 4)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([np.zeros((4, 4, 3))], "image 0: an image must be uint8, got float64"),
        ([np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)], r"image 1: .* got \(4, 4, 4\)"),
        ([np.zeros((0, 4, 3), np.uint8)], "image 0"),
        ([np.uint8(3)], "image 0"),
        (np.zeros((4, 4, 3), np.uint8), "takes a list of images"),
    ],
)
def test_what_is_no_image_is_refused_by_its_number(bundle, images, said):
    with pytest.raises(ValueError, match=said):
        Predictor(bundle).predict(images)


def test_files_are_decoded_and_a_broken_one_is_named(bundle, tmp_path):
    pixels = noisy_quadrants(1, 32, 3)[0][0]
    Image.fromarray(pixels).save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    predictor = Predictor(bundle)
    answers = predictor.predict_files([tmp_path / "good.png"])
    np.testing.assert_array_equal(answers.probabilities, predictor.predict([pixels]).probabilities)
    with pytest.raises(KingletError, match=r"bad\.jpg cannot be decoded"):
        predictor.predict_files([tmp_path / "good.png", tmp_path / "bad.jpg"])
    with pytest.raises(KingletError, match=r"none\.png cannot be read"):
        predictor.predict_files([tmp_path / "none.png"])


@pytest.mark.parametrize("name", [bundles.MODEL, bundles.PREPROCESSING, bundles.LABELS, bundles.GOLDEN])
def test_a_changed_byte_is_found_and_the_file_named(bundle, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(KingletError, match=f"{name} is not what SHA256SUMS says"):
        Predictor(bundle)


def test_a_missing_file_and_an_unfinished_bundle_are_named(bundle, tmp_path):
    (bundle / bundles.LABELS).unlink()
    with pytest.raises(KingletError, match=r"labels\.json is missing"):
        Predictor(bundle)
    (bundle / bundles.CHECKSUMS).unlink()
    with pytest.raises(KingletError, match="no finished bundle"):
        Predictor(bundle)
    with pytest.raises(KingletError, match="does not exist"):
        Predictor(tmp_path / "nothing")


def test_a_bundle_for_a_runtime_that_is_not_known_or_whose_file_is_not_listed_is_refused(bundle):
    facts = read_json(bundle / bundles.PREPROCESSING)
    assert "runtime" not in facts  # as in bundles of before there were other runtimes
    assert Predictor(bundle).runtime == "onnxruntime"
    write_json(bundle / bundles.PREPROCESSING, {**facts, "runtime": "openvino"})
    bundles.seal(bundle)
    with pytest.raises(KingletError, match=r"does not list model\.xml"):
        Predictor(bundle)
    write_json(bundle / bundles.PREPROCESSING, {**facts, "runtime": "abacus"})
    bundles.seal(bundle)
    with pytest.raises(KingletError, match="names the runtime 'abacus'; known here: onnxruntime, openvino"):
        Predictor(bundle)


def test_golden_answers_may_state_their_own_tolerance(bundle):
    with np.load(bundle / bundles.GOLDEN) as golden:
        arrays = dict(golden)
    # 1e-3 is what counts where nothing is stated.
    arrays["probabilities"] = arrays["probabilities"] + 5e-3
    for tolerance, passes in ((1e-2, True), (4e-3, False)):
        golden = bundles.npz_bytes({**arrays, bundles.TOLERANCE: np.array([tolerance])})
        write_bytes(bundle / "other.npz", golden)
        if passes:
            assert Predictor(bundle).check_golden(bundle / "other.npz") == pytest.approx(5e-3, abs=1e-4)
        else:
            with pytest.raises(KingletError, match=r"more than 0\.004"):
                Predictor(bundle).check_golden(bundle / "other.npz")


@pytest.mark.parametrize("line", ["abc  model.onnx", "nonsense", f"{'0' * 64}  ../outside"])
def test_checksums_of_another_format_are_refused_by_line(bundle, line):
    (bundle / bundles.CHECKSUMS).write_text(line + "\n")
    with pytest.raises(KingletError, match="line 1"):
        Predictor(bundle)


def test_checksums_are_those_of_sha256sum(bundle):
    subprocess.run(["sha256sum", "--check", "--strict", bundles.CHECKSUMS], cwd=bundle, check=True, capture_output=True)


def test_golden_answers_of_another_model_are_refused(bundle, tmp_path):
    with np.load(bundle / bundles.GOLDEN) as golden:
        images, probabilities = golden["images"], golden["probabilities"]
    other = tmp_path / "other.npz"
    other.write_bytes(bundles.npz_bytes({"images": images, "probabilities": probabilities[::-1]}))
    with pytest.raises(KingletError, match="differ from the expected"):
        Predictor(bundle).check_golden(other)


def test_archive_bytes_depend_on_the_arrays_only():
    arrays = {"b": np.arange(3), "a": np.eye(2, dtype=np.float32)}
    first, second = bundles.npz_bytes(arrays), bundles.npz_bytes(dict(reversed(arrays.items())))
    assert first == second


def test_logits_do_not_depend_on_the_number_of_workers(model):
    session = open_session(model, threads=1)
    preprocessing, _ = read_metadata(session)
    images = noisy_quadrants(50, 16, 3)[0]
    rows = np.arange(50)[::-1]
    alone = logits_of(session, images, rows, preprocessing, batch_size=8)
    np.testing.assert_array_equal(alone, logits_of(session, images, rows, preprocessing, batch_size=8, workers=4))
    whole = session.run(None, {"images": prepare(images[rows], preprocessing)})[0]
    np.testing.assert_allclose(alone, whole, atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x09"])
def test_a_file_that_is_no_model_is_named(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(KingletError, match=r"model\.onnx"):
        open_session(tmp_path / "model.onnx")


def test_memory_is_measured_apart_from_this_process(model):
    ballast = np.ones(30_000_000, np.uint8)
    assert 0 < peak_memory_mb(model, threads=1) < 200
    assert ballast[0] == 1


# Everything that `pip install .` does not install.
FORBIDDEN = ["torch", "pandas", "scipy", "sklearn", "onnx", "pyarrow", "matplotlib", "pydantic", "yaml", "rich", "dvc"]
ONLY_RUNTIME = """
import json, sys

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in FORBIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

FORBIDDEN = json.loads(sys.argv[1])
sys.meta_path.insert(0, Forbid())
import numpy as np
from kinglet.runtime.predictor import Predictor
predictor = Predictor(sys.argv[2])
predictor.check_golden(sys.argv[2] + "/golden.npz")
print(predictor.predict([np.zeros((9, 9, 3), np.uint8)]).classes[0])
assert not set(FORBIDDEN) & set(sys.modules), set(FORBIDDEN) & set(sys.modules)
"""


def test_predictor_needs_only_what_the_small_install_brings(bundle):
    finished = subprocess.run(
        [sys.executable, "-c", ONLY_RUNTIME, json.dumps(FORBIDDEN), str(bundle)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() in CLASSES
