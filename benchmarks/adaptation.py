"""How much of what another camera costs is won back without labels, and with a few.

What: the accuracy of a model on images of a target domain before and after every method of adaptation, the share of
the change's cost that was won back, and the accuracy where the model came from.
How: read from what the step `adapt` of a finished run wrote; with the default settings its target domain is made out
of the data set's own images.

    .venv/bin/python -m benchmarks.adaptation --checkout FOLDER

FOLDER holds a finished run; nothing in it is changed. Expected time: a second.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.results import RESULTS, shown_command, write_result
from kinglet.atomic import read_json
from kinglet.errors import KingletError
from tasks.artifacts import ADAPT, SOURCE_FACTS
from tasks.stage import exit_code_of, read_timings


def figures_of(scores: dict[str, Any], seconds: float | None) -> dict[str, Any]:
    """Return the figures of a run; raises KingletError if it adapted no model or says no share of a cost.

    scores: the content of artifacts/adapt/scores.json. seconds: that the step took, None if they are not known.
    """
    if not scores["models"]:
        raise KingletError(
            f"The run adapted no model{': ' + scores['reason'] if 'reason' in scores else '.'}",
            "Name a model in adapt.models and run again.",
        )
    without = [
        f"{name} by {method}"
        for name, of_model in scores["models"].items()
        for method, found in of_model["methods"].items()
        if found["recovered"] is None
    ]
    if without:
        raise KingletError(
            f"The run does not say which share of a change's cost was won back: {', '.join(without)}.",
            "Set adapt.target to demonstration, whose change has a cost, and run again.",
        )
    return {"seconds": seconds, **scores}


def seconds_of(workspace: Path) -> float | None:
    """Return how long the step took the last time that it ran."""
    timing = read_timings(workspace).get("adapt")
    return round(timing["ended"] - timing["started"], 1) if timing else None


def measure(options: argparse.Namespace) -> None:
    """Read the run and write the result."""
    scores = read_json(options.checkout / ADAPT / "scores.json")
    figures = figures_of(scores, seconds_of(options.checkout / ".kinglet"))
    figures["image_size"] = read_json(options.checkout / SOURCE_FACTS)["short_side"]
    path = write_result(
        options.results,
        "adaptation",
        command=shown_command("adaptation", sys.argv[1:]),
        repetitions=1,
        figures=figures,
    )
    print(f"written: {path}", file=sys.stderr)


def main() -> int:
    """Read the options, measure; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, required=True, help="a checkout with a finished run")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the result is written")
    options = parser.parse_args()
    return exit_code_of(lambda: measure(options))


if __name__ == "__main__":
    sys.exit(main())
