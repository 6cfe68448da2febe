"""Which models are scored, and what is told of them beside their scores, whatever they were made for."""

from __future__ import annotations

from typing import Any

from kinglet.errors import KingletError
from tasks.artifacts import FINETUNE, ModelCard, model_folders, read_card
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
