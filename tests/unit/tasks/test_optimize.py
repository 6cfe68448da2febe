"""A model of another tool goes in, and what comes out is as good, measured and packed; or a sentence says why not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from flows.cli import main
from kinglet.atomic import read_json
from kinglet.errors import KingletError
from kinglet.evidence.budget import Budget
from kinglet.runtime.bundles import verify
from kinglet.runtime.predictor import Predictor
from tasks.optimize import run
from tasks.optimize_options import Options, named_normalization, parse_budget, parse_numbers
from tests.unit.adoption.foreign_models import LEVELS, brightness_classifier, write_brightness_folder

ROOT = Path(__file__).parents[3]
FILES = [
    "bright-int8-without-vnni.onnx",
    "bright-int8.onnx",
    "bright.onnx",
    "bundle",
    "report.html",
    "result.json",
]
CLASSES = [f"{level:03}" for level in LEVELS]
# As the command does it, and with a look at what was loaded.
COMMAND = """
import sys
from flows.cli import main
try:
    main()
finally:
    print(sorted({"torch", "prefect", "great_expectations"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("optimize")
    write_brightness_folder(root / "images")
    onnx.save(brightness_classifier(), root / "bright.onnx")
    return root


def command(folder: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *words],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "KINGLET_CACHE": str(folder / "cache"), "HOME": str(folder), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def done(folder):
    finished = command(
        folder, "optimize", "bright.onnx", "--data", "images", "--budget", "size_mb=1", "--seconds", "0.05", "--json"
    )
    assert finished.returncode == 0, finished.stderr
    return finished


@pytest.fixture
def options(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KINGLET_CACHE", str(folder / "cache"))
    budget = Budget(None, 1.0, 0.01, reference="float model")
    return Options(Path("bright.onnx"), "images", tmp_path / "out", budget, seconds=0.05)


def test_a_foreign_model_is_quantized_compared_and_packed(folder, done):
    output = folder / "optimized"
    result = json.loads(done.stdout)
    assert result == read_json(output / "result.json")
    assert sorted(path.name for path in output.iterdir()) == FILES
    assert result["classes"] == CLASSES
    assert (result["preprocessing"]["normalization"], result["preprocessing"]["certain"]) == ("minus-one-one", True)
    assert sum(result["images"].values()) == 400
    assert min(result["images"].values()) >= 50
    of_float, of_int8 = result["models"]
    assert (of_float["name"], of_int8["name"]) == ("bright", "bright-int8")
    assert 0.8 < of_float["test_accuracy"] < 1
    difference = of_int8["scores"]["difference_to_float"]["test"]
    assert difference["value"] == pytest.approx(of_int8["test_accuracy"] - of_float["test_accuracy"])
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert of_int8["scores"]["without_vnni"]["n"] == result["images"]["test"]
    assert result["quantization"]["guard"]["images"] == result["images"]["validation"]
    assert result["chosen"] in ("bright", "bright-int8")
    assert any("trained" in note for note in result["notes"])


def test_the_command_says_what_it_did_and_loads_no_torch(done):
    assert done.stderr.splitlines()[-1] == "[]"
    for words in (
        "minus-one-one, found out",
        "bright-int8",
        "int8 against float on",
        "chosen:",
        "report:",
        "kinglet run",
    ):
        assert words in done.stderr, words


def test_the_bundle_answers_as_was_measured(folder, done):
    result = json.loads(done.stdout)
    bundle = folder / "optimized" / "bundle"
    verify(bundle)
    predictor = Predictor(bundle)
    assert predictor.classes == CLASSES
    predictor.check_golden(bundle / "golden.npz")
    files = sorted((folder / "images").glob("*/*.png"))
    right = np.mean(
        [label == path.parent.name for path, label in zip(files, predictor.predict_files(files).classes, strict=True)]
    )
    chosen = next(model for model in result["models"] if model["chosen"])
    assert right == pytest.approx(chosen["test_accuracy"], abs=0.06)  # of all images, and of half of them
    card = (bundle / "MODEL_CARD.md").read_text()
    for words in ("points to the float model", "trained elsewhere", result["reason"]):
        assert words in card


def test_the_report_tells_all_of_it(folder, done):
    page = (folder / "optimized" / "report.html").read_text()
    for words in (
        "How it was quantized",
        "bias correction",
        "The given file",
        "Against the float model",
        "test images",
    ):
        assert words in page, words
    # What is compared with is no teacher here, in the words that a reader sees.
    assert "teacher" not in re.sub(r"<style>.*</style>|<[^>]+>", "", page, flags=re.DOTALL)


def test_the_same_call_gives_the_same_bytes_and_replaces_its_own_folder(folder, options):
    first = run(options)
    before = {path: path.read_bytes() for path in options.output.rglob("*") if path.is_file()}
    (options.output / "left-over").write_text("old")
    assert run(options) == first
    assert {path: path.read_bytes() for path in options.output.rglob("*") if path.is_file()} == before


def test_a_budget_that_nothing_meets_keeps_the_files_and_makes_no_bundle(folder, options, capsys, monkeypatch):
    words = ["optimize", "bright.onnx", "--data", "images", "--output", str(options.output), "--seconds", "0.05"]
    monkeypatch.setattr(sys, "argv", ["kinglet", *words, "--budget", "size_mb=1e-5"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "error: No model fits the budget" in said
    assert "MB too big" in said
    names = {path.name for path in options.output.iterdir()}
    assert names == {*FILES} - {"bundle"}
    assert read_json(options.output / "result.json")["chosen"] is None
    assert "Neither file fits the budget" in (options.output / "report.html").read_text()


def refused(options: Options, words: str, **changes: object) -> KingletError:
    with pytest.raises(KingletError, match=words) as caught:
        run(replace(options, **changes))
    assert not options.output.exists()
    assert list(options.output.parent.iterdir()) == []
    return caught.value


def test_too_few_images_and_images_of_one_class_are_refused(folder, options, tmp_path_factory):
    few = tmp_path_factory.mktemp("few")
    write_brightness_folder(few, n=80)
    refused(options, r"of 80 usable images \d+ calibrate .* at least 50", data=str(few))
    refused(options, "has 4 outputs, and the data 1 classes", data=str(make_single(tmp_path_factory)))
    names = tmp_path_factory.mktemp("names") / "classes.txt"
    names.write_text("\n".join(CLASSES))
    refused(options, "all 100 images are of one class, '040'", data=str(make_single(tmp_path_factory)), classes=names)


def make_single(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("single")
    (root / "040").mkdir()
    for number in range(100):
        Image.new("RGB", (8, 8), (number, 2, 3)).save(root / "040" / f"{number}.png")
    return root


def test_a_model_that_guesses_is_refused_with_what_to_try(folder, options, tmp_path_factory):
    names = tmp_path_factory.mktemp("names") / "classes.txt"
    names.write_text("\n".join([CLASSES[2], CLASSES[3], CLASSES[0], CLASSES[1]]))
    error = refused(options, "no better than guessing", classes=names, preprocessing="minus-one-one")
    assert "--classes FILE" in error.hint


def test_more_threads_than_processors_are_refused_before_any_work(options):
    refused(options, "--threads is 5000", threads=5000)


def test_missing_data_are_named_by_the_option(options):
    assert refused(options, r"--data: nowhere does not exist", data="nowhere")


def test_a_folder_of_somebody_else_is_left_alone(options, folder):
    options.output.mkdir()
    (options.output / "thesis.tex").write_text("all of it")
    with pytest.raises(KingletError, match="holds files that") as caught:
        run(options)
    assert "--overwrite" in caught.value.hint
    assert [path.name for path in options.output.iterdir()] == ["thesis.tex"]
    for place in (folder, folder / "images"):
        with pytest.raises(KingletError, match="lies in it"):
            run(replace(options, output=place, overwrite=True))
    run(replace(options, overwrite=True))
    assert not (options.output / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["speed=2"], "--budget speed=2: no limit of that name"),
        (["latency_ms"], "no limit of that name"),
        (["latency_ms=fast"], "'fast' is not a number above 0"),
        (["latency_ms=0"], "'0' is not a number above 0"),
        (["size_mb=nan"], "'nan' is not a number above 0"),
        (["max_accuracy_drop=1"], "'1' is not a share"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(words, problem):
    with pytest.raises(KingletError, match=problem):
        parse_budget(words)


def test_a_budget_is_read_from_its_words():
    assert parse_budget([]) == Budget(None, None, 0.01, reference="float model")
    words = ["latency_ms=2", "size_mb=0.5", "max_accuracy_drop=0"]
    assert parse_budget(words) == Budget(2.0, 0.5, 0.0, reference="float model")


def test_the_scale_of_the_pixels_may_be_named(options):
    assert named_normalization(options, 3) is None
    name, scale = named_normalization(replace(options, preprocessing="inception"), 3)
    assert (name, scale.mean) == ("minus-one-one", (0.5, 0.5, 0.5))
    _, scale = named_normalization(replace(options, mean=parse_numbers("--mean", "0.3"), std=(0.2,)), 3)
    assert (scale.mean, scale.std) == ((0.3,) * 3, (0.2,) * 3)
    for changes in ({"mean": (0.5,)}, {"mean": (0.5,), "std": (0.0,)}, {"preprocessing": "other"}):
        with pytest.raises(KingletError):
            named_normalization(replace(options, **changes), 3)
    with pytest.raises(KingletError, match="one number or three"):
        parse_numbers("--mean", "0.1,0.2")
