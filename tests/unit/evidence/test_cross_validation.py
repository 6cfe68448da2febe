"""The corrected resampled t interval, beside figures that were worked out without it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kinglet.evidence.cross_validation import corrected_resampled_interval


def test_a_worked_example():
    # Five folds: mean 0.86, variance 0.00025, (1/5 + 1/4) of it 0.0001125, its root 0.010606602; the table's t
    # for 4 degrees of freedom and 95 % is 2.776445105.
    found = corrected_resampled_interval(np.array([0.85, 0.87, 0.84, 0.88, 0.86]), 1 / 4)
    assert found.interval.value == pytest.approx(0.86, abs=1e-12)
    assert found.deviation == pytest.approx(0.0158113883, abs=1e-9)
    assert found.interval.low == pytest.approx(0.8305513529, abs=1e-8)
    assert found.interval.high == pytest.approx(0.8894486471, abs=1e-8)


@pytest.mark.parametrize(("n_folds", "n_repeats", "confidence"), [(3, 1, 0.95), (10, 10, 0.95), (5, 2, 0.9)])
def test_it_is_what_the_corrected_t_test_does_not_reject(n_folds, n_repeats, confidence):
    scores = np.random.default_rng(n_folds).normal(0.8, 0.03, n_folds * n_repeats)
    found = corrected_resampled_interval(scores, 1 / (n_folds - 1), confidence=confidence).interval
    n = len(scores)
    # As the example "statistical comparison of models" of scikit-learn's documentation computes the statistic.
    corrected = np.sqrt(np.var(scores, ddof=1) * (1 / n + 1 / (n_folds - 1)))
    for end in (found.low, found.high):
        p = 2 * stats.t.sf(abs(np.mean(scores) - end) / corrected, n - 1)
        assert p == pytest.approx(1 - confidence, abs=1e-9)
    plain = stats.t.interval(confidence, n - 1, np.mean(scores), stats.sem(scores))
    assert found.low < plain[0] < plain[1] < found.high


def test_equal_scores_have_an_interval_without_width():
    found = corrected_resampled_interval(np.full(3, 0.9), 0.5)
    assert found.interval.low == pytest.approx(0.9)
    assert found.deviation == pytest.approx(0)


@pytest.mark.parametrize(("scores", "ratio"), [([0.9], 0.5), ([0.9, 0.8], 0.0)])
def test_what_gives_no_interval_is_refused(scores, ratio):
    with pytest.raises(ValueError, match="two runs or more"):
        corrected_resampled_interval(np.array(scores), ratio)
