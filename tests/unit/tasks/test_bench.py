"""ONNX files of any maker are measured in turns, as they are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from flows.cli import main
from kinglet.errors import KingletError
from kinglet.runtime.bundles import seal
from tasks.bench import Conditions, run
from tests.unit.adoption.foreign_models import foreign

QUICK = Conditions(threads=1, batch_size=1, seconds=0.02)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(model: onnx.ModelProto, name: str) -> Path:
    onnx.save(model, name)
    return Path(name)


def test_files_of_all_kinds_are_measured_in_their_order(here):
    paths = [
        save(foreign(), "plain.onnx"),
        save(foreign(layout="NHWC", dtype=np.uint8), "bytes.onnx"),
        save(foreign(dtype=np.float16, batch="n"), "halves.onnx"),
    ]
    apart = foreign(flatten="Flatten")
    onnx.save(apart, "apart.onnx", save_as_external_data=True, location="apart.weights", size_threshold=0)
    result = run([*paths, Path("apart.onnx")], QUICK)
    assert [model["name"] for model in result["models"]] == ["plain.onnx", "bytes.onnx", "halves.onnx", "apart.onnx"]
    for model in result["models"]:
        assert 0 < model["p50_low_ms"] <= model["p50_ms"] <= model["p50_high_ms"]
        assert model["p99_low_ms"] <= model["p99_ms"] <= model["p99_high_ms"]
        assert model["p50_ms"] <= model["p99_ms"]
        assert model["images_per_s"] == pytest.approx(1000 / model["p50_ms"], rel=0.1)
        assert model["peak_memory_mb"] > 0
    sizes = [model["size_bytes"] for model in result["models"]]
    assert sizes[0] == Path("plain.onnx").stat().st_size
    assert sizes[3] == Path("apart.onnx").stat().st_size + Path("apart.weights").stat().st_size
    assert (result["threads"], result["batch_size"], result["device"]["cores"] >= 1) == (1, 1, True)


def test_the_command_prints_a_table_for_people_and_json_for_programs(here, monkeypatch, capsys):
    save(foreign(), "[red] one.onnx")
    monkeypatch.setattr(sys, "argv", ["kinglet", "bench", "[red] one.onnx", "--seconds", "0.02", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 0
    assert json.loads(said.out)["models"][0]["name"] == "[red] one.onnx"
    for words in ("[red] one.onnx", "1 thread", "onnxruntime", "95 % interval"):
        assert words in said.err


def test_a_bundle_is_its_model(here):
    bundle = here / "bundle"
    bundle.mkdir()
    onnx.save(foreign(), bundle / "model.onnx")
    (bundle / "preprocessing.json").write_text("{}")
    (bundle / "labels.json").write_text("[]")
    seal(bundle)
    assert run([bundle], QUICK)["models"][0]["file"].endswith("bundle/model.onnx")
    (bundle / "labels.json").write_text("[1]")
    with pytest.raises(KingletError, match=r"labels\.json is not what"):
        run([bundle], QUICK)


def test_a_batch_and_open_edges_are_as_asked_for(here):
    free = save(foreign(batch="n", size="edge", flatten="Flatten"), "free.onnx")
    with pytest.raises(KingletError, match="leaves axes of its images open") as caught:
        run([free], QUICK)
    assert "--input-size" in caught.value.hint
    result = run([free], Conditions(1, 4, 0.02, input_size=8))
    model = result["models"][0]
    assert model["images_per_s"] == pytest.approx(4000 / model["p50_ms"], rel=0.1)
    with pytest.raises(KingletError, match="takes batches of 1 only, not of 4"):
        run([save(foreign(), "one.onnx")], Conditions(1, 4, 0.02))
    with pytest.raises(KingletError, match="cannot be run by onnxruntime"):
        run([free], Conditions(1, 4, 0.02, input_size=30))


def test_what_cannot_be_measured_is_refused_in_a_sentence(here):
    with pytest.raises(KingletError, match=r"missing\.onnx does not exist"):
        run([Path("missing.onnx")], QUICK)
    Path("text.onnx").write_text("no model")
    with pytest.raises(KingletError, match=r"text\.onnx cannot be loaded"):
        run([Path("text.onnx")], QUICK)
    several = foreign()
    several.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    with pytest.raises(KingletError, match="has 2 inputs"):
        run([save(several, "several.onnx")], QUICK)
    with pytest.raises(KingletError, match="--threads is 5000"):
        run([save(foreign(), "plain.onnx")], Conditions(5000, 1, 0.02))
