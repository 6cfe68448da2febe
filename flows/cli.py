"""The `kinglet` command: every way in that a person types, and nothing but the way in."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.clip_commands import clips
from flows.file_commands import bench, doctor, optimize
from flows.gate_commands import gate, obey, promote
from flows.image_commands import deploy, image, rollback
from flows.init_command import init
from flows.label_commands import labels
from flows.monitor_commands import monitor
from flows.parameter_file import use_parameters
from flows.publish_commands import fetch, publish
from flows.report_commands import report
from flows.results import print_summary, spent, summary
from flows.schedule_commands import schedule
from flows.supervise import StoppedError, run_flow
from flows.track_commands import track, tracks
from kinglet.atomic import read_json
from kinglet.errors import KingletError
from tasks.artifacts import WORKSPACE
from tasks.parameters import load_parameters
from tasks.stage import USER_ERROR_EXIT, explain, print_error, read_timings

app = typer.Typer(
    help="Make a small image classifier that is provably as good as the big one.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

OUTCOMES = WORKSPACE / "outcomes.json"


@app.callback()
def kinglet() -> None:
    """Make a small image classifier that is provably as good as the big one."""


@app.command()
def run(
    params: Annotated[
        Path | None, typer.Option("--params", help="Replace params.yaml by this file first, e.g. params/full.yaml.")
    ] = None,
    overwrite_params: Annotated[
        bool, typer.Option("--overwrite-params", help="Replace params.yaml even if its changes are kept nowhere else.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")] = False,
    obey_gate: Annotated[bool, typer.Option("--gate", help="Exit with code 1 if the gate refuses the model.")] = False,
) -> None:
    """Run every stage of dvc.yaml that is not up to date, and show the models."""
    if params is not None:
        use_parameters(params, overwrite=overwrite_params)
    load_parameters()
    started = time.time()
    exit_code = run_flow()
    if exit_code:
        raise typer.Exit(exit_code)
    result = summary(read_json(OUTCOMES), spent(read_timings(), started, time.time()))
    print_summary(result, Console(stderr=True, highlight=False))
    if as_json:
        print(json.dumps(result, indent=2, sort_keys=True))
    if obey_gate:
        obey(result["gate"])


app.command()(report)
app.command()(init)
app.command()(optimize)
app.command()(bench)
app.command()(doctor)
app.command()(gate)
app.command()(promote)
app.command()(publish)
app.command()(fetch)
app.command()(deploy)
app.command()(rollback)
app.add_typer(clips, name="clips")
app.add_typer(image, name="image")
app.add_typer(labels, name="labels")
app.add_typer(monitor, name="monitor")
app.add_typer(schedule, name="schedule")
app.command()(track)
app.add_typer(tracks, name="tracks")


# The server reads its own options, which are those of `python -m kinglet.serving`, its help among them.
@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def serve(context: typer.Context) -> None:
    """Serve a bundle over HTTP, as `python -m kinglet.serving` does."""
    from kinglet.serving.server import serve as serve_bundle
    from kinglet.serving.settings import read_settings

    serve_bundle(read_settings(context.args, os.environ, "kinglet serve"))


def main() -> None:
    """Run the command; what the user can mend is one sentence and a hint on stderr, exit code 2."""
    try:
        app(prog_name="kinglet")
    except StoppedError as error:
        print_error(error.message, error.hint)
        sys.exit(error.exit_code)
    except KingletError as error:
        print_error(error.message, error.hint)
        sys.exit(USER_ERROR_EXIT)
    except OSError as error:
        explained = explain(error)
        if explained is None:
            raise
        print_error(explained.message, explained.hint)
        sys.exit(USER_ERROR_EXIT)


if __name__ == "__main__":
    main()
