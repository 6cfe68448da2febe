"""`kinglet doctor` on files and folders: what it says, how it ends, what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from PIL import Image
from rich.console import Console

from flows.cli import main
from flows.diagnosis import print_diagnosis
from kinglet.compression.doctor.checks.preprocessing import Way
from kinglet.compression.doctor.effects import logits_of
from kinglet.compression.doctor.treatment import Repaired
from kinglet.errors import KingletError
from kinglet.models.export import to_onnx
from kinglet.models.onnx_graph import add_metadata, read_metadata
from kinglet.runtime import latency
from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.sessions import open_session
from tasks.doctor import Prepared, Request, diagnose, write_repaired
from tests.unit.compression.doctor.broken_files import INT8_SYMMETRIC, MEAN, STD, make_work, quantized
from tests.unit.compression.doctor.test_checks import without_relus
from tests.unit.models.small_networks import NETWORKS, bright_quadrants

CLASSES = ["a", "b", "c", "d"]
FACTS = {
    "classes": CLASSES,
    "preprocessing": {"input_size": 16, "channels": 3, "fit": "stretch", "mean": MEAN, "std": STD},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, the float file, a good int8 file and a broken one, both with Kinglet's metadata."""
    root = tmp_path_factory.mktemp("doctor")
    images = bright_quadrants(200, seed=3)
    for index, (pixels, label) in enumerate(zip(images.packed[16], images.labels, strict=True)):
        folder = root / "photos" / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    work = make_work("residual-cnn")
    good = quantized(work.float_model, work.calibration)
    broken = without_relus(quantized(work.float_model, work.calibration, **INT8_SYMMETRIC))
    for name, model in (("float", work.float_model), ("good", good), ("broken", broken)):
        add_metadata(model, FACTS)
        onnx.save(model, root / f"{name}.onnx")
    return root


@pytest.fixture(autouse=True)
def short_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "BLOCK_SECONDS", 0.001)
    monkeypatch.setattr(latency, "WARM_UP_SECONDS", 0.005)


def request_of(place: Path, name: str, **changes: object) -> Request:
    made = Request(place / f"{name}.onnx", str(place / "photos"), place / "float.onnx", tolerance=0.01, seconds=0.02)
    return replace(made, **changes)


def test_a_broken_file_ends_with_exit_code_1_and_is_repaired(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repaired = tmp_path / "repaired.onnx"
    words = ["--data", "photos", "--float", "float.onnx", "--seconds", "0.02", "--write", str(repaired), "--json"]
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["kinglet", "doctor", "broken.onnx", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert result["findings"][0]["code"] == "dropped-activation"
    assert "critical dropped-activation" in said.err
    assert result["repaired"]["file"] == str(repaired)
    assert read_metadata(onnx.load(repaired)) == FACTS
    open_session(repaired, threads=1)
    again = diagnose(request_of(place, "broken", model=repaired))
    # The result is rounded to 6 digits.
    gained = result["repaired"]["effect"]["accuracy"]["value"]
    assert again["accuracy"] == pytest.approx(result["accuracy"] + gained, abs=2e-6)
    assert "critical" not in {finding["severity"] for finding in again["findings"]}


def test_examining_a_file_imports_no_torch() -> None:
    code = "import sys, flows.cli, tasks.doctor; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_a_good_file_has_nothing_critical(place: Path, tmp_path: Path) -> None:
    result = diagnose(request_of(place, "good", write=tmp_path / "x.onnx"))
    assert "critical" not in {finding["severity"] for finding in result["findings"]}
    assert result["guard"]["within_tolerance"]
    if result["repaired"] is None:
        assert not (tmp_path / "x.onnx").exists()
        assert "was not written" in result["notes"][-1]


def test_a_file_that_is_not_quantized_is_said_to_be_so(place: Path) -> None:
    result = diagnose(request_of(place, "float", float_model=None))
    assert [finding["code"] for finding in result["findings"]] == ["not-quantized"]
    assert result["left_out"] == ["All checks of quantization: the file is not quantized."]
    console = Console(record=True, width=200)
    print_diagnosis(result, console)
    assert "This file is not quantized" in console.export_text()


def test_a_wrong_preprocessing_is_found(place: Path) -> None:
    result = diagnose(request_of(place, "float", float_model=None, mean=(0.0,) * 3, std=(1 / 255,) * 3))
    assert [(finding["code"], finding["severity"]) for finding in result["findings"]] == [
        ("preprocessing", "critical"),
        ("not-quantized", "note"),
    ]


def test_the_printed_list_holds_findings_layers_and_what_was_left_out(place: Path) -> None:
    result = diagnose(request_of(place, "broken", float_model=None))
    console = Console(record=True, width=200)
    print_diagnosis(result, console)
    text = console.export_text()
    for words in ("its float stand-in", "left out: Without the float file", "damage", "in float", "repair: "):
        assert words in text


def another_network(place: Path) -> Path:
    model = onnx.load(place / "float.onnx")
    for item in model.graph.initializer:
        if len(item.dims) > 1:
            values = onnx.numpy_helper.to_array(item)
            item.CopyFrom(onnx.numpy_helper.from_array(values[::-1, ::-1].copy(), item.name))
    onnx.save(model, place / "other.onnx")
    return place / "other.onnx"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"data": "nowhere"}, "--data: nowhere does not exist", id="no images"),
        pytest.param({"model": Path("nothing.onnx")}, "nothing.onnx does not exist", id="no file"),
        pytest.param({"tolerance": 1.5}, "--tolerance 1.5", id="tolerance"),
        pytest.param({"max_images": 0}, "--max-images 0", id="number of images"),
        pytest.param({"max_images": 20}, "20 usable images", id="too few images"),
        pytest.param({"fit": "squeeze"}, "--fit squeeze", id="fit"),
    ],
)
def test_what_cannot_be_followed_is_refused(place: Path, changes: dict, words: str) -> None:
    with pytest.raises(KingletError) as caught:
        diagnose(request_of(place, "good", **changes))
    assert words in caught.value.message


def test_a_repaired_file_takes_red_first_as_its_metadata_say(place: Path, tmp_path: Path) -> None:
    model = onnx.load(place / "good.onnx")
    del model.metadata_props[:]
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    way = Way("stated", Preprocessing.from_dict(FACTS["preprocessing"]), blue_first=True)
    prepared = Prepared(way.prepare(images), np.zeros(8, np.int64), CLASSES, way, [])
    found = SimpleNamespace(repaired=Repaired(model, ("int8-activations",), ()))
    write_repaired(tmp_path / "x.onnx", model, prepared, found, {"notes": [], "repaired": {}})
    written = onnx.load(tmp_path / "x.onnx")
    assert read_metadata(written) == FACTS
    red_first = replace(way, blue_first=False).prepare(images)
    np.testing.assert_array_equal(logits_of(written, red_first), logits_of(model, prepared.inputs))


def test_a_float_file_for_other_classes_is_refused(place: Path) -> None:
    other = to_onnx(NETWORKS["residual-cnn"](n_classes=3), 16, 3, {})
    onnx.save(other, place / "three.onnx")
    with pytest.raises(KingletError, match=r"is no float file of .* and has 3 outputs, the other"):
        diagnose(request_of(place, "good", float_model=place / "three.onnx"))


def test_float_files_that_are_none_are_refused(place: Path) -> None:
    with pytest.raises(KingletError, match="another network"):
        diagnose(request_of(place, "good", float_model=another_network(place)))
    with pytest.raises(KingletError, match="is quantized already"):
        diagnose(request_of(place, "good", float_model=place / "broken.onnx"))
    with pytest.raises(KingletError, match="is a file that is examined"):
        diagnose(request_of(place, "good", write=place / "good.onnx"))
