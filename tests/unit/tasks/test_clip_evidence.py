"""Networks over clips scored, compared, chosen and judged, in a project of small files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import tasks.compare
import tasks.evaluate
import tasks.select
from kinglet.atomic import read_json
from kinglet.errors import KingletError
from kinglet.runtime.clips import ClipPredictor
from tasks.artifacts import COMPARE, EVALUATE, SELECT, packed_clips
from tasks.clip_bundle import pack_clip_network
from tests.unit.models.clip_files import CLASSES, FRAMES, SIZE
from tests.unit.tasks.clip_project import RATE, SMALL, TEACHER, build_clip_project, parameters


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """The folder of a project after `evaluate`, `compare` and `select`."""
    root = tmp_path_factory.mktemp("clips")
    build_clip_project(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for task in (tasks.evaluate, tasks.compare, tasks.select):
            task.run(parameters())
    return root


def test_scores_have_the_layout_of_classifiers_and_what_is_known_early(scored):
    scores = read_json(scored / EVALUATE / "scores.json")
    assert set(scores) == {"classes", "teacher", "models"}
    test = scores["models"]["teacher"]["test"]
    assert test["n"] == 24
    assert 0.8 < test["accuracy"]["value"] < 1
    early = scores["models"]["teacher"]["early"]
    assert [(item["share"], item["frames"]) for item in early] == [(0.25, 2), (0.5, 3), (0.75, 4), (1.0, FRAMES)]
    assert early[-1]["accuracy"] == test["accuracy"]
    assert early[0]["accuracy"]["value"] < early[-1]["accuracy"]["value"]
    table = pd.read_parquet(scored / EVALUATE / "predictions.parquet")
    assert table.groupby(["model", "split"]).size().to_dict() == {
        (model, split): 24 for model in ("teacher", "teacher-int8") for split in ("test", "validation")
    }


def test_what_is_scored_is_what_a_stream_answers(scored, tmp_path):
    packed = np.load(scored / packed_clips(SIZE))
    table = pd.read_parquet(scored / EVALUATE / "predictions.parquet")
    for recipe in (TEACHER, SMALL):
        folder = scored / "artifacts" / recipe.step / recipe.name
        clips = packed[:3]
        pack_clip_network(tmp_path / "bundle", folder, clips, np.arange(3), RATE, "# card\n")
        own = table[(table["model"] == recipe.name) & (table["split"] == "test")]
        found = ClipPredictor(tmp_path / "bundle", threads=1, saturates=False).predict(packed[own["index"]])
        np.testing.assert_allclose(found.probabilities, np.stack(own["probabilities"]), atol=0.02)
        assert [CLASSES[label] for label in own["predicted"]] == found.classes


def test_an_int8_model_is_scored_without_vnni_as_well(scored):
    models = read_json(scored / EVALUATE / "scores.json")["models"]
    assert "without_vnni" not in models["teacher"]
    emulated = models["teacher-int8"]["without_vnni"]
    assert (emulated["file"], emulated["n"]) == ("model.onnx", 24)
    # No weight of this frame part is large enough for two products to exceed 16 bits by much.
    assert abs(emulated["accuracy"]["value"] - models["teacher-int8"]["test"]["accuracy"]["value"]) < 0.1


def test_a_model_is_compared_with_the_teacher_clip_by_clip(scored):
    found = read_json(scored / COMPARE / "comparisons.json")
    own = found["models"]["teacher-int8"]
    assert own["negative_flips"] > 0
    assert own["difference"]["value"] < 0
    flips = pd.read_parquet(scored / COMPARE / "flips.parquet")
    assert len(flips) == own["negative_flips"] + own["positive_flips"]


def test_the_fastest_within_the_budget_is_chosen_by_accuracy(scored):
    choice = read_json(scored / SELECT / "choice.json")
    assert choice["chosen"] == "teacher-int8"
    assert choice["model"] == "artifacts/quantize/teacher-int8/model.onnx"


def test_a_model_without_its_recurrent_part_is_told(tmp_path, monkeypatch):
    build_clip_project(tmp_path, n=18, recipes=(TEACHER,))
    (tmp_path / "artifacts/finetune/teacher/recurrent.onnx").unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KingletError, match=r"recurrent\.onnx does not exist"):
        tasks.evaluate.run(parameters())
