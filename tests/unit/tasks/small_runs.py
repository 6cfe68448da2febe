"""What a run leaves, made up: a teacher, its student, and what became of the student."""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.pull_request_comment import Run

CHECKS = [
    {"name": "accuracy", "outcome": "passed", "reason": "At most 0.40 points below.", "flagged": False},
    {"name": "every class", "outcome": "failed", "reason": "a|b <img> @team is at 20 %.", "flagged": False},
    {"name": "memory", "outcome": "not judged", "reason": "No limit.", "flagged": False},
]
LABELS = np.arange(200) % 4


def model(name: str, step: str, parent: str, right: int, p50_ms: float, size_bytes: int) -> tuple[dict, dict]:
    share = right / len(LABELS)
    scores = {
        "step": step,
        "parent": parent,
        "control_for": "",
        "input_size": 24,
        "precision": "int8" if step == "quantize" else "fp32",
        "test": {"accuracy": {"value": share, "low": share - 0.02, "high": share + 0.02}, "n": len(LABELS)},
    }
    latency = {
        "p50_ms": p50_ms,
        "p50_low_ms": p50_ms * 0.99,
        "p50_high_ms": p50_ms * 1.01,
        "size_bytes": size_bytes,
    }
    return scores, latency


def run_of(chosen: str = "student-int8", cpu: str = "EPYC", right: int = 180, front: str = "student") -> Run:
    made = {
        "teacher": model("teacher", "finetune", "", 190, 0.5, 13_480_000),
        "student": model("student", "distill", "teacher", 184, 0.1, 860_000),
        "student-pruned": model("student-pruned", "prune", "student", 150, 0.05, 240_000),
        "student-int8": model("student-int8", "quantize", "student", right, 0.06, 250_000),
    }
    return Run(
        scores={"teacher": "teacher", "models": {name: scores for name, (scores, _) in made.items()}},
        latency={"device": {"cpu": cpu}, "models": {name: latency for name, (_, latency) in made.items()}},
        choice={"chosen": chosen, "front": [front]},
    )


def answers_of(run: Run) -> dict[str, Any]:
    answers = {}
    for name, scores in run.scores["models"].items():
        right = round(scores["test"]["accuracy"]["value"] * len(LABELS))
        answers[name] = {"label": LABELS, "predicted": np.where(np.arange(len(LABELS)) < right, LABELS, 9)}
    return answers
