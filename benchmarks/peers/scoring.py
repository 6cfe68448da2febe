"""Score and time models: the same images and the same turns for all of them, whoever made them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.reasons import PeerError, each_or_reason
from benchmarks.peers.turns import Worker, time_workers
from kinglet.errors import KingletError
from kinglet.evidence.bootstrap import accuracy_interval, paired_interval
from kinglet.runtime.latency import Timing
from tasks.artifacts import TEACHER

# Name in the result: batch size, threads.
LOADS = {"latency": (1, 1), "throughput": (32, 2)}


@dataclass(frozen=True)
class Entrant:
    """A model to score and time: its file, the python that runs it, its test images, and what its row says of it."""

    model: Path
    python: Path
    images: Path
    row: dict[str, Any]


@contextlib.contextmanager
def open_workers(entrants: Mapping[str, Entrant], folder: Path) -> Iterator[dict[str, Worker]]:
    """Yield a worker per model, and end them."""
    workers = {name: Worker(item.python, item.model, folder / f"{name}.log") for name, item in entrants.items()}
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


def answers_of(worker: Worker, images: Path, name: str, folder: Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Return a model's logits for the test images, and what its runtime says of itself."""
    facts = worker.ask("answer", images=str(images), into=str(folder / f"{name}.npy"))
    logits: NDArray[np.float32] = np.load(folder / f"{name}.npy")
    if not np.isfinite(logits).all():
        raise PeerError("its model gives NaN or infinite logits.")
    return logits, facts


def scores_of(logits: Mapping[str, NDArray[np.float32]], labels: NDArray[np.int64]) -> dict[str, dict[str, Any]]:
    """Return accuracy and difference to the teacher, with intervals, of every model."""
    correct = {name: answers.argmax(axis=1) == labels for name, answers in logits.items()}
    return {
        name: {
            "test_accuracy": accuracy_interval(right).to_dict(),
            "difference_to_teacher": paired_interval(right, correct[TEACHER]).to_dict(),
        }
        for name, right in correct.items()
    }


def timings_of(timings: Mapping[str, Timing]) -> dict[str, dict[str, float]]:
    """Return the times of every model as the result keeps them, with the ratio to the teacher's."""
    return {
        name: {
            "p50_ms": round(timing.p50_ms, 4),
            "p50_low_ms": round(timing.p50_low_ms, 4),
            "p50_high_ms": round(timing.p50_high_ms, 4),
            "p99_ms": round(timing.p99_ms, 4),
            "images_per_second": round(timing.images_per_second, 1),
            "times_faster": round(timings[TEACHER].p50_ms / timing.p50_ms, 3),
        }
        for name, timing in timings.items()
    }


def size_bytes(model: Path) -> int:
    """Return the size of a model's file, with the weights that lie beside an OpenVINO file."""
    files = [model, model.with_suffix(".bin")] if model.suffix == ".xml" else [model]
    return sum(file.stat().st_size for file in files)


def score_and_time(
    entrants: Mapping[str, Entrant],
    labels: NDArray[np.int64],
    folder: Path,
    seconds_per_model: float,
    failed: dict[str, str],
) -> dict[str, dict[str, Any]]:
    """Return everything measured about every model that runs; why others do not goes into `failed`."""
    folder.mkdir(parents=True, exist_ok=True)
    with open_workers(entrants, folder) as workers:
        print_progress(f"scoring {len(entrants)} models on {len(labels)} test images")
        answers = each_or_reason(
            list(entrants), lambda name: answers_of(workers[name], entrants[name].images, name, folder), failed
        )
        if TEACHER in failed:
            raise KingletError(f"The teacher itself does not run: {failed[TEACHER]}", f"See {folder / TEACHER}.log.")
        inputs = {name: input_of(entrants[name].images) for name in answers}
        able = {name: workers[name] for name in answers}
        measured: dict[str, dict[str, Any]] = {}
        for load, (batch_size, threads) in LOADS.items():
            print_progress(f"timing {len(able)} models in turns, batch {batch_size}, threads: {threads}")
            timings = time_workers(able, inputs, batch_size, threads, seconds_per_model, failed)
            measured[load] = timings_of(timings)
            able = {name: able[name] for name in timings}
    scores = scores_of({name: logits for name, (logits, _) in answers.items()}, labels)
    return {
        name: {
            **entrants[name].row,
            **answers[name][1],
            **scores[name],
            **{load: of_load[name] for load, of_load in measured.items()},
            "size_bytes": size_bytes(entrants[name].model),
        }
        for name in able
    }


def print_progress(sentence: str) -> None:
    """Print to stderr what is being done."""
    print(sentence, file=sys.stderr, flush=True)


def input_of(images: Path) -> dict[str, Any]:
    """Return shape, without the batch axis, and dtype of the images in a file."""
    stored = np.load(images, mmap_mode="r")
    return {"shape": stored.shape[1:], "dtype": str(stored.dtype)}
