"""Seconds until a run that has nothing to do says so: `dvc repro` and `kinglet run`.

What: wall time of either command, started in a checkout in which every stage is up to date.
How: once each uncounted (files come into the page cache, DVC's index is built), then in turns; the
median with the range. A run in which any stage had something to do is refused.

    .venv/bin/python -m benchmarks.nothing_to_do --checkout FOLDER/kinglet

FOLDER is what `benchmarks.default_run --into FOLDER` left. Expected time: half a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.results import RESULTS, ROOT, shown_command, spread, write_result
from kinglet.errors import KingletError
from tasks.stage import exit_code_of

COMMANDS = {"dvc_repro": [".venv/bin/dvc", "repro"], "kinglet_run": [".venv/bin/kinglet", "run", "--json"]}


def is_up_to_date(name: str, printed: str) -> bool:
    """Return whether a command's stdout says that no stage had anything to do."""
    if name == "dvc_repro":
        return "Data and pipelines are up to date" in printed
    return set(json.loads(printed)["stages"].values()) == {"unchanged"}


def seconds_of(name: str, checkout: Path) -> float:
    """Return the wall time of one command in `checkout`; raises KingletError if it found something to do."""
    started = time.perf_counter()
    done = subprocess.run(
        COMMANDS[name],
        cwd=checkout,
        env={key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode or not is_up_to_date(name, done.stdout):
        raise KingletError(
            f"`{' '.join(COMMANDS[name])}` in {checkout} was not a run with nothing to do.",
            "Finish a run there first, with `kinglet run`.",
        )
    return seconds


def measure(options: argparse.Namespace) -> None:
    """Measure and write the result."""
    for name in COMMANDS:
        seconds_of(name, options.checkout)
    rounds = [{name: seconds_of(name, options.checkout) for name in COMMANDS} for _ in range(options.runs)]
    path = write_result(
        options.results,
        "nothing_to_do",
        command=shown_command("nothing_to_do", sys.argv[1:]),
        repetitions=options.runs,
        figures={f"{name}_seconds": spread([seconds[name] for seconds in rounds]) for name in COMMANDS},
    )
    print(f"written: {path}", file=sys.stderr)


def main() -> int:
    """Read the options, measure; return the exit code."""
    parser = argparse.ArgumentParser(description="Seconds of a run that has nothing to do.")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="a checkout with a finished run (default: this)")
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each command (default: 5)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the result is written")
    options = parser.parse_args()
    return exit_code_of(lambda: measure(options))


if __name__ == "__main__":
    sys.exit(main())
