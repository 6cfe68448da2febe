"""Latency and throughput of several models, measured in turns so that a drifting machine favours none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime.engines import Engine

# A model runs for this long before the next has its turn: long against a switch, short against drift.
BLOCK_SECONDS = 0.02
WARM_UP_SECONDS = 0.1
WARM_UP_RUNS = 5
MIN_ROUNDS = 10
# A run of this length is long against the milliseconds that caches take to fill, and is warm after two.
LONG_RUN_SECONDS = 0.5


@dataclass(frozen=True)
class Timing:
    """Times of one model at one batch size, in milliseconds per batch.

    p50_low_ms, p50_high_ms: interval of the median over the rounds of the measurement. runs: how many were timed.
    """

    batch_size: int
    p50_ms: float
    p50_low_ms: float
    p50_high_ms: float
    p99_ms: float
    runs: int
    rounds: int

    @property
    def images_per_second(self) -> float:
        """Images per second at the median time."""
        return 1000 * self.batch_size / self.p50_ms


def measure(
    engines: Mapping[str, Engine],
    batch_size: int,
    seconds_per_model: float,
    confidence: float = 0.95,
    report: Callable[[float, float], None] | None = None,
    min_rounds: int = MIN_ROUNDS,
) -> dict[str, Timing]:
    """Return the timing of every model, {name: Timing}, all measured at the same time.

    The models take turns in blocks of 20 ms; each round starts with another model, and the first run
    of a block, which finds the caches full of another model, is not counted, unless a run is long.
    seconds_per_model: time given to each model, warm-up aside; there are at least `min_rounds` rounds in any case.
    report is called with the seconds gone and the seconds in all.
    """
    actions = {name: timed_action(engine, batch_size) for name, engine in engines.items()}
    blocks = time_in_turns(actions, seconds_per_model, report, min_rounds)
    return {name: summarize(rounds, batch_size, confidence) for name, rounds in blocks.items()}


def timed_action(engine: Engine, batch_size: int) -> Callable[[], Any]:
    """Return a call without arguments that runs the model once on one fixed batch of noise."""
    # The values do not matter for the time, except zeros and denormals.
    generator = np.random.default_rng(0)
    channels, height, width = engine.input_shape
    if engine.takes_pixels:
        pixels = generator.integers(0, 256, (batch_size, height, width, channels), dtype=np.uint8)
        return partial(engine.run, pixels)
    images = generator.standard_normal((batch_size, channels, height, width), dtype=np.float32)
    return partial(engine.run, images)


def time_in_turns(
    actions: Mapping[str, Callable[[], Any]],
    seconds_per_action: float,
    report: Callable[[float, float], None] | None = None,
    min_rounds: int = MIN_ROUNDS,
) -> dict[str, list[NDArray[np.float64]]]:
    """Time the actions in small blocks in turn; return {name: one array of milliseconds per round}."""
    names = list(actions)
    seconds_of_a_run = {name: warm_up(action) for name, action in actions.items()}
    blocks: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    total = seconds_per_action * len(names)
    started = time.perf_counter()
    round_number = 0
    while (gone := time.perf_counter() - started) < total or round_number < min_rounds:
        first = round_number % len(names)
        for name in names[first:] + names[:first]:
            blocks[name].append(time_block(actions[name], seconds_of_a_run[name]))
        round_number += 1
        if report and gone < total:
            report(gone, total)
    if report:
        report(total, total)
    return blocks


def warm_up(action: Callable[[], Any]) -> float:
    """Run the action until it is warm; return the seconds that a run takes."""
    started = time.perf_counter()
    runs, gone = 0, 0.0
    while gone < WARM_UP_SECONDS or (runs < WARM_UP_RUNS and gone < 2 * LONG_RUN_SECONDS):
        action()
        runs, gone = runs + 1, time.perf_counter() - started
    return gone / runs


def time_block(action: Callable[[], Any], seconds_of_a_run: float) -> NDArray[np.float64]:
    """Return the time in milliseconds of each of the runs that fill a block, after one that is not counted."""
    if seconds_of_a_run < LONG_RUN_SECONDS:
        action()
    marks = [time.perf_counter_ns()]
    for _ in range(max(1, round(BLOCK_SECONDS / seconds_of_a_run))):
        action()
        marks.append(time.perf_counter_ns())
    nanoseconds = np.array(marks, dtype=np.int64)
    return (nanoseconds[1:] - nanoseconds[:-1]) / 1e6


def summarize(rounds: list[NDArray[np.float64]], batch_size: int, confidence: float = 0.95) -> Timing:
    """Return median, its interval and the 99th percentile of times in milliseconds, one array per round."""
    pooled = np.concatenate(rounds)
    low, high = median_interval(rounds, confidence)
    p50 = float(np.median(pooled))
    return Timing(
        batch_size=batch_size,
        p50_ms=p50,
        p50_low_ms=min(low, p50),
        p50_high_ms=max(high, p50),
        p99_ms=float(np.percentile(pooled, 99)),
        runs=len(pooled),
        rounds=len(rounds),
    )


def median_interval(
    rounds: list[NDArray[np.float64]], confidence: float, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return a percentile interval of the pooled median; see `quantile_interval`."""
    return quantile_interval(rounds, 0.5, confidence, resamples, seed)


def quantile_interval(
    rounds: list[NDArray[np.float64]], share: float, confidence: float, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return a percentile interval of the pooled quantile below which this share of times lies, by resampling rounds.

    Times of one round resemble each other (clock speed, a neighbour's work); resampling single runs
    would give an interval far too narrow.
    Source: Efron and Tibshirani 1993, section 8.6 (blocks as units).
    """
    pooled = np.concatenate(rounds)
    order = np.argsort(pooled, kind="stable")
    round_of_run = np.repeat(np.arange(len(rounds)), [len(times) for times in rounds])[order]
    generator = np.random.default_rng(seed)
    shares = np.full(len(rounds), 1 / len(rounds))
    quantiles = []
    for draws in generator.multinomial(len(rounds), shares, size=resamples):
        weights = np.cumsum(draws[round_of_run])
        quantiles.append(pooled[order[np.searchsorted(weights, weights[-1] * share)]])
    low, high = np.quantile(quantiles, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
