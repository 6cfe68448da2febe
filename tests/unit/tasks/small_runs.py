"""What a run leaves, made up: a teacher, its student, and what became of the student."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from kinglet.atomic import write_json
from tasks.artifacts import BUNDLE, VERDICT
from tasks.champion import bundle_digest
from tasks.gate import champion_digest, policy_of
from tasks.parameters import load_parameters
from tasks.pull_request_comment import SOURCES, Run

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


def write_run(word: str) -> None:
    """Write beside a bundle what the other steps of a run leave, as far as a comment reads it.

    word: of the gate, accepted or refused.
    """
    run, parameters = run_of(), load_parameters()
    for name, path in SOURCES.items():
        write_json(path, getattr(run, name))
    tables = []
    for name, answers in answers_of(run).items():
        n = len(answers["label"])
        columns = {"model": [name] * n, "split": ["test"] * n, "index": range(n), "path": ["a.png"] * n}
        tables.append(pa.table({**columns, **answers, "confidence": [0.5] * n}))
    pyarrow.parquet.write_table(pa.concat_tables(tables), SOURCES["scores"].with_name("predictions.parquet"))
    verdict = {
        "verdict": word,
        "paragraph": f"{word.capitalize()}: student-int8 was judged.",
        "challenger": {"model": "student-int8", "bundle": bundle_digest(BUNDLE)},
        "champion": {"folder": "champion", "bundle": champion_digest(parameters)},
        "policy": policy_of(parameters),
        "checks": CHECKS,
    }
    write_json(VERDICT, verdict)
