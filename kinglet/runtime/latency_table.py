"""Latencies measured once and kept: the same models on the same device give the same numbers again.

The table lies outside the outputs of the steps, because wall times change from run to run. An entry
is one measurement: all models of a run, timed in turns, with the conditions. A run takes the oldest
entry under its conditions that holds all its models; so its ratios always come from one measurement,
and a rerun gives the same bytes. A model that no entry holds makes the whole run's set be measured
again, as a new entry; entries are never changed.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kinglet.atomic import read_json, write_json

FORMAT = 1
CACHE_VARIABLE = "KINGLET_CACHE"

Numbers = dict[str, Any]


def table_path() -> Path:
    """Return where the table lies: $KINGLET_CACHE/latency.json, else ~/.cache/kinglet/latency.json."""
    folder = os.environ.get(CACHE_VARIABLE)
    return (Path(folder).expanduser() if folder else Path.home() / ".cache" / "kinglet") / "latency.json"


def recall_or_measure(
    path: Path,
    conditions: Mapping[str, Any],
    models: list[str],
    measure: Callable[[], dict[str, Numbers]],
    warn: Callable[[str], None] | None = None,
) -> dict[str, Numbers]:
    """Return {model: numbers} for these models under these conditions, measured only if the table lacks them.

    conditions: JSON-ready facts that must be equal (device, threads, batch sizes, duration).
    models: SHA-256 of every model file. measure: times all of them in one go. warn: is told in a
    sentence when the table was unreadable; it is moved aside and a new one begun.
    The table is locked from the first look to the last write, also while measuring: two measurements
    at once would disturb each other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")):
        measurements = read_measurements(path, warn or say)
        found = recall(measurements, conditions, models)
        if found is None:
            found = measure()
            measurements.append({"conditions": dict(conditions), "models": found})
            write_json(path, {"format": FORMAT, "measurements": measurements})
        return {model: found[model] for model in models}


def recall(
    measurements: list[dict[str, Any]], conditions: Mapping[str, Any], models: list[str]
) -> dict[str, Numbers] | None:
    """Return the models' numbers of the oldest measurement that holds them all under these conditions, or None."""
    for measurement in measurements:
        if measurement["conditions"] == dict(conditions) and set(models) <= set(measurement["models"]):
            return {model: measurement["models"][model] for model in models}
    return None


def read_measurements(path: Path, warn: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return the table's measurements; a table that cannot be understood is moved aside, and `warn` is told."""
    try:
        table = read_json(path)
        measurements = table["measurements"]
        if table["format"] != FORMAT or not all(
            isinstance(item["conditions"], dict)
            and all(isinstance(numbers, dict) for numbers in item["models"].values())
            for item in measurements
        ):
            raise ValueError("unknown format")
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError):
        aside = free_name(path)
        path.replace(aside)
        warn(f"The latency table {path} cannot be read; it was moved to {aside.name} and all models are measured anew.")
        return []
    return list(measurements)


def free_name(path: Path) -> Path:
    """Return a name beside `path` that no file has."""
    number = 1
    while (aside := path.with_name(f"{path.name}.unreadable-{number}")).exists():
        number += 1
    return aside


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`, waiting for it; the system frees it when the process ends."""
    with path.open("a") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def say(sentence: str) -> None:
    """Print a warning to stderr."""
    print(f"warning: {sentence}", file=sys.stderr)
