"""Converted files against the ONNX files that they were made from, in the runtimes themselves."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kinglet.conversion import CONVERTERS
from kinglet.conversion.arithmetic import INT8_ARITHMETIC, logits_step
from kinglet.conversion.fidelity import compare_logits
from kinglet.errors import KingletError
from kinglet.runtime.engines import ONNXRUNTIME, RUNTIMES, Engine, open_engine, version_of
from kinglet.runtime.engines.onnxruntime import engine_of
from kinglet.runtime.sessions import open_as_written, open_session
from tests.unit.conversion.conftest import IMAGES, SHAPE, Files
from tests.unit.conversion.runtimes import OTHERS, needs
from tests.unit.models.small_networks import NETWORKS

# Steps of the logits that an int8 file may be away; OpenVINO leaves a rounding out at every shortcut.
STEPS = {"openvino": 6, "opencv": 2, "litert": 1}
ROOT = Path(__file__).parents[3]


def converted(model: Path, runtime: str, folder: Path) -> Engine:
    CONVERTERS[runtime](model, folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(RUNTIMES[runtime].files)
    return open_engine(runtime, folder / RUNTIMES[runtime].files[0], SHAPE, threads=1)


def test_every_runtime_has_a_converter_and_words_on_its_arithmetic() -> None:
    assert list(CONVERTERS) == list(INT8_ARITHMETIC) == [name for name in RUNTIMES if name != ONNXRUNTIME]


@pytest.mark.parametrize("runtime", OTHERS)
@pytest.mark.parametrize("family", NETWORKS)
def test_a_float_file_answers_as_its_onnx_file(files: Files, tmp_path: Path, runtime: str, family: str) -> None:
    model = files.paths[family, "fp32"]
    engine = converted(model, runtime, tmp_path)
    logits = engine_of(open_session(model, threads=1)).run(IMAGES)
    found = engine.run(IMAGES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, logits, atol=2e-5)
    # One by one, and a batch of another size afterwards: the memory is laid out anew.
    np.testing.assert_allclose(np.concatenate([engine.run(image[None]) for image in IMAGES[:3]]), logits[:3], atol=2e-5)
    np.testing.assert_allclose(engine.run(IMAGES[:5]), logits[:5], atol=2e-5)
    assert engine.input_shape == SHAPE


@pytest.mark.parametrize("runtime", OTHERS)
@pytest.mark.parametrize("precision", ["int8", "mixed"])
@pytest.mark.parametrize("family", NETWORKS)
def test_an_int8_file_stays_within_steps_of_its_onnx_file(
    files: Files, tmp_path: Path, runtime: str, precision: str, family: str
) -> None:
    model = files.paths[family, precision]
    found = converted(model, runtime, tmp_path).run(IMAGES)
    step = logits_step(model)
    assert step is not None
    # OpenVINO adds 8-bit products as ONNX Runtime does where it serves: on x86 without VNNI their sums saturate.
    as_served = runtime == "openvino"
    logits = engine_of(open_session(model, threads=1, exact_sums=not as_served)).run(IMAGES)
    assert np.abs(found - logits).max() <= STEPS[runtime] * step * 1.001


@pytest.mark.parametrize("runtime", OTHERS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_same_file_gives_the_same_bytes(files: Files, tmp_path: Path, runtime: str, precision: str) -> None:
    contents = []
    for place in ("one", "other"):
        folder = tmp_path / place
        folder.mkdir()
        CONVERTERS[runtime](files.paths["residual-cnn", precision], folder)
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]
    assert not any(str(tmp_path).encode() in content for content in contents[0].values())


@pytest.mark.parametrize("runtime", OTHERS)
def test_an_engine_may_be_called_from_several_threads(files: Files, tmp_path: Path, runtime: str) -> None:
    engine = converted(files.paths["residual-cnn", "fp32"], runtime, tmp_path)
    batches = [IMAGES[start : start + size] for start in range(0, 60, 10) for size in (1, 4, 7)]
    expected = [engine.run(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for logits, own in zip(expected, pool.map(engine.run, batches), strict=True):
                np.testing.assert_array_equal(own, logits)


@pytest.mark.parametrize("runtime", OTHERS)
def test_a_file_that_is_no_model_is_named(tmp_path: Path, runtime: str) -> None:
    for name in RUNTIMES[runtime].files:
        (tmp_path / name).write_bytes(b"no model")
    file = tmp_path / RUNTIMES[runtime].files[0]
    with pytest.raises(KingletError, match=f"{file.name} cannot be loaded by {RUNTIMES[runtime].title}"):
        open_engine(runtime, file, SHAPE)


@pytest.mark.parametrize("runtime", OTHERS)
def test_a_runtime_says_its_version(runtime: str) -> None:
    assert version_of(runtime)[0].isdigit()


@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if name != ONNXRUNTIME])
def test_a_runtime_that_is_missing_is_said_with_the_command_that_installs_it(
    tmp_path: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] == RUNTIMES[runtime].module:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, RUNTIMES[runtime].module, None)
    with pytest.raises(KingletError) as caught:
        open_engine(runtime, tmp_path / RUNTIMES[runtime].files[0], SHAPE)
    expected = f"{RUNTIMES[runtime].title} is not installed; `pip install 'kinglet[{runtime}]'` installs it."
    assert caught.value.message == expected


def test_an_unknown_runtime_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(KingletError, match="no runtime 'tensorrt'; known: onnxruntime, openvino, opencv, litert"):
        open_engine("tensorrt", tmp_path, SHAPE)


def test_as_written_an_int8_file_gives_logits_on_its_grid(files: Files) -> None:
    float_logits = engine_of(open_session(files.paths["residual-cnn", "fp32"], threads=1)).run(IMAGES)
    logits = engine_of(open_as_written(files.paths["residual-cnn", "int8"].read_bytes())).run(IMAGES)
    step = logits_step(files.paths["residual-cnn", "int8"])
    # On the grid of the logits, and not the float file's.
    np.testing.assert_allclose(logits / step, np.rint(logits / step), atol=1e-3)
    assert 0 < np.abs(logits - float_logits).max() < 20 * step


def test_a_float_file_has_no_step_of_logits(files: Files) -> None:
    assert logits_step(files.paths["residual-cnn", "fp32"]) is None


QUIET = """
import socket, sys, os
def refuse(*_, **__):
    raise AssertionError("a connection was tried")
socket.socket.connect = socket.create_connection = refuse
from kinglet.runtime.engines import open_engine, version_of
version_of("openvino")
assert sys.modules.get("openvino_telemetry") is None
assert "openvino_telemetry.main" not in sys.modules
print(sorted(os.listdir(os.environ["HOME"])))
"""


@needs("openvino")
def test_openvino_is_imported_without_its_telemetry(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", QUIET],
        cwd=ROOT,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == "[]"  # it keeps an identity in a folder of the user's


def test_differences_are_those_computed_by_hand() -> None:
    reference = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.5, 0.0]], np.float32)
    logits = np.array([[1.0, 0.5], [0.0, 2.0], [-1.0, 0.0], [0.5, 0.0]], np.float32)
    found = compare_logits(reference, logits)
    assert (found.images, found.agreement, found.largest_difference) == (4, 0.75, 4.0)
    assert found.mean_difference == pytest.approx(4.5 / 8)
    assert found.spread == pytest.approx(np.std([1, 0, 0, 2, 3, 0, 0.5, 0]))


@pytest.mark.parametrize(
    ("logits", "said"),
    [
        (np.zeros((2, 3), np.float32), "do not compare"),
        (np.zeros((0, 2), np.float32), "do not compare"),
        (np.full((2, 2), np.nan, np.float32), "NaN"),
    ],
)
def test_what_cannot_be_compared_is_refused(logits: np.ndarray, said: str) -> None:
    reference = np.zeros((0, 2) if not len(logits) else (2, 2), np.float32)
    with pytest.raises(ValueError, match=said):
        compare_logits(reference, logits)
