"""The `kinglet monitor` commands: has what servers see drifted, and how right is the model in use."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.server import API_URL
from tasks.monitor_page import shown_p
from tasks.parameters import load_parameters

FOUND_EXIT = 1
STYLES = {"moved": "bold red", "moved little": "yellow", "not moved": "green", "not enough images": "dim"}
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]

monitor = typer.Typer(help="Compare what servers saw with what their models were made with.")


@monitor.callback(invoke_without_command=True)
def check(context: typer.Context, as_json: AsJson = False) -> None:
    """Check what servers saw since the last check. Exit code 1 if it drifted.

    Where PREFECT_API_URL names a server, it is sent an event for every model that drifted.
    """
    if context.invoked_subcommand is not None:
        return
    # Imported when it is asked for: the other commands need no statistics.
    from tasks.monitor import PAGE, remember
    from tasks.monitor import check as compare

    console = Console(stderr=True, highlight=False)
    result = compare(load_parameters())
    for model in result["models"]:
        print_model(model, console)
    if not result["models"]:
        console.print(f"Nothing new in {result['sketches']} since the last check.", soft_wrap=True)
    if result["drift"]:
        tell_prefect(result, console)
    remember(result)
    console.print(f"page: {PAGE}", soft_wrap=True)
    if as_json:
        print(json.dumps(result, indent=2, sort_keys=True))
    if result["drift"]:
        raise typer.Exit(FOUND_EXIT)


@monitor.command()
def labels(
    file: Annotated[Path, typer.Argument(help="CSV file with the columns id (X-Request-Id of the answer) and label.")],
    as_json: AsJson = False,
) -> None:
    """Say how right the model was in use, from labels that came later. Exit code 1 if below its test accuracy."""
    from kinglet.evidence.live_accuracy import BELOW
    from tasks.live_labels import accuracy_in_use

    console = Console(stderr=True, highlight=False)
    result = accuracy_in_use(file, load_parameters())
    for model in result["models"]:
        console.print(accuracy_sentence(model), soft_wrap=True, markup=False)
    if result["without_answer"] or result["ambiguous"]:
        console.print(
            f"{result['without_answer']:,} labels belong to no kept answer, {result['ambiguous']:,} to more than one.",
            soft_wrap=True,
        )
    if as_json:
        print(json.dumps(result, indent=2, sort_keys=True))
    if any(model["verdict"] == BELOW for model in result["models"]):
        raise typer.Exit(FOUND_EXIT)


def tell_prefect(result: dict[str, Any], console: Console) -> None:
    """Send the events of a drift, or say why none is sent."""
    if not os.environ.get(API_URL):
        console.print(f"No event is sent: {API_URL} names no server of Prefect.", soft_wrap=True)
        return
    from flows.monitor import emit_drift

    count = emit_drift(result)
    console.print(f"{count} event{'s' if count > 1 else ''} sent to {os.environ[API_URL]}.", soft_wrap=True)


def print_model(model: dict[str, Any], console: Console) -> None:
    """Print the check of one model: verdicts in words, not in colour alone."""
    console.print(f"{model['model']}, version {model['version']}: {model['sentence']}", soft_wrap=True, markup=False)
    if model["lost"]:
        console.print(f"{model['lost']:,} {model['counted']} more came too fast to be sketched.", soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("what", "verdict", "stability index", "corrected p"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("stability index", "corrected p") else "left")
    for finding in model["findings"]:
        index = finding["stability_index"]
        table.add_row(
            finding["name"],
            Text(finding["verdict"], STYLES[finding["verdict"]]),
            "" if index is None else f"{index:.3f}",
            shown_p(finding["p_value"]),
        )
    console.print(table)


def accuracy_sentence(model: dict[str, Any]) -> str:
    """Return the accuracy of a model in use beside that on its test images, in words."""
    live, reported = ("{value:.2%} ({low:.2%} to {high:.2%})".format(**model[key]) for key in ("live", "reported"))
    return (
        f"{model['model']}, version {model['version']}: {live} right on {model['labels']:,} labelled images in use, "
        f"{reported} on {model['test_images']:,} test images: {model['verdict']}."
    )
