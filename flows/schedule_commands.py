"""The commands around scheduled runs: `kinglet schedule apply`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

schedule = typer.Typer(help="Run the flows on a Prefect server, at their times.", no_args_is_help=True)


@schedule.callback()
def commands() -> None:
    """Run the flows on a Prefect server, at their times."""


@schedule.command()
def apply(
    webhook: Annotated[
        str | None,
        typer.Option(
            envvar="KINGLET_WEBHOOK",
            show_envvar=True,
            help="Address that gets a POST when a run fails or the gate refuses a model.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")] = False,
) -> None:
    """Bring prefect.yaml to the server of PREFECT_API_URL: pools, limits, deployments, notifications."""
    # Imported when it is asked for: the other commands need no client of Prefect's.
    from flows.schedule import apply as bring

    applied = bring(webhook)
    console = Console(stderr=True, highlight=False)
    for deployment in applied.deployments:
        console.print(f"deployed: {deployment}", soft_wrap=True)
    for pool in applied.pools:
        console.print(f"start a worker: .venv/bin/prefect worker start --pool {pool.name}", soft_wrap=True)
    console.print(
        "failures and refusals go to the webhook."
        if applied.notified
        else "nobody is told of failures: give an address with --webhook.",
        soft_wrap=True,
    )
    if as_json:
        print(json.dumps(asdict(applied), indent=2, sort_keys=True))
