import numpy as np
import pytest
import scipy.stats

from kinglet.evidence.mcnemar import disagreement, holm, mcnemar_p


# The tables and p-values of statsmodels' own tests, from the computing page of Vassar College.
@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (121, 59, 0.000004),
        (70, 59, 0.378688),
        (80, 59, 0.089452),
        (30, 60, 0.00206),
        (10, 30, 0.002221),
        (10, 10, 1.0),
    ],
)
def test_the_exact_test_gives_the_published_p_values(only_first, only_second, p):
    assert mcnemar_p(only_first, only_second) == pytest.approx(p, abs=1e-6)
    assert mcnemar_p(only_second, only_first) == pytest.approx(p, abs=1e-6)


def test_the_exact_test_is_the_sign_test_on_pairs_that_differ():
    for first, second in [(0, 1), (0, 5), (3, 9), (17, 4)]:
        tail = scipy.stats.binom.cdf(min(first, second), first + second, 0.5)
        assert mcnemar_p(first, second) == pytest.approx(min(1, 2 * tail), rel=1e-9)


def test_models_that_never_disagree_are_not_told_apart():
    assert mcnemar_p(0, 0) == 1
    with pytest.raises(ValueError, match="negative"):
        mcnemar_p(-1, 3)


def test_the_test_errs_no_more_often_than_it_says():
    generator = np.random.default_rng(0)
    pairs = generator.binomial(60, 0.5, size=2000)
    assert np.mean([mcnemar_p(int(first), 60 - int(first)) <= 0.05 for first in pairs]) <= 0.05


def test_disagreement_counts_who_is_right_alone():
    first, second = np.array([1, 1, 1, 0, 0, 1], bool), np.array([1, 0, 0, 1, 0, 1], bool)
    counts = disagreement(first, second)
    assert (counts.n, counts.only_first, counts.only_second) == (6, 2, 1)
    assert counts.difference == pytest.approx(first.mean() - second.mean())
    assert counts.share == pytest.approx(0.5)
    with pytest.raises(ValueError, match="same examples"):
        disagreement(first, second[1:])
    assert disagreement(first[:0], second[:0]).share == 0


def test_holm_on_a_worked_example():
    # Four tests, corrected by hand: 4 x 0.005, 3 x 0.01, 2 x 0.03 and, never below the one before, 0.04.
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.9])).tolist() == [1, 1]
    assert holm(np.array([])).tolist() == []


def test_holm_keeps_any_false_alarm_as_rare_as_one():
    p_values = np.random.default_rng(1).random((3000, 20))
    alarms = [(holm(row) <= 0.05).any() for row in p_values]
    assert 0.035 < np.mean(alarms) < 0.062
