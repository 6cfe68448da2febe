"""The steps answer, distill and prune on a small project: views, controls, and cuts that gain nothing."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kinglet.atomic import read_json, write_json
from kinglet.compression.latency import Latency
from kinglet.data.batches import standardize
from kinglet.errors import KingletError
from kinglet.models.registry import pretrained
from kinglet.runtime.latency import Timing
from tasks import answer, distill, prune, rivals, untrained_latency
from tasks.artifacts import ANSWERS, read_card
from tasks.models import image_set, load_model, read_manifest, save_model
from tests.unit.models.small_networks import inverted_residual, residual_cnn
from tests.unit.tasks.killed_training import assert_it_goes_on
from tests.unit.tasks.small_project import build_training_project, parameters

N_TRAINING = 96
TEACHER = Path("artifacts/finetune/teacher")
STAGES = [{"width": 16, "stride": 2, "blocks": 1}, {"width": 32, "stride": 2, "blocks": 1}]
SMALL = {"students": {"student": {"input_size": 16, "stages": STAGES}}, "epochs": 2, "batch_size": 32}


@pytest.fixture
def project(tmp_path, monkeypatch):
    build_training_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KINGLET_CACHE", str(tmp_path / "cache"))
    for step in (answer, distill, prune):
        monkeypatch.setattr(step, "prepare_training", torch.manual_seed)  # what it sets would outlive the test
    # The manifest is what a checkpoint's key is made of.
    Path("artifacts/ingest/manifest.parquet").write_bytes(b"manifest")
    return tmp_path


@pytest.mark.parametrize(
    ("augment", "n_views"), [([], 1), (["flip"], 2), (["flip", "erase"], 16), (["flip", "mixup"], 16)]
)
def test_teacher_answers_every_view_of_every_training_image(project, augment, n_views):
    answer.run(parameters(distill={"augment": augment}))
    answers = np.load(ANSWERS)
    assert (answers.shape, answers.dtype) == ((N_TRAINING, n_views, 4), np.float16)
    network, card = load_model(TEACHER)
    training = image_set(read_manifest(), "train", [16])
    plain = torch.from_numpy(np.array(training.packed[16][training.rows])).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        expected = network(standardize(plain, card.mean, card.std)).numpy()
        mirrored = network(standardize(plain.flip(3), card.mean, card.std)).numpy()
    if augment == ["flip"]:
        answers = np.where((np.abs(answers[:, 0] - expected) < 0.02).all(1)[:, None, None], answers, answers[:, ::-1])
        np.testing.assert_allclose(answers[:, 1], mirrored, atol=0.02)
    if n_views < 3:
        np.testing.assert_allclose(answers[:, 0], expected, atol=0.02)
    else:
        assert np.abs(np.diff(answers.astype(np.float32), axis=1)).max() > 0.05


def test_control_is_the_same_network_trained_from_the_labels_alone(project):
    settings = parameters(distill={**SMALL, "controls": ["student"]})
    answer.run(settings)
    np.save(ANSWERS, np.zeros((N_TRAINING, 16, 4), np.float16))
    distill.run(settings)
    taught, untaught = (load_model(Path("artifacts/distill") / name) for name in ("student", "student-untaught"))
    assert (taught[1].parent, taught[1].control_for) == ("teacher", "")
    assert (untaught[1].parent, untaught[1].control_for) == ("", "student")
    assert untaught[1].architecture == taught[1].architecture
    # A teacher that says nothing of the classes leaves the taught student less sure than the labels do.
    training = image_set(read_manifest(), "train", [16])
    pixels = torch.from_numpy(np.array(training.packed[16][training.rows])).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        sure = [
            network(standardize(pixels, card.mean, card.std)).softmax(1).amax(1).mean()
            for network, card in (taught, untaught)
        ]
    assert sure[0] != sure[1]
    history = [card.notes["history"] for _, card in (taught, untaught)]
    assert len(history[0]) == len(history[1])


def test_student_on_a_backbone_begins_with_its_weights_and_a_fitted_classifier(project, monkeypatch):
    begun = []

    def train(network, output, card, images, recipe, settings, **rest):
        begun.append((copy.deepcopy(network.state_dict()), recipe, rest))

    students = {"student": {"input_size": 16, "backbone": "mobilenet-v2"}}
    settings = parameters(distill={"students": students, "controls": ["student"]}, finetune={"head_epochs": 0.5})
    monkeypatch.setattr(distill, "train_from_teacher", train)
    distill.run(settings)
    (weights, recipe, rest), (of_control, _, rest_of_control) = begun
    pretrained_network, _ = pretrained("mobilenet-v2", 3, 4, 0.0)
    kept = [key for key, _ in pretrained_network.named_parameters() if not key.startswith("classifier.")]
    assert kept
    for key in kept:
        torch.testing.assert_close(weights[key], pretrained_network.state_dict()[key])
    assert float(weights["classifier.weight"].abs().max()) > 0
    assert all(torch.equal(weights[key], of_control[key]) for key in weights)
    assert recipe.learning_rate == settings.distill.from_teacher.learning_rate
    assert (rest["parent"], rest["control_for"], rest["notes"]) == ("teacher", "", {"backbone": "mobilenet-v2"})
    assert (rest_of_control["parent"], rest_of_control["control_for"]) == ("", "student")


def test_student_on_a_backbone_is_trained_and_cut_like_any_other(project, monkeypatch):
    students = {"student": {"input_size": 16, "backbone": "mobilenet-v2"}}
    settings = parameters(
        distill={"students": students, "from_teacher": {"epochs": 1, "batch_size": 32}},
        prune={"models": ["student"], "baseline": "none", "round_to": 8, "epochs": 1, "batch_size": 32},
    )
    monkeypatch.setattr(prune, "is_faster", lambda after, before: True)
    answer.run(settings)
    distill.run(settings)
    prune.run(settings)
    (_, whole), (_, pruned) = (
        load_model(Path(name)) for name in ("artifacts/distill/student", "artifacts/prune/student-pruned")
    )
    assert (whole.parent, pruned.parent) == ("teacher", "student")
    assert whole.notes["backbone"] == "mobilenet-v2"
    assert pruned.parameters < 0.8 * whole.parameters


def add_unlabelled(n):
    """Let the last `n` test and validation images of the project stand for images without a label."""
    rows = read_manifest().query("split != 'train'").tail(n)
    rows[["index", "path"]].to_parquet("artifacts/split/unlabelled.parquet", index=False)
    return rows["index"].to_numpy()


@pytest.mark.parametrize("kind", ["attention", "features"])
@pytest.mark.parametrize("augment", [["flip"], ["flip", "mixup"]])
def test_students_learn_from_what_the_teacher_sees_and_are_the_same_every_time(project, capsys, kind, augment):
    settings = {**SMALL, "augment": augment}
    hinted = {**settings, "hints": kind, "hint_weight": 2.0, "controls": ["student"]}
    answer.run(parameters(distill=settings))
    plain_answers = ANSWERS.read_bytes()
    assert not list(Path("artifacts/answer").glob("maps/*"))
    distill.run(parameters(distill=settings))
    plain = Path("artifacts/distill/student/model.onnx").read_bytes()

    answer.run(parameters(distill=hinted))
    assert ANSWERS.read_bytes() == plain_answers
    maps = [np.load(path) for path in sorted(Path("artifacts/answer/maps").glob("*.npy"))]
    assert [one.dtype for one in maps] == [np.float16]
    n_views = 16 if "mixup" in augment else 2
    # The teacher of 16 pixels has maps of 8 and 4; the finest is left out.
    assert maps[0].shape == (N_TRAINING, n_views, 32 if kind == "features" else 1, 4, 4)
    assert "the teacher's maps (" in capsys.readouterr().err

    contents = []
    for _ in range(2):
        distill.run(parameters(distill=hinted))
        contents.append(Path("artifacts/distill/student/model.onnx").read_bytes())
    assert contents[0] == contents[1] != plain
    taught, control = (load_model(Path("artifacts/distill") / name) for name in ("student", "student-untaught"))
    # The regressor is gone, and the control saw nothing of the teacher.
    assert taught[1].architecture == control[1].architecture
    answer.run(parameters(distill=settings))
    assert not list(Path("artifacts/answer/maps").glob("*"))
    distill.run(parameters(distill={**settings, "controls": ["student"]}))
    again = load_model(Path("artifacts/distill/student-untaught"))[0]
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), control[0].parameters(), strict=True))


@pytest.mark.parametrize("hints", ["none", "attention"])
def test_a_training_with_hints_goes_on_where_it_was_killed(project, monkeypatch, hints):
    settings = parameters(distill={**SMALL, "hints": hints})
    answer.run(settings)
    assert_it_goes_on(lambda: distill.run(settings), Path("artifacts/distill/student/model.onnx"), monkeypatch)


@pytest.mark.parametrize("loss", ["dist", "dkd"])
def test_images_without_a_label_teach_through_the_teachers_answers(project, loss):
    taught = {"loss": loss, "hints": "attention", "controls": ["student"], "augment": ["flip"]}
    settings = parameters(distill={**SMALL, **taught})
    answer.run(settings)
    distill.run(settings)
    taught, control = (Path("artifacts/distill") / name / "model.onnx" for name in ("student", "student-untaught"))
    before, alone = taught.read_bytes(), control.read_bytes()
    rows = add_unlabelled(20)
    answer.run(settings)
    answers, maps = np.load(ANSWERS), np.load("artifacts/answer/maps/0.npy")
    assert len(answers) == len(maps) == N_TRAINING + 20
    network, card = load_model(TEACHER)
    packed = np.load("artifacts/ingest/images_16.npy")[rows]
    with torch.inference_mode():
        pixels = torch.from_numpy(packed).permute(0, 3, 1, 2).float()
        expected = [network(standardize(one, card.mean, card.std)).numpy() for one in (pixels, pixels.flip(3))]
    for image, (first, second) in enumerate(answers[N_TRAINING:]):
        found = sorted([first.tolist(), second.tolist()])
        np.testing.assert_allclose(found, sorted([of[image].tolist() for of in expected]), atol=0.02)
    distill.run(settings)
    assert taught.read_bytes() != before
    assert read_card(taught.parent).notes["images_without_a_label"] == 20
    # Labels alone teach nothing about them.
    assert control.read_bytes() == alone


def clock(monkeypatch, times):
    """Let networks take as long as the width of their first layer and their images say, {precision: milliseconds}."""
    seen = []

    def measure(subjects, *_):
        keys = [(network.spec.stages[0].inner[0], images.shape[2]) for network, images in subjects]
        seen.append(keys)
        return [{"fp32": Latency(time, 0.99 * time, 1.01 * time, "fp32")} for time in (times(*key) for key in keys)]

    for step in (prune, rivals):
        monkeypatch.setattr(step, "untrained_latencies", measure)
    return seen


PRUNE = {"models": ["student"], "channel_share": 0.5, "round_to": 4, "importance": "l2", "epochs": 1, "batch_size": 32}


def pack_smaller(sizes):
    """Pack the project's images of 16 pixels in these smaller sizes too, for rivals."""
    source = Path("artifacts/ingest/source.json")
    facts = read_json(source)
    facts["input_sizes"]["rivals"] = sizes
    write_json(source, facts)
    packed = np.load("artifacts/ingest/images_16.npy")
    for size in sizes:
        places = np.arange(size) * 16 // size
        np.save(f"artifacts/ingest/images_{size}.npy", packed[:, places][:, :, places])


def test_a_cut_that_gains_no_time_is_refused_with_both_latencies(project, monkeypatch, capsys):
    settings = parameters(distill=SMALL, prune=PRUNE)
    answer.run(settings)
    distill.run(settings)
    clock(monkeypatch, lambda width, size: 0.25)
    prune.run(settings)
    sentence = "Without 50% of its channels student would be no faster: 0.25 ms instead of 0.25 ms."
    assert read_json(Path("artifacts/prune/refused.json")) == {"student": sentence}
    assert read_json(Path("artifacts/prune/unrivalled.json")) == {}
    assert sentence in capsys.readouterr().err
    assert not Path("artifacts/prune/student-pruned").exists()


def test_the_whole_network_on_smaller_images_is_trained_on_as_long_as_the_pruned_one(project, monkeypatch):
    settings = parameters(distill=SMALL, prune={**PRUNE, "epochs": 1.5})
    answer.run(settings)
    distill.run(settings)
    pack_smaller([8, 12, 16])
    seen = clock(monkeypatch, lambda width, size: width * size)
    prune.run(settings)
    assert read_json(Path("artifacts/prune/unrivalled.json")) == {}
    student = read_card(Path("artifacts/distill/student"))
    pruned, dense = (read_card(Path("artifacts/prune") / name) for name in ("student-pruned", "student-dense"))
    # Half of the channels at 16 pixels take as long as all of them at 8; 16 pixels are no smaller images.
    assert seen == [[(16, 16), (8, 16)], [(8, 16), (16, 8), (16, 12)]]
    assert (dense.input_size, dense.architecture) == (8, student.architecture)
    assert (dense.parent, dense.control_for, dense.notes["rival"]) == ("student", "student-pruned", "resolution")
    lengths = [[epoch["epoch"] for epoch in card.notes["history"]] for card in (pruned, dense)]
    assert lengths[0] == lengths[1] == [1, 2]


def test_a_pruned_backbone_gets_its_rival_too(project, monkeypatch):
    network = inverted_residual(3, 4)
    facts = {"mean": [0.45] * 3, "std": [0.25] * 3, "classes": ["a", "b", "c", "d"], "notes": {}}
    save_model(TEACHER, network, step="finetune", parent="", input_size=16, channels=3, fit="stretch", **facts)
    settings = parameters(distill=SMALL, prune={**PRUNE, "models": ["teacher"], "blocks": 1, "channel_share": 0.25})
    answer.run(settings)
    pack_smaller([8, 12])

    def measure(subjects, *_):
        times = [sum(block.expanded for block in one.spec.blocks) * images.shape[2] for one, images in subjects]
        return [{"fp32": Latency(time, time, time, "fp32")} for time in times]

    for step in (prune, rivals):
        monkeypatch.setattr(step, "untrained_latencies", measure)
    prune.run(settings)
    pruned, dense = (read_card(Path("artifacts/prune") / name) for name in ("teacher-pruned", "teacher-dense"))
    assert len(pruned.architecture["spec"]["blocks"]) == len(network.spec.blocks) - 1
    (removal,) = pruned.notes["removed_blocks"]
    assert network.spec.blocks[removal["index"]].has_skip
    assert (dense.input_size, len(dense.architecture["spec"]["blocks"])) == (8, len(network.spec.blocks))
    with pytest.raises(KingletError, match=r"prune\.baseline is width, but teacher is a pretrained backbone"):
        prune.run(parameters(distill=SMALL, prune={**PRUNE, "models": ["teacher"], "baseline": "width"}))


def test_a_pruned_model_that_nothing_dense_is_as_fast_as_is_said_to_have_no_rival(project, monkeypatch, capsys):
    settings = parameters(distill=SMALL, prune=PRUNE)
    answer.run(settings)
    distill.run(settings)
    pack_smaller([8, 12])
    clock(monkeypatch, lambda width, size: width / 100)
    prune.run(settings)
    sentence = read_json(Path("artifacts/prune/unrivalled.json"))["student"]
    assert sentence == (
        "student is as fast as student-pruned on no smaller images: 0.16 ms at 8 px, 0.16 ms at 12 px, "
        "and 0.08 ms pruned."
    )
    assert sentence in capsys.readouterr().err
    assert Path("artifacts/prune/student-pruned").exists()


def test_a_dense_network_as_fast_as_the_pruned_one_is_trained_as_long(project, monkeypatch):
    settings = parameters(distill=SMALL, prune={**PRUNE, "baseline": "width"})
    answer.run(settings)
    distill.run(settings)
    seen = clock(monkeypatch, lambda width, size: width / 100)
    prune.run(settings)
    assert read_json(Path("artifacts/prune/refused.json")) == {}
    pruned, dense = (read_card(Path("artifacts/prune") / name) for name in ("student-pruned", "student-dense"))
    assert pruned.architecture["spec"]["stages"][0]["inner"] == [8]
    assert dense.architecture["spec"]["stages"] == [
        {"width": 8, "stride": 2, "inner": [8]},
        {"width": 20, "stride": 2, "inner": [20]},
    ]
    assert (dense.parent, dense.control_for) == ("teacher", "student-pruned")
    assert seen[0] == [(16, 16), (8, 16)]
    assert len(dense.notes["history"]) == 3  # two epochs as a student, one of recovery


def test_blocks_leave_and_the_rest_trains_on(project, monkeypatch, capsys):
    settings = parameters(distill=SMALL, prune={**PRUNE, "blocks": 1, "channel_share": 0})
    answer.run(settings)
    distill.run(settings)
    pack_smaller([8])

    def measure(subjects, *_):
        times = [
            (1 + sum(width for stage in one.spec.stages for width in stage.inner)) * images.shape[2]
            for one, images in subjects
        ]
        return [{"int8": (found := Latency(time, time, time, "int8")), "fp32": found} for time in times]

    for step in (prune, rivals):
        monkeypatch.setattr(step, "untrained_latencies", measure)
    prune.run(settings)
    card = read_card(Path("artifacts/prune/student-pruned"))
    assert sum(len(stage["inner"]) for stage in card.architecture["spec"]["stages"]) == 1
    (removal,) = card.notes["removed_blocks"]
    assert removal["saved_ms"] == {0: 16 * 16, 1: 32 * 16}[removal["index"]]
    assert removal["damage"] >= 0
    assert f"student loses block {removal['index']}" in capsys.readouterr().err
    first = Path("artifacts/prune/student-pruned/model.onnx").read_bytes()
    prune.run(settings)
    assert Path("artifacts/prune/student-pruned/model.onnx").read_bytes() == first
    with pytest.raises(KingletError, match=r"prune\.blocks is 3, but only 2 blocks of student can go"):
        prune.run(parameters(distill=SMALL, prune={**PRUNE, "blocks": 3}))


def test_a_network_of_another_zoo_is_refused_before_anything_is_cut(project, monkeypatch):
    settings = parameters(distill=SMALL, prune={**PRUNE, "models": ["teacher"]})
    card = read_card(TEACHER)
    network = load_model(TEACHER)[0]
    zoo = replace(card, architecture={"family": "zoo", "spec": {}})
    monkeypatch.setattr(rivals, "load_model", lambda _: (network, zoo))
    with pytest.raises(KingletError, match=r"prune\.models names teacher, whose network of another model zoo"):
        prune.run(settings)
    assert not Path("artifacts/prune/teacher-pruned").exists()


def test_the_step_of_the_width_is_measured_where_it_is_left_to_the_runtime(project, monkeypatch):
    settings = parameters(distill=SMALL, prune={**PRUNE, "round_to": "auto", "channel_share": 0.3})
    answer.run(settings)
    distill.run(settings)
    pack_smaller([8])
    clock(monkeypatch, lambda width, size: -(-width // 8) * size)
    prune.run(settings)
    stages = read_card(Path("artifacts/prune/student-pruned")).architecture["spec"]["stages"]
    assert [stage["width"] for stage in stages] == [8, 16]  # 70 % of 16 and 32, in steps of 8


def test_latency_of_an_untrained_network_is_measured_and_remembered(project):
    images = np.zeros((4, 3, 16, 16), np.float32)
    network = residual_cnn()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    (found,) = untrained_latency.untrained_latencies([(network, images)], 1, 0)
    first = untrained_latency.fastest(found)
    assert 0 < first.low <= first.value <= first.high < 100
    assert 0 < found["int8"].size_bytes < found["fp32"].size_bytes
    assert untrained_latency.untrained_latencies([(network, images)], 1, 0) == [found]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_latencies_of_several_networks_come_in_their_order(project):
    small, large = np.zeros((4, 3, 16, 16), np.float32), np.zeros((4, 3, 64, 64), np.float32)
    first, second, third = untrained_latency.untrained_latencies(
        [(residual_cnn(), large), (residual_cnn(), small), (residual_cnn(), large)], 1, 0
    )
    assert set(first) == {"fp32", "int8"}
    assert first == third
    assert second["fp32"].value < first["fp32"].value


@pytest.mark.parametrize(
    ("high", "milliseconds", "asked"),
    [(1.05, 1.0, [0.3]), (1.3, 1.0, [0.3, 0.9]), (1.3, 50.0, [0.3, 4.5])],
    ids=["steady", "unsteady", "unsteady and slow"],
)
def test_what_was_unsteady_is_measured_three_times_as_long(project, monkeypatch, high, milliseconds, asked):
    found = []

    def measure(engines, batch_size, seconds):
        found.append(seconds)
        interval = (milliseconds * factor for factor in (1.0, 1.0, high, high))
        return {name: Timing(batch_size, *interval, runs=20, rounds=10) for name in engines}

    monkeypatch.setattr(untrained_latency, "measure", measure)
    untrained_latency.measured({"digest": b"file"}, 1, opened=lambda *_: None)
    assert found == pytest.approx(asked)
