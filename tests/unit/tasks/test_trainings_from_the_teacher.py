"""The steps answer, distill and prune on a small project: views, controls, and cuts that gain nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kinglet.atomic import read_json
from kinglet.compression.search import Latency
from kinglet.data.batches import standardize
from tasks import answer, distill, prune
from tasks.artifacts import ANSWERS, read_card
from tasks.models import load_model
from tests.unit.models.small_networks import residual_cnn
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
    training = answer.image_set(answer.read_manifest(), "train", [16])
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
    training = distill.image_set(distill.read_manifest(), "train", [16])
    pixels = torch.from_numpy(np.array(training.packed[16][training.rows])).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        sure = [
            network(standardize(pixels, card.mean, card.std)).softmax(1).amax(1).mean()
            for network, card in (taught, untaught)
        ]
    assert sure[0] != sure[1]
    history = [card.notes["history"] for _, card in (taught, untaught)]
    assert len(history[0]) == len(history[1])


def clock(monkeypatch, times):
    """Let networks take as long as the width of their first layer says, {width: milliseconds}."""
    seen = []

    def measure(network, *_):
        width = network.spec.stages[0].inner[0]
        seen.append(width)
        value = times(width)
        return Latency(value, 0.99 * value, 1.01 * value, "fp32")

    monkeypatch.setattr(prune, "untrained_latency", measure)
    return seen


PRUNE = {"models": ["student"], "channel_share": 0.5, "round_to": 4, "importance": "l2", "epochs": 1, "batch_size": 32}


def test_a_cut_that_gains_no_time_is_refused_with_both_latencies(project, monkeypatch, capsys):
    settings = parameters(distill=SMALL, prune=PRUNE)
    answer.run(settings)
    distill.run(settings)
    clock(monkeypatch, lambda width: 0.25)
    prune.run(settings)
    sentence = "Without 50% of its channels student would be no faster: 0.25 ms instead of 0.25 ms."
    assert read_json(Path("artifacts/prune/refused.json")) == {"student": sentence}
    assert sentence in capsys.readouterr().err
    assert not Path("artifacts/prune/student-pruned").exists()


def test_a_dense_network_as_fast_as_the_pruned_one_is_trained_as_long(project, monkeypatch):
    settings = parameters(distill=SMALL, prune={**PRUNE, "baseline": True})
    answer.run(settings)
    distill.run(settings)
    seen = clock(monkeypatch, lambda width: width / 100)
    prune.run(settings)
    assert read_json(Path("artifacts/prune/refused.json")) == {}
    pruned, dense = (read_card(Path("artifacts/prune") / name) for name in ("student-pruned", "student-dense"))
    assert pruned.architecture["spec"]["stages"][0]["inner"] == [8]
    assert dense.architecture["spec"]["stages"] == [
        {"width": 8, "stride": 2, "inner": [8]},
        {"width": 20, "stride": 2, "inner": [20]},
    ]
    assert (dense.parent, dense.control_for) == ("teacher", "student-pruned")
    assert seen[:2] == [16, 8]
    assert len(dense.notes["history"]) == 3  # two epochs as a student, one of recovery


def test_latency_of_an_untrained_network_is_measured_and_remembered(project):
    images = np.zeros((4, 3, 16, 16), np.float32)
    network = residual_cnn()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first = prune.untrained_latency(network, images, 1, 0)
    assert 0 < first.low <= first.value <= first.high < 100
    assert prune.untrained_latency(network, images, 1, 0) == first
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
