"""Which models are scored, and what is told of them beside their scores, whatever they were made for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.errors import KingletError
from kinglet.runtime.sessions import softmax
from tasks.artifacts import FINETUNE, SPLIT, ModelCard, model_folders, read_card
from tasks.progress import Report

HELD_OUT = ("validation", "test")


def teacher_name() -> str:
    """Return the name of the fine-tuned model, which all others are compared with."""
    folders = model_folders(FINETUNE)
    if len(folders) != 1:
        raise KingletError(f"{FINETUNE} holds {len(folders)} models, one is needed.", "Run `dvc repro finetune`.")
    return read_card(folders[0]).name


def facts_of(card: ModelCard) -> dict[str, Any]:
    """Return what a reader of the scores wants to know about a model."""
    return {
        "step": card.step,
        "parent": card.parent,
        "control_for": card.control_for,
        "runtime": card.runtime,
        "precision": card.precision,
        "input_size": card.input_size,
        "parameters": card.parameters,
    }


def report_rows(report: Report, name: str, before: float, total: float, rows: float, _: float) -> None:
    """Report the rows of all models and splits together."""
    report(round(before + rows), round(total), name)


def refuse_other_classes(file: Path, found: list[str], classes: list[str]) -> None:
    """Raise KingletError if a model was made for other classes than those of this run."""
    if found != classes:
        raise KingletError(
            f"{file} was made for other classes than {SPLIT / 'classes.json'} lists.",
            "Run `dvc repro`.",
        )


def finite_softmax(logits: NDArray[np.float32], file: Path, split: str) -> NDArray[np.float32]:
    """Return the probabilities of a model's logits on a split; raises KingletError if some are not finite."""
    if not np.isfinite(logits).all():
        raise KingletError(f"{file} gives NaN or infinite logits on {split} images.")
    return softmax(logits)
