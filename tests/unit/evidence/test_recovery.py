"""The share that was won back: by hand, and beside a bootstrap image by image."""

from __future__ import annotations

import numpy as np
import pytest

from kinglet.evidence.recovery import recovered_share


def answers(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    clean = generator.random(n) < 0.92
    before = clean & (generator.random(n) < 0.7)
    return clean, before, before | (clean & (generator.random(n) < 0.6))


def test_by_hand() -> None:
    clean = np.ones(100, bool)
    before, after = np.arange(100) < 60, np.arange(100) < 90
    found = recovered_share(clean, before, after)
    assert found is not None
    assert found.value == pytest.approx(30 / 40)
    assert found.low < 0.75 < found.high


def test_an_adaptation_that_harms_has_a_negative_share_and_one_that_changes_nothing_none() -> None:
    clean, before = np.ones(100, bool), np.arange(100) < 60
    worse, same = (recovered_share(clean, before, after) for after in (np.arange(100) < 50, before))
    assert worse is not None
    assert same is not None
    assert worse.value == pytest.approx(-0.25)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_a_change_that_costs_nothing_has_no_share() -> None:
    clean = np.arange(100) < 90
    assert recovered_share(clean, clean, clean) is None
    assert recovered_share(clean, np.arange(100) < 89, clean) is None


def test_interval_is_that_of_resampling_image_by_image() -> None:
    clean, before, after = answers(400)
    generator = np.random.default_rng(1)
    drawn = []
    for _ in range(4000):
        rows = generator.integers(0, 400, 400)
        drawn.append((after[rows].mean() - before[rows].mean()) / (clean[rows].mean() - before[rows].mean()))
    found = recovered_share(clean, before, after)
    assert found is not None
    assert [found.low, found.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.015)


def test_strata_keep_the_class_mix() -> None:
    clean, before, after = answers(400)
    strata = np.arange(400) % 4
    found, plain = recovered_share(clean, before, after, strata=strata), recovered_share(clean, before, after)
    assert found is not None
    assert plain is not None
    assert found.value == pytest.approx(plain.value)


@pytest.mark.parametrize("n", [0, 3])
def test_wrong_lengths_are_refused(n: int) -> None:
    with pytest.raises(ValueError):
        recovered_share(np.ones(n, bool), np.ones(n, bool), np.ones(2, bool))
