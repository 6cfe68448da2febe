import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from kinglet.evidence.metrics import (
    accuracy,
    class_scores,
    confusion_matrix,
    expected_calibration_error,
    log_loss,
    top_k_accuracy,
)
from kinglet.evidence.score_intervals import (
    Resampling,
    confusion_intervals,
    count_scores,
    difference_intervals,
    draw_weights,
    score_intervals,
)

FEW = Resampling(resamples=1500)


def made_up(n, n_classes, seed, certainty=2.0, noise=1.0):
    """Return labels and the probabilities of a model that is right on most of them."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, n_classes, n)
    logits = certainty * np.eye(n_classes)[labels] + noise * generator.normal(size=(n, n_classes))
    return labels, softmax(logits)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def scores_of(labels, probabilities, k, bins):
    """Return the scores of single metrics, which other tests hold against scikit-learn."""
    confusion = confusion_matrix(labels, probabilities.argmax(axis=1), probabilities.shape[1])
    by_class = class_scores(confusion)
    values = {"precision": by_class.precision, "recall": by_class.recall, "f1": by_class.f1}
    return {
        "accuracy": accuracy(confusion),
        **{f"{name}_macro": by_class.macro(of_class) for name, of_class in values.items()},
        **{f"{name}_weighted": by_class.weighted(of_class) for name, of_class in values.items()},
        f"top_{k}_accuracy": top_k_accuracy(labels, probabilities, k),
        "ece": expected_calibration_error(labels, probabilities, bins),
        "log_loss": log_loss(labels, probabilities),
    }


@pytest.mark.parametrize("stratified", [True, False])
def test_every_score_agrees_with_resampling_the_images(stratified):
    labels, probabilities = made_up(250, 4, seed=0)
    resampling = Resampling(stratified=stratified, resamples=4000)
    own = score_intervals(labels, {"model": probabilities}, top_k=2, n_bins=10, resampling=resampling)["model"]
    generator = np.random.default_rng(1)
    drawn = []
    for _ in range(500):
        parts = [np.flatnonzero(labels == label) for label in range(4)] if stratified else [np.arange(250)]
        rows = np.concatenate([generator.choice(part, len(part)) for part in parts])
        drawn.append(scores_of(labels[rows], probabilities[rows], 2, 10))
    expected = scores_of(labels, probabilities, 2, 10)
    assert set(own.overall) == set(expected)
    for name, interval in own.overall.items():
        assert interval.value == pytest.approx(expected[name], abs=1e-6)
        if name != "ece":  # Wider than the percentile interval on purpose.
            low, high = np.quantile([item[name] for item in drawn], [0.025, 0.975])
            spread = high - low
            assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.2 * spread)
    by_class = sklearn.metrics.precision_recall_fscore_support(labels, probabilities.argmax(axis=1))
    for name, values in zip(("precision", "recall", "f1"), by_class, strict=False):
        assert [item.value for item in own.by_class[name]] == pytest.approx(list(values))
        assert all(item.low < item.value < item.high for item in own.by_class[name])


def test_differences_are_paired_and_agree_with_resampling_the_images():
    labels, first = made_up(300, 3, seed=2)
    second = softmax(np.log(first) + 0.4 * np.random.default_rng(3).normal(size=first.shape))
    own = difference_intervals(
        labels, {"a": first, "b": second}, "a", n_bins=10, resampling=Resampling(stratified=False, resamples=4000)
    )["b"]
    generator = np.random.default_rng(4)
    drawn = []
    for _ in range(500):
        rows = generator.integers(0, 300, 300)
        here, there = (scores_of(labels[rows], values[rows], 1, 10) for values in (second, first))
        drawn.append({name: here[name] - there[name] for name in here})
    for name, interval in own.overall.items():
        low, high = np.quantile([item[name] for item in drawn], [0.025, 0.975])
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.2 * (high - low))
    # Far narrower than two intervals side by side.
    alone = score_intervals(labels, {"b": second}, resampling=FEW)["b"].overall["log_loss"]
    paired = own.overall["log_loss"]
    assert paired.high - paired.low < 0.7 * (alone.high - alone.low)


def test_a_model_and_its_copy_differ_by_nothing():
    labels, first = made_up(60, 3, seed=5)
    found = difference_intervals(labels, {"a": first, "b": first.copy()}, "a", top_k=2, resampling=FEW)["b"]
    intervals = [*found.overall.values(), *(item for of_score in found.by_class.values() for item in of_score)]
    assert {(item.value, item.low, item.high) for item in intervals} == {(0.0, 0.0, 0.0)}


def test_models_that_agree_without_being_the_same_may_differ_elsewhere():
    labels, first = made_up(60, 3, seed=6)
    second = (0.9 * first + 0.1 / 3).astype(np.float32)  # less sure, the same answers
    found = difference_intervals(labels, {"a": first, "b": second}, "a", resampling=FEW)["b"].overall["accuracy"]
    assert found.value == 0
    assert found.low < 0 < found.high


def test_classes_without_images_or_mistakes_get_the_exact_bounds():
    labels = np.repeat([0, 1], [30, 20])
    probabilities = np.zeros((50, 3), np.float32)
    probabilities[np.arange(50), labels] = 1
    found = score_intervals(labels, {"model": probabilities}, resampling=FEW)["model"]
    exact = scipy.stats.binomtest(20, 20).proportion_ci(method="exact").low
    recall = found.by_class["recall"]
    assert (recall[1].value, recall[1].low, recall[1].high) == pytest.approx((1, exact, 1))
    assert (recall[2].value, recall[2].low, recall[2].high) == (0, 0, 1)
    assert found.overall["accuracy"].low == pytest.approx(scipy.stats.binomtest(50, 50).proportion_ci().low)


def test_one_class_and_one_image_are_no_crash():
    for n in (1, 7):
        found = score_intervals(np.zeros(n, int), {"m": np.ones((n, 1), np.float32)}, resampling=FEW)["m"]
        assert found.overall["accuracy"].value == 1
        assert found.overall["log_loss"].value == 0
        bca = Resampling(method="bca", resamples=200)
        score_intervals(np.zeros(n, int), {"m": np.ones((n, 2), np.float32) / 2}, resampling=bca)


def test_bca_differs_from_percentile_where_scores_are_skewed_and_holds_the_value():
    labels, probabilities = made_up(120, 3, seed=7, certainty=2.5)
    plain, bca = (
        score_intervals(labels, {"m": probabilities}, resampling=Resampling(method=method, resamples=3000))["m"]
        for method in ("percentile", "bca")
    )
    assert bca.overall["accuracy"].low < plain.overall["accuracy"].low
    assert bca.overall["log_loss"].high > plain.overall["log_loss"].high
    assert all(item.low <= item.value <= item.high for item in bca.overall.values())


def test_calibration_error_is_covered_although_few_images_exaggerate_it():
    generator = np.random.default_rng(8)

    def sample(n):
        """Labels and probabilities of two classes; the model is surer than it should be."""
        confidence = generator.uniform(0.5, 1, n)
        right = generator.random(n) < confidence - 0.3 * (confidence - 0.5)
        return np.where(right, 0, 1), np.stack([confidence, 1 - confidence], axis=1).astype(np.float32)

    truth = expected_calibration_error(*sample(400_000), n_bins=10)
    held = []
    for seed in range(150):
        labels, probabilities = sample(300)
        resampling = Resampling(stratified=False, resamples=400, seed=seed)
        found = score_intervals(labels, {"m": probabilities}, n_bins=10, resampling=resampling)["m"].overall["ece"]
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) >= 0.93


def test_scores_of_counts_are_those_of_the_confusion_matrix_for_many_classes():
    generator = np.random.default_rng(9)
    labels, predicted = generator.integers(0, 40, (2, 2000))
    cells = np.unique(np.stack([labels, predicted]), axis=1)
    counts = confusion_matrix(labels, predicted, 40)[cells[0], cells[1]]
    own = count_scores(cells[0], cells[1], 40)(counts[None].astype(np.float64))[0]
    by_class = sklearn.metrics.precision_recall_fscore_support(labels, predicted, zero_division=0)
    assert own[7:] == pytest.approx(np.concatenate(by_class[:3]), rel=1e-9)


def test_weights_draw_every_class_as_often_as_it_is_there():
    labels = np.array([2, 0, 2, 1, 2, 0, 1])
    drawn = np.concatenate(list(draw_weights(labels, Resampling(resamples=50))))
    assert drawn.shape == (50, 7)
    for label in range(3):
        assert (drawn[:, labels == label].sum(axis=1) == (labels == label).sum()).all()
    assert len(np.unique(drawn, axis=0)) > 5


def test_the_same_seed_gives_the_same_intervals_and_wrong_inputs_are_refused():
    labels, probabilities = made_up(50, 3, seed=10)
    first, second = (score_intervals(labels, {"m": probabilities}, resampling=FEW) for _ in range(2))
    assert first == second
    with pytest.raises(ValueError, match="labels for"):
        score_intervals(labels[1:], {"m": probabilities}, resampling=FEW)
    with pytest.raises(ValueError, match="at least one"):
        score_intervals(labels[:0], {"m": probabilities[:0]}, resampling=FEW)
    with pytest.raises(ValueError, match="same examples"):
        confusion_intervals(labels, (labels, labels[1:]), 3, FEW)
