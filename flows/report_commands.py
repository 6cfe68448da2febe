"""The command around the report: where it lies, and what of it goes under a pull request."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.results import REPORT_PAGE
from kinglet.errors import KingletError
from tasks.parameters import load_parameters

MAIN = "main"


def report(
    comment: Annotated[
        bool, typer.Option("--comment", help="Print what the last run found as Markdown, for a pull request.")
    ] = False,
    against: Annotated[
        str, typer.Option("--against", help="With --comment: the revision to compare with, e.g. origin/main.")
    ] = MAIN,
) -> None:
    """Print the path of the last run's report, or a comment for a pull request."""
    if comment:
        print(comment_against(against), end="")
        return
    if not REPORT_PAGE.exists():
        raise KingletError(f"{REPORT_PAGE} does not exist.", "Run `make run` first: its last step writes the report.")
    print(REPORT_PAGE)


def comment_against(revision: str) -> str:
    """Return the comment on the last run, compared with a revision.

    Raises KingletError if there is no such revision, if what it found cannot be had, or if the last run's verdict
    is missing or out of date.
    """
    # Imported when it is asked for: the path alone needs neither DVC nor the evidence.
    from flows.revisions import changes_since, check_revision, holds_run, read_at
    from tasks.pull_request_comment import SOURCES, Comparison, Run, comment, read_run
    from tasks.report import read_test_answers
    from tasks.verdict import read_verdict

    parameters = load_parameters()
    verdict = read_verdict(parameters)
    check_revision(revision)
    before = Run(*read_at(revision, SOURCES.values())) if holds_run(revision) else None
    metrics, params = changes_since(revision)
    return comment(
        Comparison(
            now=read_run(),
            verdict=verdict,
            answers=read_test_answers(),
            against=revision,
            before=before,
            metrics=metrics,
            params=params,
            confidence=parameters.evaluate.confidence,
            seed=parameters.seed,
        )
    )
