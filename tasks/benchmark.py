"""Step `benchmark`: latency, throughput, memory and size of every model on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kinglet.atomic import write_json
from kinglet.errors import KingletError
from kinglet.runtime.bundles import RECURRENT
from kinglet.runtime.device import Device, this_device
from kinglet.runtime.engines import ONNXRUNTIME, Engine, open_engine, version_of
from kinglet.runtime.latency import MIN_ROUNDS, Timing, measure
from kinglet.runtime.latency_table import recall_or_measure, table_path
from kinglet.runtime.memory import peak_memory_mb
from tasks.artifacts import ARTIFACTS, BENCHMARK, ModelCard, model_folders, read_card
from tasks.clip_benchmark import open_both_parts, times_of_parts
from tasks.detection_benchmark import decoding_time
from tasks.evidence_settings import Benchmark
from tasks.opened_models import digest_of, files_of
from tasks.parameters import Parameters
from tasks.progress import Report, progress
from tasks.segmentation_benchmark import mask_decoding_time
from tasks.stage import run_stage

# Throughput needs no tail and no narrow interval: a quarter of the time is enough, and few rounds where a batch of
# large images takes seconds.
TIME_SHARE_OF_BATCHES = 0.25
MIN_ROUNDS_OF_BATCHES = 3


@dataclass(frozen=True)
class Subject:
    """A model to be measured: its runtime, its files, the first of which is opened, and (channels, height, width).

    A network over clips has a second one, the recurrent part: what is measured is one frame through both.
    """

    runtime: str
    files: list[Path]
    input_shape: tuple[int, int, int]

    @property
    def key(self) -> str:
        """What the table of latencies knows the model by: the SHA-256 of its files.

        Where it is not ONNX Runtime, whose version is among the conditions, with the runtime and its version.
        """
        digest = digest_of(self.files)
        return digest if self.runtime == ONNXRUNTIME else f"{self.runtime} {version_of(self.runtime)} {digest}"

    def open(self, threads: int) -> Engine:
        """Return the model opened by its runtime."""
        if self.files[-1].name == RECURRENT:
            return open_both_parts(self.files, self.input_shape, threads)
        return open_engine(self.runtime, self.files[0], self.input_shape, threads)


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
    cards = {folder: read_card(folder) for folder in folders}
    subjects = {
        card.name: Subject(card.runtime, files_of(folder, card), card.input_shape) for folder, card in cards.items()
    }
    latency = latencies_of(subjects, settings, device)
    for folder, card in cards.items():
        latency["models"][card.name] |= AFTERWARDS[card.problem](folder, card)
    write_json(BENCHMARK / "latency.json", latency)


def latencies_of(subjects: dict[str, Subject], settings: Benchmark, device: Device) -> dict[str, Any]:
    """Return the content of latency.json for these models by name, from the table where this machine knows them."""
    keys = {name: subject.key for name, subject in subjects.items()}
    # Two names may hold the same bytes (a model that quantization left as it was): measured once.
    by_key = {key: subjects[name] for name, key in keys.items()}
    conditions = conditions_of(device, settings.threads, batch_sizes(settings), settings.seconds_per_model)
    found = recall_or_measure(table_path(), conditions, sorted(by_key), lambda: measure_all(by_key, settings))
    return {
        "device": device.to_dict(),
        "threads": settings.threads,
        "seconds_per_model": settings.seconds_per_model,
        "models": {
            name: {
                **found[key],
                **runtime_of(subjects[name]),
                "sha256": digest_of(subjects[name].files),
                "size_bytes": sum(file.stat().st_size for file in subjects[name].files),
            }
            for name, key in keys.items()
        },
    }


def runtime_of(subject: Subject) -> dict[str, str]:
    """Return the runtime and its version under one key; nothing for ONNX Runtime, which the device names."""
    if subject.runtime == ONNXRUNTIME:
        return {}
    return {"runtime": f"{subject.runtime} {version_of(subject.runtime)}"}


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


def measure_all(subjects: dict[str, Subject], settings: Benchmark) -> dict[str, dict[str, Any]]:
    """Return {model's key: numbers} of all models, measured in turns."""
    engines = {key: subject.open(settings.threads) for key, subject in subjects.items()}
    timings: dict[int, dict[str, Timing]] = {}
    for batch_size in batch_sizes(settings):
        share, rounds = (1, MIN_ROUNDS) if batch_size == 1 else (TIME_SHARE_OF_BATCHES, MIN_ROUNDS_OF_BATCHES)
        with progress(f"benchmark, batch {batch_size}, seconds") as report:
            timings[batch_size] = measure(
                engines,
                batch_size,
                settings.seconds_per_model * share,
                report=partial(report_seconds, report),
                min_rounds=rounds,
            )
    return {
        key: {
            **latency_numbers(timings[1][key]),
            "throughput_per_s": {
                str(size): round(of_size[key].images_per_second, 1) for size, of_size in timings.items()
            },
            "peak_memory_mb": round(memory_of(subject, settings.threads), 1),
        }
        for key, subject in subjects.items()
    }


def memory_of(subject: Subject, threads: int) -> float:
    """Return the megabytes of memory that a model needs at its peak above its empty runtime."""
    channels, _, input_size = subject.input_shape
    return peak_memory_mb(subject.files[0], threads, 1, input_size, subject.runtime, channels)


def report_seconds(report: Report, gone: float, total: float) -> None:
    """Report seconds to the tenth."""
    report(round(gone, 1), round(total, 1))


def latency_numbers(timing: Timing) -> dict[str, float]:
    """Return the latency of a batch in milliseconds, to the tenth of a microsecond, and how often it was timed."""
    return {
        "p50_ms": round(timing.p50_ms, 4),
        "p50_low_ms": round(timing.p50_low_ms, 4),
        "p50_high_ms": round(timing.p50_high_ms, 4),
        "p99_ms": round(timing.p99_ms, 4),
        "runs": timing.runs,
        "rounds": timing.rounds,
    }


# What is measured of the work that follows on a model's own, by the problem.
AFTERWARDS: dict[str, Callable[[Path, ModelCard], dict[str, Any]]] = {
    "classification": lambda *_: {},
    "detection": lambda folder, card: {"decode": decoding_time(folder, card)},
    "segmentation": lambda folder, card: {"decode": mask_decoding_time(folder, card)},
    "video": lambda folder, card: {"parts": times_of_parts(files_of(folder, card), card.input_shape)},
}


if __name__ == "__main__":
    run_stage(run)
