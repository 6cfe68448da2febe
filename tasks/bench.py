"""`kinglet bench`: how fast, how big and how hungry ONNX files of images are on this machine, measured in turns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kinglet.adoption.onnx_file import size_on_disk
from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.any_model import action_of
from kinglet.runtime.device import Device, this_device
from kinglet.runtime.latency import quantile_interval, summarize, time_in_turns
from kinglet.runtime.memory import peak_memory_mb
from kinglet.runtime.vnni import products_saturate
from tasks.benchmark import latency_numbers, report_seconds
from tasks.progress import progress

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Conditions:
    """How the files are measured. seconds: given to each. input_size: in pixels, where a model leaves it open."""

    threads: int
    batch_size: int
    seconds: float
    input_size: int | None = None


def run(paths: list[Path], conditions: Conditions) -> dict[str, Any]:
    """Return the conditions and, in the order given, the numbers of every file, JSON-ready.

    paths: ONNX files, quantized or not, or bundles.
    Raises KingletError for what is no such file, and for more threads than there are processors.
    """
    device = this_device()
    refuse_too_many_threads(conditions.threads, device)
    files = {str(path): file_of(path) for path in paths}
    actions = {
        name: action_of(file, conditions.threads, conditions.batch_size, conditions.input_size)
        for name, file in files.items()
    }
    refuse_what_cannot_run(actions)
    with progress("bench, seconds") as report:
        rounds = time_in_turns(actions, conditions.seconds, partial(report_seconds, report))
    return {
        "device": device.to_dict(),
        "threads": conditions.threads,
        "batch_size": conditions.batch_size,
        "seconds_per_model": conditions.seconds,
        "confidence": CONFIDENCE,
        "models": [
            {"name": name, **numbers_of(rounds[name], conditions), **facts_of(file, conditions)}
            for name, file in files.items()
        ],
    }


def refuse_too_many_threads(threads: int, device: Device) -> None:
    """Raise KingletError for more threads than this process may use processors."""
    if threads > device.cores:
        raise KingletError(
            f"--threads is {threads}, but this machine grants {device.cores} processors.", "Lower --threads."
        )


def file_of(path: Path) -> Path:
    """Return the ONNX file that a path means: itself, or of a bundle the one that is opened on this processor."""
    if path.is_dir():
        names = bundles.verify(path)
        return path / (bundles.WITHOUT_VNNI if products_saturate() and bundles.WITHOUT_VNNI in names else bundles.MODEL)
    if not path.is_file():
        raise KingletError(f"{path} does not exist (looked in {Path.cwd()}).", "Name an .onnx file, or a bundle.")
    return path


def refuse_what_cannot_run(actions: dict[str, Any]) -> None:
    """Run every model once; raise KingletError in the runtime's words for one that fails."""
    for name, action in actions.items():
        try:
            action()
        except Exception as error:
            words = " ".join(str(error).split())[:300]
            raise KingletError(
                f"{name} cannot be run by onnxruntime: {words}", "Try another --batch-size or --input-size."
            ) from error


def numbers_of(rounds: list[np.ndarray], conditions: Conditions) -> dict[str, Any]:
    """Return latency in milliseconds per batch, with intervals by resampling rounds, and images per second."""
    timing = summarize(rounds, conditions.batch_size, CONFIDENCE)
    low, high = quantile_interval(rounds, 0.99, CONFIDENCE)
    return {
        **latency_numbers(timing),
        "p99_low_ms": round(min(low, timing.p99_ms), 4),
        "p99_high_ms": round(max(high, timing.p99_ms), 4),
        "images_per_s": round(timing.images_per_second, 1),
    }


def facts_of(file: Path, conditions: Conditions) -> dict[str, Any]:
    """Return peak memory and size of a file, and which file it is."""
    memory = peak_memory_mb(file, conditions.threads, conditions.batch_size, conditions.input_size)
    return {
        "file": file.as_posix(),
        "sha256": bundles.sha256_of(file),
        "size_bytes": size_on_disk(file),
        "peak_memory_mb": round(memory, 1),
    }
