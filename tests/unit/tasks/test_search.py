"""What the step `search` makes of the candidates: families, survivors, the table of everything tried."""

from __future__ import annotations

import csv

import pytest

from kinglet.compression.candidates import Candidate
from kinglet.compression.latency import Latency
from kinglet.compression.search import Goal, Tried
from kinglet.errors import KingletError
from tasks.parameters import Parameters
from tasks.search import OverBudgetError, families_of, survivors_beside, survivors_of, trials_csv

CHOICES = {"width": 16, "first_blocks": 1, "blocks": 2, "stages": 3}


def one(
    number: int,
    latency: float | None,
    accuracies: tuple[float, ...],
    utility: float | None,
    outcome: str,
    size_bytes: int = 500_000,
) -> Tried:
    measured = Latency(latency, 0.9 * latency, 1.1 * latency, "int8", size_bytes) if latency else None
    candidate = Candidate("residual", 28, {**CHOICES, "width": 8 + number})
    return Tried(number, candidate, measured, accuracies, utility, outcome)


NO_LIMIT = Goal(None, 0.01)
FOUND = [
    one(0, 0.1, (0.8, 0.85), 0.9, "finished all rungs"),
    one(1, 0.2, (0.7,), None, "dropped after rung 1 of 2"),
    one(2, None, (), None, "the same as trial 0"),
    one(3, 0.3, (0.82, 0.9), 0.95, "finished all rungs"),
]


@pytest.mark.parametrize(
    ("families", "n_training", "expected"),
    [
        ("auto", 54_000, []),
        ("auto", 1_800, ["backbone"]),
        (["backbone", "residual"], 54_000, ["backbone", "residual"]),
    ],
)
def test_few_images_are_no_school_for_random_weights(
    families: str | list[str], n_training: int, expected: list[str]
) -> None:
    assert families_of(families, n_training) == expected


def test_survivors_are_the_finalists_of_highest_utility() -> None:
    assert [survivor.number for survivor in survivors_of(FOUND, 1, NO_LIMIT)] == [3]
    assert [survivor.number for survivor in survivors_of(FOUND, 5, NO_LIMIT)] == [3, 0]


def test_budget_that_nothing_meets_names_the_three_nearest() -> None:
    slow = [one(number, latency, (), None, "over the budget") for number, latency in enumerate((0.9, 0.5, 0.7, 0.6))]
    with pytest.raises(KingletError) as refused:
        survivors_of(slow, 1, Goal(0.2, 0.01))
    message = str(refused.value)
    assert "no candidate is within select.latency_ms = 0.2" in message
    assert "0.55 ms" in message
    assert "0.66 ms" in message
    assert "0.77 ms" in message
    assert "0.99 ms" not in message


def test_budget_of_size_that_nothing_meets_names_the_three_nearest() -> None:
    sizes = (9_000_000, 2_500_000, 4_000_000, 3_000_000)
    large = [one(number, 0.1, (), None, "over the budget", size) for number, size in enumerate(sizes)]
    with pytest.raises(OverBudgetError) as refused:
        survivors_of(large, 1, Goal(0.2, 0.01, 2.0))
    message = str(refused.value)
    assert "no candidate is within select.latency_ms = 0.2 and select.size_mb = 2. Nearest: " in message
    assert message.index("2.5 MB") < message.index("3 MB") < message.index("4 MB")
    assert "9 MB" not in message
    assert refused.value.hint.startswith("Raise select.latency_ms or select.size_mb, or search.trials")


def test_students_of_the_settings_go_on_where_the_budget_leaves_no_candidate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    slow, student = [one(0, 0.9, (), None, "over the budget")], {"stages": [{"width": 8, "stride": 2}]}
    sections = {
        "data": {"source": "photos", "images": "photos"},
        "finetune": {"backbone": "mobilenet-v2"},
        "search": {"survivors": 1},
        "select": {"latency_ms": 0.2},
    }
    alone = Parameters.model_validate(sections)
    with pytest.raises(OverBudgetError):
        survivors_beside(alone, slow)
    beside = Parameters.model_validate({**sections, "distill": {"students": {"tiny": student}}})
    assert survivors_beside(beside, slow) == []
    said = capsys.readouterr().err
    assert said.startswith("warning: search: no candidate is within select.latency_ms = 0.2. Nearest: ")
    assert said.endswith("Without it go on: tiny.\n")


def test_search_in_which_every_training_failed_says_so() -> None:
    failed = [one(0, 0.1, (), None, "failed: the loss is nan.")]
    with pytest.raises(KingletError, match=r"no candidate could be trained .*the loss is nan"):
        survivors_of(failed, 1, NO_LIMIT)


def test_table_holds_everything_tried_with_intervals() -> None:
    rows = list(csv.DictReader(trials_csv(FOUND, survivors_of(FOUND, 1, NO_LIMIT), 6000).splitlines()))
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["survivor"] for row in rows] == ["", "", "", "student-1"]
    assert [row["rungs"] for row in rows] == ["2", "1", "0", "2"]
    last = rows[3]
    assert float(last["accuracy_low"]) < float(last["accuracy"]) == 0.9 < float(last["accuracy_high"])
    assert float(last["size_mb"]) == 0.5
    assert float(last["latency_low_ms"]) < float(last["latency_ms"]) < float(last["latency_high_ms"])
    assert rows[2]["latency_ms"] == rows[2]["accuracy"] == ""
    assert rows[1]["outcome"] == "dropped after rung 1 of 2"
