"""Students of networks over clips: taught by real teachers' answers, on a handful of squares that move."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import kinglet.training.epochs
from kinglet.atomic import read_json, write_json
from kinglet.data.batches import standardize
from kinglet.data.views import Shown, Views
from kinglet.errors import KingletError
from tasks import benchmark, distill, finetune, quantize
from tasks.clip_answers import open_clip_network
from tasks.clip_distill import answers_of_teacher, losses_by_teacher, number_of_clip_views, recipe_of_student
from tasks.models import load_model
from tasks.parameters import Parameters, load_parameters
from tasks.training_settings import Distill
from tests.unit.models.clip_classifier_files import CLASSES, moving_squares
from tests.unit.tasks import test_clip_training
from tests.unit.tasks.test_clip_training import FRAMES, PARTS, SIZE

SMALL = 24
N_TRAINING = PARTS.count("train")


def settings(**changes: Any) -> Parameters:
    students = {"small": {"backbone": "mobilenet-v2", "input_size": SMALL}}
    training = {"epochs": 0.5, "batch_size": 6, "learning_rate": 0.005, "views": 3}
    given = {"students": students, "controls": ["small"], **training, **changes}
    return test_clip_training.settings().model_copy(update={"distill": Distill.model_validate(given)})


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project after `finetune`, `distill`, `quantize` and `benchmark`."""
    root = tmp_path_factory.mktemp("students")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("KINGLET_CACHE", str(root / "cache"))
        test_clip_training.build(root)
        np.save(root / f"artifacts/ingest/clips_{SMALL}.npy", moving_squares(len(PARTS), SMALL, FRAMES)[0])
        facts = read_json(Path("artifacts/ingest/source.json"))
        facts["input_sizes"]["students"] = {"small": SMALL}
        write_json(Path("artifacts/ingest/source.json"), facts)
        for task in (finetune, distill, quantize, benchmark):
            task.run(settings())
    return root


def test_a_student_is_a_network_of_its_own_size_with_two_files_and_its_control_has_no_parent(
    taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(taught)
    cards = {name: load_model(Path("artifacts/distill") / name)[1] for name in ("small", "small-untaught")}
    assert [card.parent for card in cards.values()] == ["teacher", ""]
    assert [card.control_for for card in cards.values()] == ["", "small"]
    for name, card in cards.items():
        assert (card.problem, card.input_size, card.classes) == ("video", SMALL, CLASSES)
        assert card.notes["backbone"] == "mobilenet-v2"
        assert [epoch["part"] for epoch in card.notes["history"]] == ["recurrent"] * 2 + ["whole"]
        clips = np.load(f"artifacts/ingest/clips_{SMALL}.npy")
        assert open_clip_network(Path("artifacts/distill") / name).logits(clips, np.arange(3), 1).shape == (
            3,
            FRAMES,
            3,
        )
    assert not list(Path(".kinglet/checkpoints").glob("distill*"))


def test_a_student_comes_to_int8_and_is_timed_and_its_control_is_not_quantized(taught: Path) -> None:
    assert sorted(folder.name for folder in (taught / "artifacts/quantize").iterdir() if folder.is_dir()) == [
        "small-int8",
        "teacher-int8",
    ]
    models = read_json(taught / "artifacts/benchmark/latency.json")["models"]
    assert set(models) == {"teacher", "small", "small-untaught", "small-int8", "teacher-int8"}
    assert models["small-int8"]["size_bytes"] < models["small"]["size_bytes"] < models["teacher"]["size_bytes"] * 1.01


def test_the_teacher_answers_every_clip_in_the_views_that_students_see(
    taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(taught)
    answers = answers_of_teacher(settings())
    assert answers.shape == (N_TRAINING, 3, len(CLASSES))
    network, card = load_model(Path("artifacts/finetune/teacher"))
    packed, rows = np.load(f"artifacts/ingest/clips_{SIZE}.npy"), np.arange(N_TRAINING)
    views = Views(("shift", "color"), N_TRAINING, 3, seed=0)
    for view in range(3):
        of_view = torch.full((N_TRAINING,), view)
        pixels, _ = views.show(packed, rows, rows, of_view, torch.device("cpu"))
        with torch.inference_mode():
            expected = network(standardize(pixels, card.mean, card.std))
        torch.testing.assert_close(answers[:, view], expected, atol=1e-3, rtol=1e-3)


def test_both_parts_of_a_training_learn_from_the_answer_to_the_view_that_they_see() -> None:
    generator = torch.Generator().manual_seed(1)
    labels, answers = torch.tensor([0, 2, 1, 0]), torch.randn(4, 3, 3, generator=generator)
    losses = losses_by_teacher(labels, answers, 2, settings(loss="kl").distill)
    logits, none = torch.randn(5, 3, generator=generator), torch.zeros(5, dtype=torch.int64)
    # Of the part behind the backbone all clips in the first view come first, then all in the second.
    places = torch.tensor([0, 3, 4, 6, 7])
    clips, views = places % 4, places // 4
    whole = losses.whole(logits, Shown(clips, views, clips, torch.ones(5)))
    behind = losses.behind(logits, Shown(places, none, places, torch.ones(5)))
    torch.testing.assert_close(behind, whole)
    others = losses.whole(logits, Shown(clips, 1 - views, clips, torch.ones(5)))
    assert abs(float(others - whole)) > 1e-3


def test_views_are_at_least_those_that_the_part_behind_sees_and_one_without_augmentation() -> None:
    assert number_of_clip_views(settings()) == 3
    assert number_of_clip_views(settings(views=1)) == 2
    assert number_of_clip_views(settings(views="auto")) == 8
    parameters = settings()
    still = parameters.model_copy(update={"finetune": parameters.finetune.model_copy(update={"augment": []})})
    assert number_of_clip_views(still) == 1
    recipe = recipe_of_student(parameters, SMALL, N_TRAINING, FRAMES)
    assert recipe.whole is not None
    assert (recipe.whole.views, recipe.whole.batch_size, recipe.whole.phases) == (3, 6, ((0.5, SMALL),))
    # Also where the teacher's backbone stays as it is.
    frozen = parameters.model_copy(update={"finetune": parameters.finetune.model_copy(update={"epochs": 0})})
    assert recipe_of_student(frozen, SMALL, N_TRAINING, FRAMES) == recipe


def test_a_student_trained_again_leaves_the_same_bytes_and_an_interrupted_one_goes_on(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(taught, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("KINGLET_CACHE", str(taught / "cache"))
    files = [Path("artifacts/distill/small") / name for name in ("model.onnx", "recurrent.onnx", "model.json")]
    before = [file.read_bytes() for file in files]
    train_epoch, calls = kinglet.training.epochs._train_epoch, []

    def killed(*given: Any, **named: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train_epoch(*given, **named)

    shutil.rmtree("artifacts/distill/small")
    with monkeypatch.context() as patch:
        patch.setattr(kinglet.training.epochs, "_train_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            distill.run(settings(controls=[]))
    calls.clear()
    monkeypatch.setattr(
        kinglet.training.epochs, "_train_epoch", lambda *a, **k: calls.append(a) or train_epoch(*a, **k)
    )
    distill.run(settings(controls=[]))
    # The part behind the backbone is not trained again.
    assert len(calls) == 1
    assert [file.read_bytes() for file in files] == before


def test_a_student_of_clips_is_a_backbone_and_no_table_of_stages(tmp_path: Path) -> None:
    content = yaml.safe_load(Path("params/video.yaml").read_text(encoding="utf-8"))
    file = tmp_path / "params.yaml"
    content["distill"]["students"] = {"small": {"backbone": "mobilenet-v2"}}
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert load_parameters(file).distill.students["small"].backbone == "mobilenet-v2"
    content["distill"]["students"] = {"small": {"stages": [{"width": 8, "stride": 2}]}}
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(
        KingletError, match=r"distill\.students\.small has stages; .* a network over clips on a backbone"
    ):
        load_parameters(file)
