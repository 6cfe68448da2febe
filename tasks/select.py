"""Step `select`: choose the model within the budget, on the validation scores."""

from __future__ import annotations

import csv
import io
from typing import Any

from kinglet.atomic import read_json, write_json, write_text
from kinglet.errors import KingletError
from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.budget import Budget, Candidate, choose, front_of, nearest_misses
from kinglet.runtime.engines import ONNXRUNTIME, RUNTIMES
from tasks.artifacts import ARTIFACTS, BENCHMARK, EVALUATE, SELECT
from tasks.evidence_settings import Select as Settings
from tasks.parameters import Parameters
from tasks.stage import run_stage

ACCURACY = "accuracy"
# What sentences call the scores that models are chosen by.
WORDS = {ACCURACY: "accuracy", "map_50": "mAP50", "miou": "mIoU"}


def run(parameters: Parameters) -> None:
    """Write choice.json and front.csv; raises KingletError, and writes nothing, if no model fits the budget."""
    evaluation = read_json(EVALUATE / "scores.json")
    scores, headline = evaluation["models"], evaluation.get("headline", ACCURACY)
    latencies = read_json(BENCHMARK / "latency.json")["models"]
    if set(scores) != set(latencies):
        odd = sorted(set(scores) ^ set(latencies))
        raise KingletError(f"evaluate and benchmark saw different models: {', '.join(odd)}.", "Run `dvc repro`.")
    candidates = [candidate(name, scores[name], latencies[name], headline) for name in sorted(scores)]
    settings = parameters.select
    budget = budget_of(settings, headline)
    choice = choose(candidates, budget)
    if choice is None:
        raise KingletError(
            f"No model fits the budget ({describe(settings)}). Nearest: "
            + "; ".join(nearest_misses(candidates, budget))
            + ".",
            "Widen the limits under `select` in params.yaml, or give the models more epochs.",
        )
    name = choice.chosen.name
    front = front_of(candidates)
    write_text(SELECT / "front.csv", front_csv(candidates, scores, front))
    write_json(
        SELECT / "choice.json",
        {
            "chosen": name,
            "reason": choice.reason,
            **files_of(name, scores),
            f"validation_{headline}": choice.chosen.accuracy,
            "latency_ms": choice.chosen.latency_ms.value,
            "size_mb": choice.chosen.size_mb,
            "candidates": [item.name for item in candidates],
            "front": front,
        },
    )


def files_of(name: str, scores: dict[str, Any]) -> dict[str, str]:
    """Return a model's runtime, the file that it opens, and the ONNX file that this is or was made from."""
    runtime = scores[name].get("runtime", ONNXRUNTIME)
    file = ARTIFACTS / scores[name]["step"] / name / RUNTIMES[runtime].files[0]
    origin = file
    if runtime != ONNXRUNTIME:
        parent = scores[name]["parent"]
        origin = ARTIFACTS / scores[parent]["step"] / parent / RUNTIMES[ONNXRUNTIME].files[0]
    return {"runtime": runtime, "model": file.as_posix(), "onnx": origin.as_posix()}


def budget_of(settings: Settings, headline: str) -> Budget:
    """Return the limits, and the word for what models are chosen by."""
    return Budget(
        settings.latency_ms, settings.size_mb, settings.max_accuracy_drop, settings.max_doubt, score=WORDS[headline]
    )


def candidate(name: str, scores: dict[str, Any], latency: dict[str, Any], headline: str = ACCURACY) -> Candidate:
    """Return the model as the choice sees it: validation scores only. headline: the score that it is chosen by."""
    return Candidate(
        name=name,
        latency_ms=Interval(latency["p50_ms"], latency["p50_low_ms"], latency["p50_high_ms"]),
        size_mb=latency["size_bytes"] / 1e6,
        accuracy=scores["validation"][headline]["value"],
        difference=Interval(**scores["difference_to_teacher"]["validation"]),
    )


def describe(settings: Settings) -> str:
    """Return the limits in words."""
    limits = [f"at most {100 * settings.max_accuracy_drop:g} points below the teacher"]
    if settings.max_doubt is not None:
        limits.append(f"with an interval of at most {100 * settings.max_doubt:g} points to that side")
    if settings.latency_ms is not None:
        limits.append(f"at most {settings.latency_ms:g} ms")
    if settings.size_mb is not None:
        limits.append(f"at most {settings.size_mb:g} MB")
    return ", ".join(limits)


def front_csv(candidates: list[Candidate], scores: dict[str, Any], front: list[str]) -> str:
    """Return the table for `dvc plots`, fastest first."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(["model", "step", "latency_ms", "size_mb", "validation_score", "on_front"])
    for item in sorted(candidates, key=lambda item: (item.latency_ms.value, item.name)):
        row = [item.name, scores[item.name]["step"], item.latency_ms.value, round(item.size_mb, 4), item.accuracy]
        writer.writerow([*row, str(item.name in front).lower()])
    return written.getvalue()


if __name__ == "__main__":
    run_stage(run)
