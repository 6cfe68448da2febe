"""What a finished run reached, whatever its problem: teacher and chosen model, score with interval, latency, size.

What: the test score by which the models of a problem are chosen, of the teacher and of the chosen model, their paired
difference, latencies of batch 1 and file sizes; of a cross-validation the scores of all images out of fold.
How: read from what `evaluate`, `benchmark`, `select` and `pool_folds` of a finished run wrote.

    .venv/bin/python -m benchmarks.problem_run --run CHECKOUT --data bccd

CHECKOUT holds a finished run; nothing in it is changed. The result is named after the problem of the run. Expected
time: a second.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from benchmarks.results import RESULTS, shown_command, write_result
from kinglet.atomic import read_json
from kinglet.errors import KingletError
from tasks.artifacts import BENCHMARK, EVALUATE, POOL_FOLDS, SELECT, SOURCE_FACTS
from tasks.parameters import PARAMS_FILE, load_parameters
from tasks.stage import exit_code_of

NAME = "problem_{}"
HEADLINE = "accuracy"
# Of the cross-validation, by what an interval is known.
POOLED = ("accuracy", "pixel_accuracy", "miou", "dice", "map_50", "map")


def read_run(run: Path, data: str) -> dict[str, Any]:
    """Return what a run reached. data: what the data set is called.

    Raises KingletError if a step has not run.
    """
    scores = read_part(run, EVALUATE / "scores.json")
    latency = read_part(run, BENCHMARK / "latency.json")["models"]
    choice = read_part(run, SELECT / "choice.json")
    headline = scores.get("headline", HEADLINE)
    names = {"teacher": scores["teacher"], "chosen": choice["chosen"]}
    pooled = read_part(run, POOL_FOLDS / "scores.json").get("pooled", [])
    return {
        "data": data,
        "problem": load_parameters(run / PARAMS_FILE).problem,
        "headline": headline,
        "generated": bool(read_part(run, SOURCE_FACTS).get("generated")),
        "test_examples": scores["models"][names["teacher"]]["test"]["n"],
        **{part: model_of(name, scores["models"][name], latency[name], headline) for part, name in names.items()},
        "out_of_fold": {name: pooled[0][name] for name in POOLED if name in pooled[0]} if pooled else {},
    }


def model_of(name: str, scores: dict[str, Any], latency: dict[str, Any], headline: str) -> dict[str, Any]:
    """Return what is known of one model, and what an int8 detector is worth without VNNI."""
    there = scores.get("without_vnni", {})
    return {
        **({"score_without_vnni": there["score"]} if there.get("score") else {}),
        "name": name,
        "input_size": scores["input_size"],
        "precision": scores["precision"],
        "score": scores["test"][headline],
        "difference_to_teacher": scores["difference_to_teacher"]["test"],
        "p50_ms": latency["p50_ms"],
        "size_bytes": latency["size_bytes"],
    }


def read_part(run: Path, file: Path) -> dict[str, Any]:
    """Return the content of a file of the run; raises KingletError if its step has not run."""
    try:
        return dict(read_json(run / file))
    except FileNotFoundError:
        raise KingletError(f"{run / file} does not exist.", f"Run `dvc repro` in {run} first.") from None


def measure(options: argparse.Namespace) -> None:
    """Write the result."""
    figures = read_run(options.run, options.data)
    command = shown_command("problem_run", ["--run", "CHECKOUT", "--data", shlex.quote(options.data)])
    path = write_result(
        options.results, NAME.format(figures["problem"]), command=command, repetitions=1, figures=figures
    )
    print(path)


def main() -> int:
    """Read the options and measure; return the exit code."""
    parser = argparse.ArgumentParser(description="Write down what a finished run reached.")
    parser.add_argument("--run", type=Path, required=True, help="a checkout with a finished run")
    parser.add_argument("--data", required=True, help="what the data set is called in the table")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    return exit_code_of(lambda: measure(options))


if __name__ == "__main__":
    sys.exit(main())
