"""What a comment says of any run, within GitHub's limit, whatever classes, models and branches are called."""

from __future__ import annotations

from typing import Any

import pytest
from markdown_it import MarkdownIt

from tasks.pull_request_comment import MAX_CHARACTERS, Comparison, comment, plain
from tests.unit.tasks.small_runs import CHECKS, answers_of, run_of


def said(**changes: Any) -> str:
    now = changes.pop("now", run_of())
    usual = {
        "now": now,
        "verdict": {
            "verdict": "refused",
            "paragraph": "Refused: it must not replace the champion.",
            "challenger": {"model": "student-int8"},
            "checks": CHECKS,
        },
        "answers": answers_of(now),
        "against": "main",
        "before": run_of(right=176),
        "metrics": {},
        "params": {},
        "confidence": 0.95,
        "seed": 0,
    }
    return comment(Comparison(**{**usual, **changes}))


def tables(text: str) -> list[list[list[str]]]:
    """Return the cells of every table, as a reader sees them."""
    found: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found:
            words = [child.content for child in token.children or []]
            if found[-1] and token.level > 3:
                found[-1][-1].append("".join(words))
    return found


def test_clips_are_called_so_and_generated_ones_too() -> None:
    verdict = {"verdict": "accepted", "paragraph": "Yes.", "challenger": {"model": "student-int8"}, "checks": CHECKS}
    assert "Test accuracy on 200 images, with" in said()
    assert "Test accuracy on 200 generated test clips, with" in said(
        verdict={**verdict, "shown": "generated test clips"}
    )


def test_the_verdict_comes_first_with_every_check() -> None:
    text = said()
    assert text.splitlines()[2] == "## Refused: student-int8"
    checks = tables(text)[0]
    assert [row[:2] for row in checks[1:]] == [
        ["accuracy", "passed"],
        ["every class", "failed"],
        ["memory", "not judged"],
    ]


def test_the_way_leads_from_the_teacher_to_the_chosen_model_with_the_other_revision_beside() -> None:
    header, *rows = tables(said())[1]
    assert header[:6] == ["model", "how made", "accuracy, %", "to the one before", "p50 ms", "MB"]
    assert header[6:] == ["main: accuracy, %", "p50 ms", "MB"]
    assert [row[0] for row in rows] == ["teacher", "student", "student-int8"]
    teacher, student, chosen = rows
    assert teacher[2] == "95.00 (93.00\u201397.00)"
    assert teacher[3] == ""
    assert student[3].startswith("\u22123.00 (")
    assert student[3].endswith("latency \u00d70.20, size \u00d70.06")
    assert chosen[2:3] + chosen[4:] == [
        "90.00 (88.00\u201392.00)",
        "0.060",
        "0.25",
        "88.00 (86.00\u201390.00)",
        "0.060",
        "0.25",
    ]


def test_models_that_only_one_revision_has_show_dashes_for_the_other() -> None:
    before = run_of(chosen="student-pruned")
    for found in (before.scores, before.latency):
        del found["models"]["student-int8"]
    rows = tables(said(before=before))[1][1:]
    assert [row[0] for row in rows] == ["teacher", "student", "student-int8", "student-pruned"]
    assert rows[2][6:] == ["\u2014"] * 3
    assert rows[3][2:6] == ["\u2014"] * 4
    assert rows[3][6].startswith("75.00")


def test_a_model_that_only_this_way_passes_is_still_compared() -> None:
    rows = tables(said(before=run_of(chosen="student-pruned", right=176)))[1][1:]
    assert rows[2][0] == "student-int8"
    assert rows[2][6].startswith("88.00")


def test_a_branch_may_have_any_name() -> None:
    changes = {"params.yaml": {"a": {"old": 1, "new": 2, "diff": 1}}}
    text = said(against="a_b<c", params=changes)
    assert "<summary>Settings changed since a_b&lt;c: 1</summary>" in text
    assert "Metrics changed since a\\_b&lt;c: none." in text
    assert tables(text)[1][0][6] == "a_b<c: accuracy, %"


def test_a_first_run_says_that_there_is_nothing_to_compare_with() -> None:
    text = said(before=None)
    assert "main holds no run yet" in text
    assert len(tables(text)[1][0]) == 6
    # All would be new.
    assert "Metrics changed" not in text


def test_latencies_of_another_machine_are_said_to_be_no_comparison() -> None:
    assert "another machine (Xeon)" in said(before=run_of(cpu="Xeon"))
    assert "another machine" not in said()


def test_the_teacher_itself_may_be_the_choice() -> None:
    rows = tables(said(now=run_of(chosen="teacher")))[1][1:]
    assert rows[0][0] == "teacher"
    assert rows[0][3] == ""


def test_numbers_that_changed_come_first_with_the_ends_of_intervals_last() -> None:
    metrics = {
        "artifacts/plan/plan.json": {"n": {"old": 10, "new": 12, "diff": 2}},
        "artifacts/evaluate/scores.json": {
            "student.accuracy.low": {"old": 0.9, "new": 0.8, "diff": -0.1},
            "student.accuracy.value": {"old": 0.912345678, "new": 0.9, "diff": -0.012345678},
        },
        "artifacts/gate/verdict.json": {"verdict": {"old": None, "new": "accepted"}},
    }
    header, *rows = tables(said(metrics=metrics))[2]
    assert header == ["name", "before", "now", "change"]
    assert rows == [
        ["evaluate/scores.json student.accuracy.value", "0.91235", "0.9", "-0.012346"],
        ["plan/plan.json n", "10", "12", "+2"],
        ["gate/verdict.json verdict", "\u2014", "accepted", ""],
        ["evaluate/scores.json student.accuracy.low", "0.9", "0.8", "-0.1"],
    ]


def test_nothing_changed_is_said_in_so_many_words() -> None:
    text = said()
    assert "Settings changed since main: none." in text
    assert "Metrics changed since main: none." in text


@pytest.mark.parametrize("length", [10, 3_000])
def test_however_much_changed_github_takes_it(length: int) -> None:
    changes = {"params.yaml": {f"{number}{'|' * length}": {"old": "x" * length, "new": 1} for number in range(500)}}
    checks = [{**check, "reason": "<" * 20_000} for check in CHECKS]
    verdict = {"verdict": "refused", "paragraph": "@" * 90_000, "challenger": {"model": "m"}, "checks": checks}
    text = said(metrics=changes, params=changes, verdict=verdict)
    assert len(text) <= MAX_CHARACTERS
    assert "Settings changed since main: 500" in text
    assert "more: `dvc metrics diff main`" in text
    assert text.count("<details>") == text.count("</details>") == 3


def test_names_are_no_markup_and_call_nobody() -> None:
    text = said()
    assert "<img>" not in text
    assert "@team" not in text
    assert tables(text)[0][2][2] == "a|b <img> @\u200bteam is at 20 %."
    assert plain("two\nlines") == "two lines"
