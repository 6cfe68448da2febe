"""Class names and the numbers that a model knows them by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinglet.errors import KingletError

NAMES_IN_ERROR = 5


def read_class_names(path: Path) -> list[str]:
    """Return the class names in a file: a JSON list, or one name per line, in the order of the model's outputs.

    Raises KingletError if there is no such file, it is no text, or a name occurs twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise KingletError(f"--classes: {path} is no file.", "Name a text file with one class per line.") from None
    except UnicodeDecodeError:
        raise KingletError(f"--classes: {path} is not UTF-8 text.", "Write one class name per line.") from None
    try:
        names = json.loads(text)
    except ValueError:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise KingletError(f"--classes: {path} is no list of names.", "Write one class name per line, or a JSON list.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise KingletError(f"--classes: {path} names {', '.join(twice[:NAMES_IN_ERROR])} twice.")
    return names


def number_labels(
    labels: Sequence[str], n_classes: int, names: list[str] | None, model: str
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the class names in the order of a model's outputs, and the number of each label, int64 (n,).

    names: of the model's outputs; None stands for the labels' own names, sorted. Where the names are known, the
    labels may be fewer. model: what errors call it.
    Raises KingletError if names and outputs differ in number, or a label is no name.
    """
    found = sorted(set(labels))
    if names is None:
        if len(found) != n_classes:
            raise KingletError(
                f"{model} has {n_classes} outputs, and the data {len(found)} classes ({shortened(found)}).",
                "Name the classes of the outputs in their order: --classes FILE, one name per line.",
            )
        names = found
    if len(names) != n_classes:
        raise KingletError(
            f"{model} has {n_classes} outputs, and {len(names)} class names are given ({shortened(names)}).",
            "Name one class for each output, in their order: --classes FILE, one name per line.",
        )
    numbers = {name: number for number, name in enumerate(names)}
    unknown = [label for label in found if label not in numbers]
    if unknown:
        raise KingletError(
            f"{model} knows no class {shortened(unknown)}; it knows {shortened(names)}.",
            "Rename the folders, or name the classes of the outputs: --classes FILE, one name per line.",
        )
    return names, np.array([numbers[label] for label in labels], np.int64)


def shortened(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - NAMES_IN_ERROR
    return ", ".join(names[:NAMES_IN_ERROR]) + (f" and {more} more" if more > 0 else "")
