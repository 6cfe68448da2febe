"""One JSON file per benchmark, the only source of the figures in the README; and how repetitions become a figure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, versions
from kinglet.atomic import read_json, write_json
from kinglet.errors import KingletError

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def write_result(
    folder: Path, name: str, *, command: str, repetitions: int, figures: dict[str, Any], date: str = ""
) -> Path:
    """Write `folder`/`name`.json and return its path. date: the UTC day, today's unless given."""
    path = folder / f"{name}.json"
    content = {
        "benchmark": name,
        "command": command,
        "date": date or datetime.now(UTC).date().isoformat(),
        "figures": figures,
        "machine": machine(),
        "repetitions": repetitions,
        "versions": versions(),
    }
    write_json(path, content)
    return path


def read_result(folder: Path, name: str) -> dict[str, Any]:
    """Return the content of `folder`/`name`.json; raises KingletError if there is no such file."""
    try:
        return dict(read_json(folder / f"{name}.json"))
    except FileNotFoundError:
        raise KingletError(
            f"{folder / name}.json does not exist.", f"Run the benchmark that writes {name}.json first."
        ) from None


def shown_command(module: str, arguments: Sequence[str]) -> str:
    """Return the command as a reader can type it: of a path outside the checkout only the last name is shown."""
    shown = [Path(word).name if word.startswith(("/", "..", "~")) else word for word in arguments]
    return " ".join([".venv/bin/python", "-m", f"benchmarks.{module}", *shown])


def spread(values: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """Return median, lowest and highest of the values, and the values in the order in which they came."""
    return {
        "median": round(statistics.median(values), digits),
        "low": round(min(values), digits),
        "high": round(max(values), digits),
        "values": [round(value, digits) for value in values],
    }


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it must be."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
