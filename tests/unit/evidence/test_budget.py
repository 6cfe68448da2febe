from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.budget import Budget, Candidate, choose, front_of, misses, nearest_misses
from kinglet.evidence.pareto import pareto_front

ANY = Budget(latency_ms=None, size_mb=None, max_accuracy_drop=0.01)


def candidate(name, latency, size, drop, spread=0.001):
    return Candidate(
        name=name,
        latency_ms=Interval(latency, latency - spread, latency + spread),
        size_mb=size,
        accuracy=0.94 - drop,
        difference=Interval(-drop, -drop - 0.003, -drop + 0.003),
    )


TEACHER = candidate("teacher", 1.6, 13.6, 0)
STUDENT = candidate("student", 0.09, 0.5, 0.008)
TINY = candidate("tiny", 0.05, 0.1, 0.02)


@pytest.mark.parametrize(
    ("candidates", "budget", "expected"),
    [
        ([TEACHER, STUDENT, TINY], ANY, "student"),  # tiny loses too much
        ([TEACHER, STUDENT, TINY], Budget(None, None, 0.02), "tiny"),  # exactly at the limit is within it
        ([TEACHER, TINY], ANY, "teacher"),  # the teacher is a candidate too
        ([TEACHER, STUDENT, candidate("int8", 0.0905, 0.2, 0.009)], ANY, "int8"),  # as fast, and smaller
        ([TEACHER, STUDENT, candidate("int8", 0.095, 0.2, 0.009)], ANY, "student"),  # slower
        ([STUDENT, candidate("twin", 0.0905, 0.5, 0.001)], ANY, "twin"),  # as fast, as small, more accurate
    ],
)
def test_the_fastest_within_the_budget_is_chosen(candidates, budget, expected):
    choice = choose(candidates, budget)
    assert choice is not None
    assert choice.chosen.name == expected
    assert choice.reason.startswith(expected)
    assert choice.reason.endswith(".")


LUCKY = replace(TINY, accuracy=0.97, difference=Interval(0.03, -0.06, 0.23))


def test_a_model_in_too_much_doubt_is_left_out_and_what_it_beats_is_not():
    assert choose([TEACHER, STUDENT, LUCKY], ANY).chosen == LUCKY
    in_doubt = replace(ANY, max_doubt=0.08)
    choice = choose([TEACHER, STUDENT, LUCKY], in_doubt)
    assert choice.chosen == STUDENT
    assert "of the 2 models within the budget (of 3)" in choice.reason
    assert choose([TEACHER, LUCKY], replace(ANY, max_doubt=0.09)).chosen == LUCKY  # exactly at the limit
    assert nearest_misses([LUCKY], in_doubt) == [
        "tiny (+3.00 points to the teacher, but perhaps -6.00: too few validation images to tell)"
    ]
    # No doubt at all is left of a model that answers as the teacher does.
    sure = replace(TEACHER, difference=Interval(0.0, 0.0, 0.0))
    assert choose([sure, STUDENT], replace(ANY, max_doubt=0.0)).chosen == sure


def test_nothing_fits_and_the_nearest_misses_are_named():
    budget = Budget(latency_ms=0.08, size_mb=0.4, max_accuracy_drop=0.01)
    candidates = [TEACHER, STUDENT, TINY, candidate("slow", 9, 50, 0.3)]
    assert choose(candidates, budget) is None
    assert nearest_misses(candidates, budget) == [
        "student (0.09 ms, 0.01 ms too slow, 0.5 MB, 0.1 MB too big)",
        "tiny (2.00 points below the teacher, 1.00 points too many)",
        "teacher (1.6 ms, 1.5 ms too slow, 13.6 MB, 13 MB too big)",
    ]


def test_a_candidate_within_all_limits_misses_none():
    assert misses(STUDENT, Budget(0.09, 0.5, 0.008)) == {}


def test_front_leaves_out_what_another_model_beats():
    assert front_of([TEACHER, STUDENT, candidate("worse", 0.1, 0.6, 0.009)]) == ["student", "teacher"]


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=12))
def test_front_agrees_with_a_loop_over_pairs(rows):
    def dominated(row):
        return any(other != row and all(a <= b for a, b in zip(other, row, strict=True)) for other in rows)

    assert pareto_front(np.array(rows)).tolist() == [not dominated(row) for row in rows]
