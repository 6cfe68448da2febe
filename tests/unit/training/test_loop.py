import numpy as np
import pytest
import torch

from kinglet.data.batches import gather, standardize
from kinglet.errors import KingletError
from kinglet.models.registry import architecture_of, rebuild
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.epochs import Recipe, plan_epochs
from kinglet.training.loop import EVALUATION_BATCH, ImageSet, fit, fit_head, predict
from kinglet.training.losses import label_loss
from tests.unit.models.small_networks import NETWORKS, bright_quadrants, inverted_residual, residual_cnn

PREPARATION = {"mean": [0.4] * 3, "std": [0.25] * 3, "device": torch.device("cpu")}
TRAINING = bright_quadrants(120, (12, 16), seed=1)
VALIDATION = bright_quadrants(60, (12, 16), seed=2)


def recipe(**changes):
    values = {
        "phases": ((1.5, 12), (3, 16)),
        "batch_size": 16,
        "learning_rate": 0.01,
        "weight_decay": 0.01,
        "warmup": 0.1,
        "layer_decay": 0.9,
        "ema_decay": 0.9,
        "patience": 99,
        "augment": (),
        "precision": "fp32",
        "seed": 3,
    }
    return Recipe(**{**values, **changes})


def train(network, training=TRAINING, validation=VALIDATION, checkpoint=None, report=None, **changes):
    loss = label_loss(torch.from_numpy(training.labels), 0.0)
    more = {"report": report} if report else {}
    return fit(network, training, validation, loss, recipe(**changes), checkpoint=checkpoint, **more, **PREPARATION)


def accuracy_kept(history):
    """Of the last epoch within one standard error of the highest so far."""
    highest, kept = 0.0, 0.0
    for epoch in history:
        highest = max(highest, epoch["accuracy"])
        if epoch["accuracy"] >= highest - (highest * (1 - highest) / len(VALIDATION.rows)) ** 0.5:
            kept = epoch["accuracy"]
    return kept


def accuracy_of(network, images, size=16):
    logits = predict(network, images.packed[size], images.rows, **PREPARATION)
    return float((logits.argmax(1).numpy() == images.labels).mean())


def assert_same_weights(first, second):
    expected, found = first.state_dict(), second.state_dict()
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


@pytest.mark.parametrize("family", list(NETWORKS))
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_learns_a_separable_problem(family, precision):
    network, history = train(NETWORKS[family](), precision=precision, learning_rate=0.02)
    assert accuracy_of(network, VALIDATION) > 0.95
    assert history[-1]["loss"] < history[0]["loss"] / 2
    assert not network.training


def test_training_of_gray_images():
    images = [bright_quadrants(n, (16,), channels=1, seed=n) for n in (120, 60)]
    preparation = {**PREPARATION, "mean": [0.4], "std": [0.25]}
    loss = label_loss(torch.from_numpy(images[0].labels), 0.0)
    _, history = fit(residual_cnn(1), *images, loss, recipe(phases=((3, 16),), learning_rate=0.02), **preparation)
    assert max(epoch["accuracy"] for epoch in history) > 0.95


def test_history_tells_size_loss_and_the_accuracy_that_the_result_has():
    network, history = train(residual_cnn())
    assert [epoch["input_size"] for epoch in history] == [12, 12, 16, 16, 16]
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3, 4, 5]
    assert accuracy_of(network, VALIDATION) == accuracy_kept(history)


def test_same_seed_gives_the_same_weights_and_another_seed_others():
    changes = {"augment": ("flip", "crop", "color", "erase"), "phases": ((1, 12),)}
    first, _ = train(inverted_residual(dropout=0.3), **changes)
    torch.rand(17)  # what was drawn before does not matter
    second, _ = train(inverted_residual(dropout=0.3), **changes)
    other, _ = train(inverted_residual(dropout=0.3), seed=4, **changes)
    assert_same_weights(first, second)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


class InterruptionError(Exception):
    pass


@pytest.mark.parametrize("interrupted_at", [8, 12, 20])  # an epoch's last step, an epoch's first, one between
def test_resumed_training_ends_as_if_it_had_not_been_interrupted(tmp_path, interrupted_at):
    changes = {"augment": ("flip", "shift", "erase"), "learning_rate": 0.003}

    def report(done, total, text):
        assert total == 36
        if done == interrupted_at:
            raise InterruptionError

    expected, expected_history = train(inverted_residual(dropout=0.3), **changes)
    checkpoint = Checkpoint(tmp_path / "run")
    with pytest.raises(InterruptionError):
        train(inverted_residual(dropout=0.3), checkpoint=checkpoint, report=report, **changes)
    assert (checkpoint.load() is None) == (interrupted_at == 8)
    # The state on disk is all that counts, where there is one.
    seed = 0 if interrupted_at == 8 else 50
    resumed, history = train(inverted_residual(dropout=0.3, seed=seed), checkpoint=checkpoint, **changes)
    assert history == expected_history
    assert_same_weights(resumed, expected)


def test_finished_training_is_not_repeated(tmp_path):
    checkpoint = Checkpoint(tmp_path / "run")
    expected, expected_history = train(residual_cnn(), checkpoint=checkpoint, phases=((1, 12),))
    steps = []
    again, history = train(
        residual_cnn(seed=9), checkpoint=checkpoint, phases=((1, 12),), report=lambda *step: steps.append(step)
    )
    assert steps == []
    assert history == expected_history
    assert_same_weights(again, expected)


@pytest.fixture(scope="module")
def unlearned():
    """A network that knows the problem, trained on wrong labels: the longer, the worse."""
    wrong = ImageSet(TRAINING.packed, TRAINING.rows, (TRAINING.labels + 1) % 4)
    knowing, _ = train(residual_cnn(), learning_rate=0.02)
    results = {}
    for patience in (2, 99):
        network = rebuild(architecture_of(knowing), knowing.state_dict())
        results[patience] = train(network, training=wrong, patience=patience, phases=((9, 16),), learning_rate=0.001)
    return results


def test_training_stops_after_epochs_without_a_better_accuracy(unlearned):
    _, history = unlearned[2]
    accuracies = [epoch["accuracy"] for epoch in history]
    best = max(range(len(accuracies)), key=lambda index: (accuracies[index], index))
    assert len(history) == best + 1 + 2 < 9
    _, whole = unlearned[99]
    assert len(whole) == 9
    assert whole[: len(history)] == history


def test_weights_of_the_best_epoch_are_kept(unlearned):
    network, history = unlearned[99]
    assert history[-1]["accuracy"] < history[0]["accuracy"]
    assert accuracy_of(network, VALIDATION) == accuracy_kept(history)


def test_diverging_training_is_an_error_that_names_the_epoch_and_the_remedy():
    with pytest.raises(KingletError, match="diverged in epoch 1") as caught:
        train(inverted_residual(), learning_rate=1e38)
    assert "learning_rate" in caught.value.hint


@pytest.mark.parametrize(
    ("phases", "n_examples", "expected"),
    [
        (((2, 12),), 160, [(0, 1.0, 12, 0, 10), (1, 1.0, 12, 10, 10)]),
        (((1.5, 12), (1, 16)), 160, [(0, 1.0, 12, 0, 10), (1, 0.5, 12, 10, 5), (2, 1.0, 16, 15, 10)]),
        (((0.3, 16),), 160, [(0, 0.3, 16, 0, 3)]),
        (((0.01, 16),), 160, [(0, 0.01, 16, 0, 1)]),  # never no step
        (((1, 16),), 7, [(0, 1.0, 16, 0, 1)]),  # fewer examples than a batch
        (((1, 16),), 24, [(0, 1.0, 16, 0, 2)]),  # a half batch counts,
        (((1, 16),), 23, [(0, 1.0, 16, 0, 1)]),  # a smaller one does not
    ],
)
def test_plan_of_epochs(phases, n_examples, expected):
    plan = plan_epochs(recipe(phases=phases), n_examples)
    assert [(epoch.index, epoch.input_size, epoch.first_step, epoch.steps) for epoch in plan] == [
        (index, size, first, steps) for index, _, size, first, steps in expected
    ]
    assert [epoch.share for epoch in plan] == pytest.approx([share for _, share, *_ in expected])


def test_reported_steps_count_up_to_the_plans_total():
    reported = []
    train(residual_cnn(), report=lambda done, total, text: reported.append((done, total)))
    plan = plan_epochs(recipe(), len(TRAINING.rows))
    assert sorted({done for done, _ in reported}) == list(range(1, 37))
    assert {total for _, total in reported} == {plan[-1].first_step + plan[-1].steps} == {36}


def test_prediction_of_more_images_than_a_batch_keeps_their_order():
    network = residual_cnn().train()
    rows = np.random.default_rng(0).integers(0, 120, EVALUATION_BATCH + 3)
    found = predict(network, TRAINING.packed[12], rows, **PREPARATION)
    each = predict(network, TRAINING.packed[12], np.arange(120), **PREPARATION)
    torch.testing.assert_close(found, each[torch.from_numpy(rows)], rtol=1e-4, atol=1e-5)


def test_head_is_fitted_and_nothing_else():
    generator = np.random.default_rng(0)
    labels = np.arange(1200) % 3
    pixels = generator.integers(0, 120, (1200, 8, 8, 3), np.uint8)
    pixels[np.arange(1200), :, :, labels] += 100  # the label is the strongest colour
    images = ImageSet({8: pixels}, np.arange(1200), labels)
    network = residual_cnn(n_classes=3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fit_head(network, images, 8, 1100, seed=0, passes=120, **PREPARATION)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    statistics = {name for name in before if "running" in name or "tracked" in name}
    assert changed == statistics | {"classifier.weight", "classifier.bias"}
    # The running statistics have only begun to move to the new images: with the batch's own.
    inputs = standardize(gather(pixels, images.rows), PREPARATION["mean"], PREPARATION["std"])
    assert (network.train()(inputs).argmax(1).numpy() == labels).mean() > 0.9


def test_head_is_fitted_to_the_same_examples_with_the_same_seed():
    networks = [residual_cnn(seed=1) for _ in range(3)]
    for network, seed in zip(networks, (7, 7, 8), strict=True):
        fit_head(network, TRAINING, 12, 40, seed=seed, **PREPARATION)
    assert_same_weights(networks[0], networks[1])
    assert not torch.equal(networks[0].classifier.weight, networks[2].classifier.weight)


def test_head_is_fitted_where_a_last_batch_would_hold_one_image():
    images = bright_quadrants(EVALUATION_BATCH + 1, (8,))
    network = inverted_residual()  # sees 1x1 pixels in its last layers
    fit_head(network, images, 8, len(images.rows), seed=0, passes=1, **PREPARATION)
    assert network.classifier.weight.abs().max() > 0
