"""The steps that make models where videos have classes, on a handful of squares that move."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kinglet.atomic import read_json
from kinglet.errors import KingletError
from kinglet.runtime.sessions import FEATURES_NAME, open_session, read_metadata
from tasks import benchmark, crossvalidate, finetune, pool_folds, quantize
from tasks.clip_answers import open_clip_network
from tasks.clip_training import augmentations_of, clip_recipe
from tasks.models import image_set, load_model, read_manifest
from tasks.parameters import Parameters, load_parameters
from tests.unit.models.clip_classifier_files import CLASSES, moving_squares

SIZE, FRAMES = 32, 4
PARTS = ["train"] * 18 + ["validation"] * 6


def settings(**changes: Any) -> Parameters:
    training = {"backbone": "mobilenet-v2", "input_size": SIZE, "epochs": 0.5, "batch_size": 6}
    return Parameters.model_validate(
        {
            "problem": "video",
            "data": {"source": "videos", "images": "videos"},
            "finetune": {**training, **changes},
            "recurrent": {"units": 8, "epochs": 2, "views": 2},
            "crossvalidate": {"folds": [1, 2]},
            "quantize": {"calibration_images": 16, "methods": ["minmax"], "weight_bits": [7], "qat_epochs": 0},
            "benchmark": {"batch_sizes": [1, 2], "seconds_per_model": 0.1},
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a project after `finetune`, `quantize`, `benchmark` and the folds."""
    root = tmp_path_factory.mktemp("clips")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("KINGLET_CACHE", str(root / "cache"))
        build(root)
        parameters = settings()
        for task in (finetune, quantize, benchmark):
            task.run(parameters)
        for fold in (1, 2):
            crossvalidate.run(parameters, 1, fold)
        pool_folds.run(parameters)
    return root


def build(root: Path) -> None:
    """Write what `ingest`, `split` and `assign_folds` leave."""
    for folder in ("ingest", "split", "crossvalidate"):
        (root / "artifacts" / folder).mkdir(parents=True)
    clips, labels = moving_squares(len(PARTS), SIZE, FRAMES)
    np.save(root / f"artifacts/ingest/clips_{SIZE}.npy", clips)
    index = np.arange(len(PARTS))
    table = pd.DataFrame({"index": index, "path": [f"{n}.mp4" for n in index], "split": PARTS, "label_index": labels})
    table.to_parquet(root / "artifacts/split/manifest.parquet")
    table.to_parquet(root / "artifacts/ingest/manifest.parquet")
    (root / "artifacts/split/classes.json").write_text(json.dumps(CLASSES))
    sizes = {"teacher": SIZE, "low_resolution": SIZE, "student": SIZE, "students": {}, "candidates": []}
    facts = {"input_sizes": sizes, "short_side": SIZE}
    (root / "artifacts/ingest/source.json").write_text(json.dumps(facts))
    folds = pd.DataFrame({"index": index, "repeat": 1, "fold": 1 + (index // 3) % 2, "draw": (index // 6) / 4})
    folds.to_parquet(root / "artifacts/crossvalidate/folds.parquet")
    (root / "artifacts/crossvalidate/plan.json").write_text("{}")


def test_the_teacher_of_videos_is_two_files_and_says_so(made, monkeypatch):
    monkeypatch.chdir(made)
    folder = made / "artifacts/finetune/teacher"
    network, card = load_model(folder)
    assert (card.problem, card.classes, card.architecture["family"]) == ("video", CLASSES, "clip-classifier")
    assert [card.notes[name] for name in ("frames", "feature_size", "state_size")] == [FRAMES, 512, 8 + 512 + 1]
    assert [epoch["part"] for epoch in card.notes["history"]] == ["recurrent"] * 2 + ["whole"]
    session = open_session(folder / "model.onnx", threads=1, outputs=(FEATURES_NAME,))
    assert read_metadata(session) == (card.preprocessing, CLASSES)
    assert json.loads(session.get_modelmeta().custom_metadata_map["kinglet.problem"]) == "video"
    assert not list((made / ".kinglet/checkpoints").glob("*"))
    clips = image_set(read_manifest(), "validation", [SIZE], lambda size: made / f"artifacts/ingest/clips_{size}.npy")
    found = open_clip_network(folder).logits(clips.packed[SIZE], clips.rows, workers=1)
    assert found.shape == (6, FRAMES, 3)
    from kinglet.training.loop import predict

    expected = predict(network, clips.packed[SIZE], clips.rows, card.mean, card.std, next(network.parameters()).device)
    np.testing.assert_allclose(found[:, -1], expected.numpy(), atol=1e-3, rtol=1e-3)


def test_int8_is_two_files_as_well_and_the_notes_say_what_became_of_the_recurrent_part(made, monkeypatch):
    monkeypatch.chdir(made)
    folder = made / "artifacts/quantize/teacher-int8"
    card = read_json(folder / "model.json")
    recurrent = card["notes"]["recurrent"]
    assert recurrent["clips"] == 3
    assert (recurrent["precision"] == "int8") == (b"MatMulInteger" in (folder / "recurrent.onnx").read_bytes())
    assert card["notes"]["guard"]["images"] == 3
    assert (folder / "model.onnx").stat().st_size < 0.7 * (
        made / "artifacts/finetune/teacher/model.onnx"
    ).stat().st_size
    open_clip_network(folder)


def test_a_frame_is_timed_through_both_files_and_each_of_them(made):
    latency = read_json(made / "artifacts/benchmark/latency.json")["models"]
    for step, name in (("finetune", "teacher"), ("quantize", "teacher-int8")):
        folder = made / "artifacts" / step / name
        files = [folder / file for file in ("model.onnx", "recurrent.onnx")]
        assert latency[name]["size_bytes"] == sum(file.stat().st_size for file in files)
        assert set(latency[name]["parts"]) == {"frame_part_p50_ms", "recurrent_part_p50_ms"}
        assert latency[name]["parts"]["recurrent_part_p50_ms"] > 0
        assert latency[name]["throughput_per_s"]["2"] > 0


def test_every_clip_is_answered_by_a_model_that_never_saw_it(made):
    table = pd.read_parquet(made / "artifacts/pool_folds/out_of_fold.parquet")
    assert table["index"].tolist() == list(range(len(PARTS)))
    assert table["path"][3] == "3.mp4"
    np.testing.assert_allclose(np.stack(table["probabilities"]).sum(1), 1, atol=1e-5)
    scores = read_json(made / "artifacts/pool_folds/scores.json")
    assert (scores["n"], len(scores["runs"])) == (len(PARTS), 2)


def test_without_epochs_the_backbone_stays_as_it_is_and_nothing_mirrors():
    parameters = settings(epochs=0)
    recipe = clip_recipe(parameters.finetune, parameters.recurrent, 18, FRAMES, SIZE, 0)
    assert recipe.whole is None
    assert (recipe.views, recipe.behind.phases) == (2, ((2, SIZE),))
    assert augmentations_of(parameters.finetune) == ("shift", "color")
    # Without augmentation all views are the same.
    assert clip_recipe(settings(augment=[]).finetune, parameters.recurrent, 18, FRAMES, SIZE, 0).views == 1


def test_only_video_may_leave_the_backbone_untrained(tmp_path):
    text = Path("params.yaml").read_text(encoding="utf-8")
    before, after = text.split("\nfinetune:\n")
    file = tmp_path / "params.yaml"
    file.write_text(before + "\nfinetune:\n" + after.replace("  epochs: auto", "  epochs: 0", 1), encoding="utf-8")
    with pytest.raises(KingletError, match=r"finetune\.epochs is 0; allowed: auto, or a number above 0"):
        load_parameters(file)
    assert load_parameters(Path("params/video.yaml")).crossvalidate.folds == []
