"""Step `benchmark`: latency, throughput, memory and size of every ONNX file on this machine."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from kinglet.atomic import write_json
from kinglet.errors import KingletError
from kinglet.runtime.bundles import sha256_of
from kinglet.runtime.device import Device, this_device
from kinglet.runtime.latency import Timing, measure
from kinglet.runtime.latency_table import recall_or_measure, table_path
from kinglet.runtime.memory import peak_memory_mb
from kinglet.runtime.sessions import open_session
from tasks.artifacts import ARTIFACTS, BENCHMARK, model_folders, read_card
from tasks.parameters import Benchmark, Parameters
from tasks.progress import Report, progress
from tasks.stage import run_stage

# Throughput needs no tail and no narrow interval: a quarter of the time is enough.
TIME_SHARE_OF_BATCHES = 0.25


def run(parameters: Parameters) -> None:
    """Write latency.json, from the table of latencies where this machine knows the models."""
    settings = parameters.benchmark
    device = this_device()
    if settings.threads > device.cores:
        raise KingletError(
            f"benchmark.threads is {settings.threads}, but this machine grants {device.cores} processors.",
            "Lower benchmark.threads in params.yaml.",
        )
    folders = model_folders()
    if not folders:
        raise KingletError(
            f"{ARTIFACTS} holds no models to measure.", "Run `dvc repro`, which runs what is missing first."
        )
    files = {read_card(folder).name: folder / "model.onnx" for folder in folders}
    write_json(BENCHMARK / "latency.json", latencies_of(files, settings, device))


def latencies_of(files: dict[str, Path], settings: Benchmark, device: Device) -> dict[str, Any]:
    """Return the content of latency.json for these files by model, from the table where this machine knows them."""
    checksums = {name: sha256_of(path) for name, path in files.items()}
    # Two names may hold the same bytes (a model that quantization left as it was): measured once.
    by_checksum = {checksum: files[name] for name, checksum in checksums.items()}
    conditions = conditions_of(device, settings.threads, batch_sizes(settings), settings.seconds_per_model)
    found = recall_or_measure(table_path(), conditions, sorted(by_checksum), lambda: measure_all(by_checksum, settings))
    return {
        "device": device.to_dict(),
        "threads": settings.threads,
        "seconds_per_model": settings.seconds_per_model,
        "models": {
            name: {**found[checksum], "sha256": checksum, "size_bytes": files[name].stat().st_size}
            for name, checksum in checksums.items()
        },
    }


def conditions_of(device: Device, threads: int, batch_sizes: list[int], seconds_per_model: float) -> dict[str, Any]:
    """Return the conditions under which the table of latencies keeps a measurement."""
    return {
        "device": device.fingerprint,
        "onnxruntime": device.onnxruntime,
        "threads": threads,
        "batch_sizes": batch_sizes,
        "seconds_per_model": seconds_per_model,
    }


def batch_sizes(settings: Benchmark) -> list[int]:
    """Return the batch sizes to measure, ascending; latency is always that of batch 1."""
    return sorted({1, *settings.batch_sizes})


def measure_all(files: dict[str, Path], settings: Benchmark) -> dict[str, dict[str, Any]]:
    """Return {model: numbers} of all models, measured in turns."""
    sessions = {checksum: open_session(path, settings.threads) for checksum, path in files.items()}
    timings: dict[int, dict[str, Timing]] = {}
    for batch_size in batch_sizes(settings):
        share = 1 if batch_size == 1 else TIME_SHARE_OF_BATCHES
        with progress(f"benchmark, batch {batch_size}, seconds") as report:
            timings[batch_size] = measure(
                sessions, batch_size, settings.seconds_per_model * share, report=partial(report_seconds, report)
            )
    return {
        checksum: {
            **latency_numbers(timings[1][checksum]),
            "throughput_per_s": {
                str(size): round(of_size[checksum].images_per_second, 1) for size, of_size in timings.items()
            },
            "peak_memory_mb": round(peak_memory_mb(files[checksum], settings.threads), 1),
        }
        for checksum in files
    }


def report_seconds(report: Report, gone: float, total: float) -> None:
    """Report seconds to the tenth."""
    report(round(gone, 1), round(total, 1))


def latency_numbers(timing: Timing) -> dict[str, float]:
    """Return the latency of batch 1 in milliseconds, to the tenth of a microsecond, and how often it was timed."""
    return {
        "p50_ms": round(timing.p50_ms, 4),
        "p50_low_ms": round(timing.p50_low_ms, 4),
        "p50_high_ms": round(timing.p50_high_ms, 4),
        "p99_ms": round(timing.p99_ms, 4),
        "runs": timing.runs,
        "rounds": timing.rounds,
    }


if __name__ == "__main__":
    run_stage(run)
