"""How long it takes to corrupt all test images and to score the models of a run on them.

What: the 75 corruptions (15 kinds, 5 severities) of all test images of a finished run, made once, and the answers of
four of its models to them and to the clean images: the code path of the step `robustness`, on every processor that is
granted. Beside it, what the corruptions alone take on one processor.

    .venv/bin/python -m benchmarks.robustness_speed --run CHECKOUT

CHECKOUT is a checkout in which `make run` has ended. Expected time on 2 cores, with Fashion-MNIST: 4 to 5 minutes.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import RESULTS, shown_command, write_result
from kinglet.errors import KingletError
from kinglet.evidence.corruptions.kinds import KINDS
from kinglet.evidence.corruptions.severities import SEVERITIES
from kinglet.runtime.processors import available_processors
from tasks.artifacts import base_size, packed_images
from tasks.corrupted_answers import Task, answers_of, every_way
from tasks.evidence_settings import Robustness
from tasks.held_out import read_held_out
from tasks.opened_models import open_model
from tasks.progress import progress
from tasks.robustness import open_models
from tasks.scored_models import teacher_name
from tasks.stage import exit_code_of

# The waterfall of the report: from the teacher to the smallest model.
MODELS = ("teacher", "residual-16", "residual-16-pruned", "residual-16-pruned-int8")
ALONE = 256  # images that the corruptions alone are timed on


def measure(options: argparse.Namespace) -> None:
    """Measure in the run's folder and write the result."""
    results = options.results.resolve()
    try:
        os.chdir(options.run)
    except OSError as error:
        raise KingletError(f"--run: {options.run} cannot be opened: {error.strerror}.", "Name a checkout.") from None
    test = read_held_out("test")
    rows, labels = test.rows[: options.images], test.labels[: options.images]
    packed = np.load(packed_images(base_size()), mmap_mode="r")
    models = open_models(Robustness(models=list(options.models)), teacher_name(), partial(open_model, threads=1))
    alone = np.asarray(packed[rows[:ALONE]])
    for warm in (8, ALONE):
        started = time.perf_counter()
        for _ in every_way(alone[:warm], KINDS, 0):
            pass
        seconds_alone = time.perf_counter() - started
    started, cpu_started = time.perf_counter(), time.process_time()
    with progress("robustness_speed") as report:
        answers = answers_of(Task(packed, rows, labels, models, tuple(KINDS), 0), report)
    figures: dict[str, Any] = {
        "images": len(rows),
        "image_size": packed.shape[1],
        "corruptions": len(KINDS) * len(SEVERITIES),
        "models": list(models),
        "threads": available_processors(),
        "wall_seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu_started, 1),
        "corruption_us_per_image": round(1e6 * seconds_alone / len(alone)),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
        "mean_corruption_accuracy": {name: round(float(item.by_image.mean()), 4) for name, item in answers.items()},
    }
    command = shown_command("robustness_speed", sys.argv[1:])
    path = write_result(results, "robustness_speed", command=command, repetitions=1, figures=figures)
    print(f"written: {path}", file=sys.stderr)


def main() -> int:
    """Read the options, measure; return the exit code."""
    parser = argparse.ArgumentParser(description="Time to corrupt all test images and to score four models on them.")
    parser.add_argument("--run", type=Path, required=True, help="a checkout in which `make run` has ended")
    parser.add_argument("--models", nargs="+", default=list(MODELS), help=f"(default: {' '.join(MODELS)})")
    parser.add_argument("--images", type=int, help="the first test images (default: all)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the result is written")
    options = parser.parse_args()
    return exit_code_of(lambda: measure(options))


if __name__ == "__main__":
    sys.exit(main())
