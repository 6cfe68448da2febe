"""What a person may say to `kinglet optimize`, checked before anything is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kinglet.adoption.normalizations import ALIASES, NORMALIZATIONS, Normalization
from kinglet.errors import KingletError
from kinglet.evidence.budget import Budget
from kinglet.runtime.preprocessing import FITS
from tasks.result_folder import ResultFolder

MADE_BY = "kinglet optimize"
RESULT = "result.json"
LIMITS = ("latency_ms", "size_mb", "max_accuracy_drop")
MAX_ACCURACY_DROP = 0.01


@dataclass(frozen=True)
class Options:
    """The words of one command line.

    data: a folder, a table, a bucket. classes, preprocessing, mean, std, fit: None where they are to be found out, or
    stand in the file. output_name: of the model's output. max_images: None for all.
    """

    model: Path
    data: str
    output: Path
    budget: Budget
    classes: Path | None = None
    preprocessing: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fit: str | None = None
    input_size: int | None = None
    output_name: str | None = None
    max_images: int | None = 20_000
    threads: int = 1
    seconds: float = 2.0
    seed: int = 0
    overwrite: bool = False


def parse_budget(words: list[str]) -> Budget:
    """Return the budget that `NAME=NUMBER` words say; without a word on it, a drop of one point is allowed.

    Raises KingletError for another name, for no number, and for one out of range.
    """
    limits: dict[str, float] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if name not in LIMITS or not equals:
            raise KingletError(f"--budget {word}: no limit of that name.", f"Write {', '.join(LIMITS)}=NUMBER.")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        allowed = 0 <= value < 1 if name == "max_accuracy_drop" else 0 < value < math.inf
        if not allowed:
            wanted = "a share from 0 up to 1, as 0.01" if name == "max_accuracy_drop" else "a number above 0"
            raise KingletError(f"--budget {word}: {text!r} is not {wanted}.")
        limits[name] = value
    return Budget(
        limits.get("latency_ms"),
        limits.get("size_mb"),
        limits.get("max_accuracy_drop", MAX_ACCURACY_DROP),
        reference="float model",
    )


def described(budget: Budget) -> str:
    """Return the limits in words."""
    said = [f"at most {100 * budget.max_accuracy_drop:g} points below the {budget.reference}"]
    said += [f"at most {budget.latency_ms:g} ms"] if budget.latency_ms is not None else []
    said += [f"at most {budget.size_mb:g} MB"] if budget.size_mb is not None else []
    return ", ".join(said)


def parse_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Return the numbers of a comma-separated list; raises KingletError that names the option for anything else."""
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)):
        raise KingletError(f"{option} {text}: one number or three are wanted.", f"As in {option} 0.485,0.456,0.406.")
    return numbers


class PixelOptions(Protocol):
    """The words of a command line on the scale of the pixels, and the model that they are for."""

    @property
    def model(self) -> Path:
        """The model's file."""

    @property
    def preprocessing(self) -> str | None:
        """The name of a scale."""

    @property
    def mean(self) -> tuple[float, ...] | None:
        """Of pixels in [0, 1]: one number, or one per channel."""

    @property
    def std(self) -> tuple[float, ...] | None:
        """Their standard deviation."""


def named_normalization(options: PixelOptions, channels: int) -> tuple[str, Normalization] | None:
    """Return the scale of the pixels that the options name; None where they name none.

    Raises KingletError for an unknown name, for a mean without a standard deviation, and for contradictions.
    """
    if options.mean is not None or options.std is not None:
        if options.mean is None or options.std is None or options.preprocessing:
            raise KingletError(
                "--mean and --std go together, and without --preprocessing.", "Both are of pixels in [0, 1]."
            )
        mean, std = (numbers * (channels if len(numbers) == 1 else 1) for numbers in (options.mean, options.std))
        if len(mean) != channels or len(std) != channels or min(std) <= 0:
            raise KingletError(
                f"--mean and --std: {channels} numbers each are wanted, and every standard deviation above 0.",
                "They are of pixels in [0, 1].",
            )
        return "as given", Normalization(mean, std)
    if options.preprocessing is None:
        return None
    name = ALIASES.get(options.preprocessing, options.preprocessing)
    if name not in NORMALIZATIONS:
        raise KingletError(
            f"--preprocessing {options.preprocessing}: unknown; known: {', '.join([*NORMALIZATIONS, *ALIASES])}.",
            "Or name the numbers, of pixels in [0, 1]: --mean and --std.",
        )
    return name, NORMALIZATIONS[name].of_channels(channels)


def check(options: Options) -> None:
    """Raise KingletError for options that cannot be followed, before any work is done."""
    if options.fit is not None and options.fit not in FITS:
        raise KingletError(f"--fit {options.fit}: unknown; known: {', '.join(FITS)}.")
    check_output(options)


def check_output(options: Options) -> None:
    """Raise KingletError if the folder for the results holds something that must not be replaced."""
    inputs = [options.model, *([Path(options.data)] if "://" not in options.data else [])]
    folder = ResultFolder(options.output, "--output", MADE_BY, RESULT)
    folder.refuse_what_must_stay(inputs, overwrite=options.overwrite)
