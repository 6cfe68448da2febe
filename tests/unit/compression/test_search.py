"""The search: the best of a small space is found, the budget holds, and a kill changes nothing."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import optuna
import pytest

from kinglet.compression.candidates import Candidate
from kinglet.compression.latency import Latency
from kinglet.compression.search import Goal, Tried, search
from kinglet.errors import KingletError

WIDTHS, SIZES = (8, 16, 24, 32), (16, 24, 32)
NO_LIMIT = Goal(budget_ms=None, points_per_halving=0.01)


class Killed(BaseException):
    """What a kill looks like from inside: nothing catches it."""


def propose(trial: optuna.Trial) -> Candidate:
    size = trial.suggest_categorical("input_size", SIZES)
    return Candidate("residual", size, {"width": trial.suggest_categorical("width", WIDTHS), **FIXED})


FIXED = {"first_blocks": 1, "blocks": 1, "stages": 3}


def milliseconds(candidate: Candidate) -> float:
    return candidate.input_size**2 * candidate.choices["width"] / 1e5


def size_bytes(candidate: Candidate) -> int:
    return 10_000 * int(candidate.choices["width"])


def final_accuracy(candidate: Candidate) -> float:
    return 0.95 - 0.3 / candidate.choices["width"] - 1 / candidate.input_size


class Laboratory:
    """Candidates whose latency and accuracy are formulas; counts what was trained, and can be killed."""

    def __init__(self, killed_at: int | None = None) -> None:
        self.trained: list[tuple[Candidate, int]] = []
        self.killed_at = killed_at

    def measure(self, candidate: Candidate) -> Latency:
        value = milliseconds(candidate)
        return Latency(value, 0.95 * value, 1.05 * value, "fp32", size_bytes(candidate))

    def train(self, candidate: Candidate, rung: int) -> float:
        if self.killed_at == len(self.trained):
            raise Killed
        self.trained.append((candidate, rung))
        return final_accuracy(candidate) - 0.1 / 2**rung

    def search(self, journal: Path, goal: Goal = NO_LIMIT, n_trials: int = 24, **changes: object) -> list[Tried]:
        settings: dict = {"n_rungs": 3, "first": [], "seed": 0, **changes}
        return search(journal, propose, self.measure, self.train, goal=goal, n_trials=n_trials, **settings)


def best(found: list[Tried]) -> Tried:
    return max((one for one in found if one.is_finalist), key=lambda one: one.utility or -math.inf)


@pytest.mark.parametrize("budget_ms", [None, 0.05, 0.15])
def test_true_optimum_of_a_space_enumerated_in_full_is_found(tmp_path: Path, budget_ms: float | None) -> None:
    goal = Goal(budget_ms, points_per_halving=0.01)
    everything = [
        Candidate("residual", size, {"width": width, **FIXED}) for size, width in itertools.product(SIZES, WIDTHS)
    ]
    allowed = [one for one in everything if budget_ms is None or 1.05 * milliseconds(one) <= budget_ms]
    optimum = max(allowed, key=lambda one: goal.utility(final_accuracy(one), milliseconds(one)))
    assert best(Laboratory().search(tmp_path / "journal.log", goal, n_trials=40)).candidate == optimum


def test_candidate_over_the_budget_is_never_trained(tmp_path: Path) -> None:
    laboratory = Laboratory()
    found = laboratory.search(tmp_path / "journal.log", Goal(0.1, 0.01))
    slow = [one for one in found if one.latency and one.latency.high > 0.1]
    assert slow
    assert all("over the budget of 0.1 ms: not trained" in one.outcome and not one.accuracies for one in slow)
    assert all(1.05 * milliseconds(candidate) <= 0.1 for candidate, _ in laboratory.trained)


def test_candidate_whose_file_is_too_large_is_never_trained(tmp_path: Path) -> None:
    laboratory = Laboratory()
    found = laboratory.search(tmp_path / "journal.log", Goal(0.1, 0.01, budget_mb=0.16))
    large = [one for one in found if one.latency and one.latency.size_bytes > 160_000]
    assert any(one.outcome.startswith("up to ") and " MB, over the budget of 0.16 MB: " in one.outcome for one in large)
    assert any(one.outcome == "0.24 MB, over the budget of 0.16 MB: not trained" for one in large)
    assert laboratory.trained
    assert all(size_bytes(candidate) <= 160_000 for candidate, _ in laboratory.trained)


def test_only_what_is_within_the_budget_is_a_trial(tmp_path: Path) -> None:
    laboratory = Laboratory()
    found = laboratory.search(tmp_path / "journal.log", Goal(0.1, 0.01), n_trials=4)
    assert len({repr(candidate) for candidate, _ in laboratory.trained}) == 4
    assert len(found) > 4
    assert sum(bool(one.accuracies) for one in found) == 4


def test_a_budget_that_nothing_meets_ends_the_search(tmp_path: Path) -> None:
    laboratory = Laboratory()
    found = laboratory.search(tmp_path / "journal.log", Goal(0.001, 0.01), n_trials=4)
    assert len(found) == 20
    assert not laboratory.trained


def test_worse_half_goes_after_every_rung_and_the_outcome_says_so(tmp_path: Path) -> None:
    found = Laboratory().search(tmp_path / "journal.log")
    by_rungs = [sum(len(one.accuracies) > rung for one in found) for rung in range(3)]
    assert by_rungs[0] > by_rungs[1] > by_rungs[2] >= 1
    dropped = [one for one in found if len(one.accuracies) == 1 and not one.is_finalist]
    assert dropped
    assert {one.outcome for one in dropped} == {"dropped after rung 1 of 3"}
    assert {one.outcome for one in found if one.is_finalist} == {"finished all rungs"}


def test_same_choices_are_not_trained_twice(tmp_path: Path) -> None:
    laboratory = Laboratory()
    found = laboratory.search(tmp_path / "journal.log", n_trials=30)
    assert len(laboratory.trained) == len({(repr(candidate), rung) for candidate, rung in laboratory.trained})
    twins = [one for one in found if one.outcome.startswith("the same as trial ")]
    assert twins  # 30 trials, 12 candidates
    assert all(found[int(one.outcome.split()[-1])].candidate == one.candidate for one in twins)


def test_known_good_candidates_come_first(tmp_path: Path) -> None:
    first = [{"input_size": 32, "width": 24}, {"input_size": 16, "width": 32}]
    found = Laboratory().search(tmp_path / "journal.log", n_trials=4, first=first)
    assert [(one.candidate.input_size, one.candidate.choices["width"]) for one in found[:2]] == [(32, 24), (16, 32)]


@pytest.mark.parametrize("killed_at", [0, 1, 5, 9])
def test_killed_search_goes_on_and_ends_as_if_it_had_not_been(tmp_path: Path, killed_at: int) -> None:
    whole = Laboratory().search(tmp_path / "whole.log", n_trials=10)
    first_life = Laboratory(killed_at)
    with pytest.raises(Killed):
        first_life.search(tmp_path / "journal.log", n_trials=10)
    second_life = Laboratory()
    assert second_life.search(tmp_path / "journal.log", n_trials=10) == whole
    assert not set(map(repr, first_life.trained)) & set(map(repr, second_life.trained))


def test_candidate_whose_training_fails_is_recorded_and_the_search_goes_on(tmp_path: Path) -> None:
    laboratory = Laboratory()
    train = laboratory.train

    def diverge(candidate: Candidate, rung: int) -> float:
        if candidate.choices["width"] == 32:
            raise KingletError("The training diverged in epoch 1: the loss is nan.")
        return train(candidate, rung)

    laboratory.train = diverge  # type: ignore[method-assign]
    found = laboratory.search(tmp_path / "journal.log")
    failed = [one for one in found if one.candidate.choices["width"] == 32 and one.outcome.startswith("failed")]
    assert failed
    assert all("diverged" in one.outcome and not one.is_finalist for one in failed)
    assert best(found).candidate.choices["width"] != 32


def test_same_seed_proposes_the_same_and_another_seed_something_else(tmp_path: Path) -> None:
    one, same = (Laboratory().search(tmp_path / name, n_trials=6, seed=1) for name in ("a.log", "b.log"))
    other = Laboratory().search(tmp_path / "c.log", n_trials=6, seed=2)
    assert one == same
    assert [found.candidate for found in one] != [found.candidate for found in other]


def test_utility_without_a_budget_is_a_knee_in_points_per_halving() -> None:
    goal = Goal(None, points_per_halving=0.005)
    assert goal.utility(0.930, 0.1) == pytest.approx(goal.utility(0.935, 0.2))
    within_a_budget = Goal(1.0, points_per_halving=0.005)
    assert within_a_budget.utility(0.93, 0.1) == within_a_budget.utility(0.93, 0.9) == 0.93
