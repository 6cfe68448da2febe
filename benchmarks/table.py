"""The tables of README.md, made from the result files and from nothing else.

Writes what lies between `<!-- benchmarks:begin -->` and `<!-- benchmarks:end -->` (what, goal,
measured, machine, date, command), between `<!-- models:begin -->` and `<!-- models:end -->` (the models of
the default run), and between `<!-- peers:begin -->` and `<!-- peers:end -->` (Kinglet beside its peers, for
each data set on which that was measured).

    .venv/bin/python -m benchmarks.table          # write
    .venv/bin/python -m benchmarks.table --check  # only say whether README.md is what the files give
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import machine_in_words
from benchmarks.results import RESULTS, ROOT, read_result
from benchmarks.tables.peers import peers_section
from benchmarks.tables.runs import (
    DEFAULT_RUN,
    FOLDER_RUN,
    FULL_RUN,
    PROBLEM_GOALS,
    backbone_rows,
    nothing_rows,
    out_of_fold_rows,
    problem_rows,
    run_rows,
)
from benchmarks.tables.service import container_rows, monitoring_rows, serving_rows, soak_rows
from benchmarks.tables.steps import (
    adaptation_rows,
    bootstrap_rows,
    box_augmentation_rows,
    robustness_rows,
    training_rows,
)
from benchmarks.tables.words import Rows, accuracy_in_words, how_made, markdown_table, megabytes
from kinglet.atomic import write_text
from kinglet.errors import KingletError
from tasks.stage import exit_code_of

README = ROOT / "README.md"


# In the order of the table. A run that not everybody makes may be missing.
NEEDED: dict[str, Callable[[dict[str, Any]], Rows]] = {
    "default_run": lambda figures: run_rows(figures, DEFAULT_RUN),
    "nothing_to_do": nothing_rows,
    "training_speed": training_rows,
}


OPTIONAL: dict[str, Callable[[dict[str, Any]], Rows]] = {
    "adaptation": adaptation_rows,
    "bootstrap_speed": bootstrap_rows,
    "box_augmentation": box_augmentation_rows,
    "container": container_rows,
    "full_run": lambda figures: run_rows(figures, FULL_RUN),
    "folder_run": lambda figures: run_rows(figures, FOLDER_RUN),
    "out_of_fold": out_of_fold_rows,
    "robustness_speed": robustness_rows,
    "int8_of_backbones": backbone_rows,
    **dict.fromkeys((f"problem_{problem}" for problem in PROBLEM_GOALS), problem_rows),
    "monitoring": monitoring_rows,
    "serving": serving_rows,
    "serving_soak": soak_rows,
}


def benchmarks_table(results: Path) -> str:
    """Return the table of all goals; raises KingletError if a needed result file is missing."""
    there = {name: rows for name, rows in OPTIONAL.items() if (results / f"{name}.json").is_file()}
    lines = []
    for name, rows_of in {**NEEDED, **there}.items():
        result = read_result(results, name)
        origin = [machine_in_words(result["machine"]), result["date"], f"`{result['command']}`"]
        lines += [[*row, *origin] for row in rows_of(result["figures"])]
    return markdown_table(["what", "goal", "measured", "machine", "date", "command"], lines)


def models_table(results: Path) -> str:
    """Return the table of the default run's models, the chosen one marked; raises KingletError without the file."""
    figures = read_result(results, "default_run")["figures"]
    lines = [
        [
            f"**{model['name']}** (chosen)" if model["name"] == figures["chosen"] else model["name"],
            how_made(model),
            accuracy_in_words(model["test_accuracy"]),
            f"{model['p50_ms']:.3f}",
            megabytes(model),
            f"{model['times_faster']:.1f}",
        ]
        for model in figures["models"]
    ]
    heads = ["model", "how made", "test accuracy", "p50 ms", "MB", "times faster"]
    return markdown_table(heads, lines, aligned_right=("p50 ms", "MB", "times faster"))


def with_block(text: str, name: str, content: str) -> str:
    """Return `text` with `content` between the markers called `name`.

    Raises KingletError if the text does not have both markers once, in order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise KingletError(f"README.md needs {begin} and {end} once each, in this order.", "Put them back.")
    before, _, rest = text.partition(begin)
    block = f"{content}\n" if content else ""
    return f"{before}{begin}\n{block}{end}{rest.partition(end)[2]}"


def with_tables(text: str, results: Path) -> str:
    """Return README.md's text with all tables as the result files give them."""
    tables = {"benchmarks": benchmarks_table, "models": models_table, "peers": peers_section}
    for name, table_of in tables.items():
        text = with_block(text, name, table_of(results))
    return text


def update(options: argparse.Namespace) -> None:
    """Write README.md anew, or, to check, raise KingletError if that would change it."""
    try:
        text = options.readme.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise KingletError(f"{options.readme} does not exist.", "Name another file with --readme.") from None
    wanted = with_tables(text, options.results)
    if options.check and wanted != text:
        raise KingletError(
            f"The tables of {options.readme.name} are not what the result files give.",
            "Write them with `.venv/bin/python -m benchmarks.table`.",
        )
    if wanted != text:
        write_text(options.readme, wanted)


def main() -> int:
    """Read the options, write or check; return the exit code."""
    parser = argparse.ArgumentParser(description="Write README's tables from the result files.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if the tables are not up to date")
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    return exit_code_of(lambda: update(options))


if __name__ == "__main__":
    sys.exit(main())
