"""The commands around a bucket of published models: publish and fetch. `kinglet rollback` is with the containers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tasks.artifacts import BUNDLE

if TYPE_CHECKING:
    from tasks.publish import Outcome

# Where the model's versions lie, unless somebody says otherwise.
STORE = "KINGLET_STORE"
Address = Annotated[
    str,
    typer.Option("--store", envvar=STORE, help="Where the model's versions lie: s3://BUCKET/PREFIX/NAME."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]


def publish(
    store: Address,
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")] = BUNDLE,
    version: Annotated[str, typer.Option(help="Name of the version; the start of its SHA-256 if absent.")] = "",
    promote: Annotated[bool, typer.Option(help="Make it the champion once it is there.")] = True,
    as_json: AsJson = False,
) -> None:
    """Upload a bundle to S3 as a version that is never overwritten, and make it the champion."""
    # Imported when it is asked for: the other commands need no S3.
    from tasks.publish import publish as put

    outcome = put(bundle, store, version, promote)
    moved = "it is the champion" if outcome.champion == outcome.version else said_champion(outcome)
    show(f"published: {outcome.place}/{outcome.version}; {moved}.", outcome, as_json)


def fetch(
    store: Address,
    folder: Annotated[Path, typer.Argument(help="Folder for the bundle; a bundle in it is replaced.")],
    version: Annotated[str, typer.Option(help="Name of the version; the champion if absent.")] = "",
    as_json: AsJson = False,
) -> None:
    """Download the champion, or another version, from S3 and verify every byte."""
    from tasks.publish import fetch as get

    outcome = get(store, folder, version)
    done = "fetched" if outcome.changed else "up to date"
    show(f"{done}: {folder} holds {outcome.place}/{outcome.version}, every byte verified.", outcome, as_json)


def said_champion(outcome: Outcome) -> str:
    """Return which version is the champion, in words."""
    return f"the champion is {outcome.champion}" if outcome.champion else "there is no champion yet"


def show(sentence: str, outcome: Outcome, as_json: bool) -> None:
    """Print what was done for people, and for programs if asked."""
    Console(stderr=True, highlight=False).print(sentence, soft_wrap=True, markup=False)
    if as_json:
        print(json.dumps(asdict(outcome), indent=2, sort_keys=True))
