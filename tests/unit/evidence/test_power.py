import numpy as np
import pytest

from kinglet.evidence.mcnemar import Disagreement
from kinglet.evidence.non_inferiority import NOT_WORSE, score_interval, verdict
from kinglet.evidence.power import fewest_images, images_for_margin, power_to_prove, provable_margin


def test_the_known_figures():
    assert images_for_margin(0.005, 0.02) == pytest.approx(247_000 * 0.02, rel=0.002)
    assert provable_margin(420, 0.04) == pytest.approx(0.024, abs=0.0005)


@pytest.mark.parametrize("disagreement", [0.02, 0.05, 0.2])
def test_margin_images_and_power_say_the_same(disagreement):
    for n in (500, 4000, 60_000):
        margin = provable_margin(n, disagreement)
        assert images_for_margin(margin, disagreement) == pytest.approx(n, abs=1)
        assert power_to_prove(n, margin, disagreement) == pytest.approx(0.8, abs=0.001)


@pytest.mark.parametrize(
    ("n", "disagreement", "difference"), [(1500, 0.06, 0.0), (6000, 0.03, 0.0), (4000, 0.05, -0.004)]
)
def test_the_planned_margin_is_proved_as_often_as_promised(n, disagreement, difference):
    margin = provable_margin(n, disagreement) if difference == 0 else 0.014
    promised = power_to_prove(n, margin, disagreement, difference=difference)
    shares = [(disagreement + difference) / 2, (disagreement - difference) / 2, 1 - disagreement]
    drawn = np.random.default_rng(n).multinomial(n, shares, size=1500)
    proved = np.mean(
        [score_interval(Disagreement(n, *map(int, row[:2])), confidence=0.9).low >= -margin for row in drawn]
    )
    assert proved == pytest.approx(promised, abs=0.035)


def test_models_that_never_disagree_still_need_images():
    needed = fewest_images(0.01)
    right = np.ones(needed, bool)
    assert images_for_margin(0.01, 0.0) == needed
    assert verdict(right, right, 0.01).verdict == NOT_WORSE
    assert verdict(right[:-2], right[:-2], 0.01).verdict != NOT_WORSE
    assert provable_margin(needed, 0.0) <= 0.01 < provable_margin(needed - 2, 0.0)
    assert power_to_prove(needed - 2, 0.01, 0.001) == 0


def test_a_worse_model_needs_more_images_and_a_tiny_test_set_proves_little():
    assert images_for_margin(0.01, 0.04, difference=-0.005) > 3 * images_for_margin(0.01, 0.04)
    assert 0.1 < provable_margin(20, 0.04) < 0.15
    assert provable_margin(1, 1.0) == 1


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: images_for_margin(0.0, 0.1), "margin"),
        (lambda: images_for_margin(0.01, 1.1), "disagreement"),
        (lambda: images_for_margin(0.01, 0.1, difference=-0.01), "no number"),
        (lambda: images_for_margin(0.05, 0.01, difference=0.02), "at least as many"),
        (lambda: images_for_margin(0.05, 0.01, power=1.0), "power"),
        (lambda: provable_margin(0, 0.1), "n_images"),
    ],
)
def test_wrong_inputs_are_refused(call, word):
    with pytest.raises(ValueError, match=word):
        call()
