"""Monitoring: how often a check alarms without drift, how much drift it sees, and what it costs the server.

What: the share of checks with an alarm on real images that did not drift, with whatever moved counting, however little;
the same for images darkened, with noise or upside down; requests per second with and without `--monitor`.
How: every check draws its reference and its stream anew from the images of the data set, without overlap. The server is
measured on one core with and without monitoring in turns, the load comes from another core.

    .venv/bin/python -m benchmarks.monitoring --bundle artifacts/bundle

Expected time: 5 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from benchmarks.results import RESULTS, ROOT, shown_command, spread, write_result
from benchmarks.serving.__main__ import CONNECTIONS, command_of, cpu_seconds, free_port, jpeg, started
from benchmarks.serving.load import http_request, run_load
from kinglet.data.sources import open_source
from kinglet.errors import KingletError
from kinglet.evidence.drift_test import MOVED, Limits, drift_findings
from kinglet.runtime.predictor import Predictor
from kinglet.runtime.preprocessing import square_of
from kinglet.runtime.sketches import Sketch, input_statistics, make_reference, sketch_of_statistics
from tasks.stage import exit_code_of

REFERENCE_IMAGES, STREAM_IMAGES, SAMPLE = 5000, 1000, 200
SIZE = 28


def darker(images: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """Return the images with this share of their brightness."""
    return np.rint(images * share).astype(np.uint8)


def noisier(images: NDArray[np.uint8], deviation: float) -> NDArray[np.uint8]:
    """Return the images with normal noise of this deviation, of 255."""
    noise = np.random.default_rng(0).normal(0, deviation, images.shape)
    return np.rint(images + noise).clip(0, 255).astype(np.uint8)


SHIFTS: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "5 % darker": lambda images: darker(images, 0.95),
    "20 % darker": lambda images: darker(images, 0.8),
    "noise of 2 %": lambda images: noisier(images, 5),
    "upside down": lambda images: np.ascontiguousarray(images[:, ::-1]),
}


class Seen:
    """Images with all that a sketch needs of them."""

    def __init__(self, predictor: Predictor, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        squares = np.stack([square_of(image, predictor.preprocessing) for image in images])
        # Known once and not again for every check that draws an image: they were most of the time.
        self.statistics = input_statistics(squares)
        self.probabilities = predictor.predict(list(images)).probabilities
        self.labels = labels


def one_check(clean: Seen, stream: Seen, limits: Limits, seed: int, classes: list[str]) -> list[str]:
    """Return the names of what a check finds moved; reference and stream are drawn anew."""
    generator = np.random.default_rng(seed)
    drawn = generator.permutation(len(clean.labels))[: REFERENCE_IMAGES + STREAM_IMAGES]
    rows, own = drawn[:REFERENCE_IMAGES], drawn[REFERENCE_IMAGES:]
    sizes = np.full(len(rows), float(SIZE))
    columns = {**rows_of(clean.statistics, rows), "width": sizes, "height": sizes}
    is_test = np.ones(len(rows), bool)
    reference = make_reference(columns, clean.probabilities[rows], clean.labels[rows], is_test, classes)
    shapes = np.full((len(own), 2), SIZE)
    seen = sketch_of_statistics(reference, rows_of(stream.statistics, own), shapes, stream.probabilities[own])
    sketch = Sketch(seen.n_images, seen.columns, seen.class_counts, stream.probabilities[own[:SAMPLE]])
    return [finding.name for finding in drift_findings(reference, sketch, limits, seed) if finding.verdict == MOVED]


def rows_of(columns: dict[str, NDArray[np.float64]], rows: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Return some rows of a table that is held by columns."""
    return {name: values[rows] for name, values in columns.items()}


def alarm_figures(options: argparse.Namespace) -> dict[str, Any]:
    """Return the share of checks with an alarm, without drift and with each shift."""
    description = ROOT / "data" / "fashion-mnist" / "dataset.yaml"
    source = open_source(str(description), str(description.parent))
    records = source.records[: options.images]
    images = np.stack([source.read(record) for record in records])
    predictor = Predictor(options.bundle, threads=1)
    labels = np.array([predictor.classes.index(record.label) for record in records])
    clean = Seen(predictor, images, labels)
    figures: dict[str, Any] = {
        "images": len(images),
        "reference_images": REFERENCE_IMAGES,
        "stream_images": STREAM_IMAGES,
        "sampled_answers": SAMPLE,
        "false_alarm_rate": options.rate,
    }
    any_move = Limits(options.rate, min_stability_index=0)
    alarms = sum(bool(one_check(clean, clean, any_move, seed, predictor.classes)) for seed in range(options.checks))
    interval = binomtest(alarms, options.checks).proportion_ci(0.95, "wilson")
    figures["without_drift"] = {
        "checks": options.checks,
        "alarms": alarms,
        "share": alarms / options.checks,
        "low": round(float(interval.low), 5),
        "high": round(float(interval.high), 5),
    }
    figures["with_drift"] = {}
    for name, change in SHIFTS.items():
        moved = Seen(predictor, change(images), labels)
        found = [
            one_check(clean, moved, Limits(options.rate), seed, predictor.classes) for seed in range(options.shifted)
        ]
        figures["with_drift"][name] = {
            "checks": len(found),
            "alarms": sum(bool(names) for names in found),
            "named": sorted({each for names in found for each in names}),
        }
    return figures


def server_figures(options: argparse.Namespace) -> dict[str, Any]:
    """Return requests per second and processor time with and without monitoring."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        raise KingletError("One processor is not enough: the load would take the server's.", "Run it on two or more.")
    os.sched_setaffinity(0, {processors[1]})
    generator = np.random.default_rng(0)
    requests = [http_request(jpeg(generator.integers(0, 256, (SIZE, SIZE, 1), np.uint8))) for _ in range(20)]
    found: dict[str, list[tuple[float, float]]] = {"off": [], "on": []}
    options.log = "all"
    with tempfile.TemporaryDirectory() as name:
        for _ in range(options.rounds):
            for word, rates in found.items():
                port = free_port()
                command, settings = command_of("kinglet", options, port)
                extra = ["--monitor", str(Path(name) / "sketches"), "--monitor-interval", "5"] if word == "on" else []
                with started([*command, *extra], processors[0], port, Path(name) / "log", settings) as pid:
                    run_load(port, requests, 1.0, CONNECTIONS)
                    before = cpu_seconds(pid)
                    load = run_load(port, requests, options.seconds, CONNECTIONS)
                    rates.append((load.per_second, 1000 * (cpu_seconds(pid) - before) / len(load.milliseconds)))
    return {
        "pixels": SIZE,
        "per_second": {word: spread([rate for rate, _ in rates]) for word, rates in found.items()},
        "cpu_ms_each": {word: spread([cpu for _, cpu in rates]) for word, rates in found.items()},
        "share_of_throughput": spread([on / off for (on, _), (off, _) in zip(found["on"], found["off"], strict=True)]),
        "cpu_times": spread([on / off for (_, on), (_, off) in zip(found["on"], found["off"], strict=True)]),
    }


def measure(options: argparse.Namespace) -> None:
    """Measure and write the result."""
    figures = {"server": server_figures(options), "alarms": alarm_figures(options)}
    command = shown_command("monitoring", sys.argv[1:])
    print(write_result(options.results, "monitoring", command=command, repetitions=options.rounds, figures=figures))


def main() -> int:
    """Read the options, measure; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure monitoring.")
    parser.add_argument("--bundle", type=Path, default=ROOT / "artifacts" / "bundle")
    parser.add_argument("--images", type=int, default=20_000, help="of Fashion-MNIST")
    parser.add_argument("--checks", type=int, default=1000, help="without drift")
    parser.add_argument("--shifted", type=int, default=50, help="checks of every shift")
    parser.add_argument("--rate", type=float, default=0.01, help="the false alarm rate that is asked for")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each measurement of the server")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    return exit_code_of(lambda: measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
