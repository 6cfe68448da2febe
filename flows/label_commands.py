"""The `kinglet labels` commands: what a person decides about labels that are probably wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tasks.parameters import load_parameters

labels = typer.Typer(help="Look at labels that are probably wrong, and correct them.", no_args_is_help=True)


@labels.callback()
def labels_of_a_run() -> None:
    """Look at labels that are probably wrong, and correct them."""


@labels.command()
def review(
    into: Annotated[
        Path | None,
        typer.Option("--into", help="The file to write; data.label_corrections of params.yaml if left out."),
    ] = None,
) -> None:
    """Write the last run's suspicious labels as a CSV file to decide on: keep, relabel or drop.

    Decisions that stand in the file already stay.
    """
    # Here, as it needs what reads and decodes images, which no other command waits for.
    from tasks.label_review import review as write_review

    outcome = write_review(load_parameters(), into)
    print(outcome.path)
    print(
        f"{outcome.open} to decide, {outcome.decided} decided. Write keep, relabel (to new_label, which may be edited) "
        "or drop into the column decision; the next run follows it.",
        file=sys.stderr,
    )
