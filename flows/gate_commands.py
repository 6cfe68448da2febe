"""The commands around the gate: its verdict as an exit code, the sealed images for a release, and the promotion."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kinglet.errors import KingletError
from tasks.parameters import load_parameters

REFUSED_EXIT = 1
STYLES = {"passed": "green", "failed": "bold red", "not judged": "dim"}


def gate(
    open_sealed: Annotated[
        bool, typer.Option("--open-sealed", help="For a release: score the accepted model on the sealed images too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")] = False,
) -> None:
    """Show the gate's verdict on the last run's model. Exit code 1 if it was refused."""
    # Imported when it is asked for: the other commands need neither onnxruntime nor the library.
    from tasks.verdict import ACCEPTED, read_verdict

    console = Console(stderr=True, highlight=False)
    parameters = load_parameters()
    verdict = read_verdict(parameters)
    accepted = verdict["verdict"] == ACCEPTED
    print_checks(verdict["checks"], console)
    console.print(verdict["paragraph"], soft_wrap=True, markup=False)
    if open_sealed and accepted:
        from tasks.open_sealed import open_sealed as look_at_sealed

        look, is_new = look_at_sealed(parameters)
        verdict["sealed"] = look
        accepted = look["passed"]
        print_look(look, is_new, console)
    elif open_sealed:
        console.print("The sealed images stay closed: they are for models that the gate accepted.", soft_wrap=True)
    if as_json:
        print(json.dumps(verdict, indent=2, sort_keys=True))
    if not accepted:
        raise typer.Exit(REFUSED_EXIT)


def obey(verdict: dict[str, Any] | None) -> None:
    """End with exit code 1 if the gate refused the model. verdict: of a run, None if no gate judged it.

    Raises KingletError without a verdict: no gate is no pass.
    """
    if verdict is None:
        raise KingletError("The gate has not judged this run.", "dvc.yaml needs the stage `gate` for --gate.")
    if verdict["verdict"] != "accepted":
        raise typer.Exit(REFUSED_EXIT)


def promote() -> None:
    """Put the bundle that the gate accepted into the champion's folder."""
    from tasks.verdict import promote as put

    folder = put(load_parameters())
    Console(stderr=True, highlight=False).print(
        f"promoted: {folder} holds the bundle. Commit it: the next run is held against it.", soft_wrap=True
    )


def print_checks(checks: list[dict[str, Any]], console: Console) -> None:
    """Print the checks as a table: outcome in words, not in colour alone."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for check in checks:
        style = STYLES[check["outcome"]]
        table.add_row(check["name"], Text(check["outcome"], style), Text(check["reason"]))
    console.print(table)


def print_look(look: dict[str, Any], is_new: bool, console: Console) -> None:
    """Print what was seen on the sealed images, and that it was written down."""
    console.print(f"\nOn {look['images']:,} sealed images, beside the {look['reference']}:", soft_wrap=True)
    print_checks(look["checks"], console)
    said = "passed" if look["passed"] else "refused"
    kept = (
        "The look is written down in data/sealed_looks.json: commit it."
        if is_new
        else "They were looked at for this bundle before; nothing new was seen."
    )
    console.print(f"Sealed images: {said}. {kept}", soft_wrap=True)
