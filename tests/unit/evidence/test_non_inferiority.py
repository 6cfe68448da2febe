import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from kinglet.evidence.bootstrap import Interval, paired_interval
from kinglet.evidence.mcnemar import Disagreement
from kinglet.evidence.non_inferiority import NOT_ESTABLISHED, NOT_WORSE, WORSE, score_interval, score_statistic, verdict


def answers(n, only_first, only_second):
    """Right answers of two models to n images, of which so many only one has right."""
    first, second = np.ones(n, bool), np.ones(n, bool)
    second[:only_first] = False
    first[only_first : only_first + only_second] = False
    return first, second


@pytest.mark.parametrize(
    ("n", "only_model", "only_reference", "word"),
    [
        (10_000, 200, 205, NOT_WORSE),
        (10_000, 200, 500, WORSE),
        (400, 8, 9, NOT_ESTABLISHED),
        (20, 0, 0, NOT_ESTABLISHED),
        (20, 1, 0, NOT_ESTABLISHED),
        (20, 20, 0, NOT_WORSE),
        (1, 0, 1, NOT_ESTABLISHED),
    ],
)
def test_verdicts(n, only_model, only_reference, word):
    found = verdict(*answers(n, only_model, only_reference), 0.01)
    assert found.verdict == word
    assert (found.images_needed is not None) == (word == NOT_ESTABLISHED)
    assert found.images_needed is None or found.images_needed > n


def test_the_images_that_it_asks_for_settle_it():
    found = verdict(*answers(400, 8, 9), 0.01)
    assert found.would_show == NOT_WORSE
    times = found.images_needed / 400
    # Asked for with a power of 80 %, so that the same shares settle it with room to spare.
    assert verdict(*answers(round(400 * times), round(8 * times), round(9 * times)), 0.01).verdict == NOT_WORSE

    beyond = verdict(*answers(400, 8, 16), 0.01)
    assert (beyond.verdict, beyond.would_show) == (NOT_ESTABLISHED, WORSE)
    times = beyond.images_needed / 400
    assert verdict(*answers(round(400 * times), round(8 * times), round(16 * times)), 0.01).verdict == WORSE


def test_a_difference_that_is_the_margin_itself_is_never_settled():
    found = verdict(*answers(400, 6, 10), 0.01)
    assert (found.verdict, found.images_needed, found.would_show) == (NOT_ESTABLISHED, None, None)


def test_a_model_and_itself_do_not_differ():
    right = np.random.default_rng(0).random(30) < 0.9
    found = verdict(right, right, 0.0, same_model=True)
    assert (found.verdict, found.difference) == (NOT_WORSE, Interval(0.0, 0.0, 0.0))
    # Other models that happen to agree on 30 images may still differ.
    assert verdict(right, right, 0.01).verdict == NOT_ESTABLISHED


def test_a_worse_model_passes_no_more_often_than_the_confidence_allows():
    generator = np.random.default_rng(1)
    # In truth exactly a margin of 2 points worse.
    drawn = generator.multinomial(900, [0.03, 0.05, 0.92], size=1500)
    passed = np.mean(
        [score_interval(Disagreement(900, *map(int, row[:2])), confidence=0.9).low >= -0.02 for row in drawn]
    )
    assert 0.035 < passed < 0.062


def test_score_intervals_cover_as_often_as_they_say_on_few_images():
    drawn = np.random.default_rng(2).multinomial(150, [0.05, 0.03, 0.92], size=1500)
    found = [score_interval(Disagreement(150, *map(int, row[:2]))) for row in drawn]
    assert 0.93 <= np.mean([item.low <= 0.02 <= item.high for item in found]) <= 0.97


def test_score_interval_agrees_with_the_bootstrap_where_images_are_many():
    first, second = answers(10_000, 180, 240)
    own, drawn = score_interval(Disagreement(10_000, 180, 240)), paired_interval(first, second)
    assert own.value == drawn.value
    assert (own.low, own.high) == pytest.approx((drawn.low, drawn.high), abs=3e-4)


@pytest.mark.parametrize("counts", [Disagreement(44, 0, 1), Disagreement(60, 7, 2), Disagreement(500, 20, 31)])
@pytest.mark.parametrize("difference", [-0.2, -0.03, 0.1])
def test_the_statistic_uses_the_likeliest_share_under_the_difference(counts, difference):
    n, first, second = counts.n, counts.only_first, counts.only_second

    def surprise(share):
        rest = 1 - 2 * share - difference
        return -(first * np.log(share + difference) + second * np.log(share) + (n - first - second) * np.log(rest))

    low, high = max(0, -difference), (1 - difference) / 2
    share = minimize_scalar(surprise, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    expected = (first - second - n * difference) / np.sqrt(n * (2 * share + difference * (1 - difference)))
    assert score_statistic(counts, difference) == pytest.approx(expected, rel=1e-5)


def test_the_ends_of_the_interval_are_where_the_statistic_is_critical():
    counts = Disagreement(120, 9, 4)
    found = score_interval(counts, confidence=0.9)
    assert score_statistic(counts, found.low) == pytest.approx(norm.ppf(0.95), abs=1e-6)
    assert score_statistic(counts, found.high) == pytest.approx(-norm.ppf(0.95), abs=1e-6)


def test_wrong_inputs_are_refused():
    right = np.ones(5, bool)
    with pytest.raises(ValueError, match="margin"):
        verdict(right, right, -0.1)
    with pytest.raises(ValueError, match="same examples"):
        verdict(right, right[1:], 0.1)
    with pytest.raises(ValueError, match="at least one"):
        verdict(right[:0], right[:0], 0.1)
