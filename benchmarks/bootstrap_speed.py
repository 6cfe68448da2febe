"""Seconds of the intervals of accuracy and macro F1: 10,000 resamples of 10,000 predictions.

What: CPU time of one process for both intervals, resampled within classes, of predictions of ten classes that are
right on 93 % of the images; and of every score of four models that the report shows. Beside it the same interval of
the accuracy by scipy.stats.bootstrap, which draws the images one by one.
How: once uncounted, then repeated; the median with the range. CPU time, so that a neighbour costs nothing, and one
core whatever there is: threads add up.

    .venv/bin/python -m benchmarks.bootstrap_speed

Expected time: half a minute.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.stats

from benchmarks.results import RESULTS, shown_command, spread, write_result
from kinglet.evidence.bootstrap import accuracy_interval, f1_macro_interval
from kinglet.evidence.metrics import confusion_matrix
from kinglet.evidence.score_intervals import Resampling, score_intervals
from tasks.stage import exit_code_of

N_IMAGES, N_CLASSES, RESAMPLES, N_MODELS = 10_000, 10, 10_000, 4
SHARE_RIGHT = 0.93


def cpu_seconds(action: Callable[[], object]) -> float:
    """Return the CPU time of all threads of this process that `action` takes."""
    started = time.process_time()
    action()
    return time.process_time() - started


def measure(options: argparse.Namespace) -> None:
    """Measure and write the result."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, N_CLASSES, N_IMAGES)
    logits = generator.normal(size=(N_MODELS, N_IMAGES, N_CLASSES)).astype(np.float32)
    right = generator.random((N_MODELS, N_IMAGES)) < SHARE_RIGHT
    favoured = np.where(right, labels, (labels + generator.integers(1, N_CLASSES, right.shape)) % N_CLASSES)
    logits += 12 * np.eye(N_CLASSES, dtype=np.float32)[favoured]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    predicted = probabilities[0].argmax(axis=1)
    correct, confusion = predicted == labels, confusion_matrix(labels, predicted, N_CLASSES)

    def both() -> None:
        accuracy_interval(correct, strata=labels, resamples=RESAMPLES)
        f1_macro_interval(confusion, stratified=True, resamples=RESAMPLES)

    def every_score() -> None:
        models = {str(number): values for number, values in enumerate(probabilities)}
        score_intervals(labels, models, top_k=3, resampling=Resampling(resamples=RESAMPLES))

    def by_scipy() -> None:
        scipy.stats.bootstrap(
            (correct.astype(np.float64),), np.mean, n_resamples=RESAMPLES, batch=100, method="percentile", rng=generator
        )

    both()
    path = write_result(
        options.results,
        "bootstrap_speed",
        command=shown_command("bootstrap_speed", sys.argv[1:]),
        repetitions=options.runs,
        figures={
            "images": N_IMAGES,
            "resamples": RESAMPLES,
            "classes": N_CLASSES,
            "models": N_MODELS,
            "accuracy_and_f1_seconds": spread([cpu_seconds(both) for _ in range(options.runs)]),
            "every_score_seconds": spread([cpu_seconds(every_score) for _ in range(options.runs)]),
            "scipy_accuracy_seconds": spread([cpu_seconds(by_scipy) for _ in range(options.runs)]),
        },
    )
    print(f"written: {path}", file=sys.stderr)


def main() -> int:
    """Read the options, measure; return the exit code."""
    parser = argparse.ArgumentParser(description="Seconds of bootstrap intervals.")
    parser.add_argument("--runs", type=int, default=5, help="counted repetitions (default: 5)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the result is written")
    options = parser.parse_args()
    return exit_code_of(lambda: measure(options))


if __name__ == "__main__":
    sys.exit(main())
