"""What a run leaves, for the person who started it: the table of the models, and where the time went."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kinglet.atomic import read_json
from tasks.artifacts import BENCHMARK, EVALUATE, FINETUNE, REPORT, SELECT, SOURCE_FACTS, VERDICT
from tasks.generated_data import GENERATED_SENTENCE

SCORES = EVALUATE / "scores.json"
LATENCY = BENCHMARK / "latency.json"
CHOICE = SELECT / "choice.json"
REPORT_PAGE = REPORT / "report.html"
# The scores of networks that do not answer with one class, and how a column's title ends with them.
WORDS = {"map_50": " mAP50", "miou": " mIoU"}


@dataclass(frozen=True)
class Row:
    """One model of the table; None where a step has not measured it.

    Accuracies are shares in [0, 1]; detectors have map_50 in their place, segmenters miou. times_faster: the teacher's
    median latency over this model's.
    """

    name: str
    step: str
    validation_accuracy: float | None
    test_accuracy: float | None
    validation_map_50: float | None
    test_map_50: float | None
    validation_miou: float | None
    test_miou: float | None
    p50_ms: float | None
    p99_ms: float | None
    size_bytes: int | None
    times_faster: float | None
    chosen: bool


@dataclass(frozen=True)
class Spent:
    """Where a run's wall time went, in seconds; `work` is the time in which at least one step worked."""

    total_seconds: float
    work_seconds: float

    @property
    def orchestration_share(self) -> float:
        """Share of the wall time that no step worked, in [0, 1]."""
        return max(0.0, 1 - self.work_seconds / self.total_seconds) if self.total_seconds else 0.0


def model_rows(scores: dict[str, Any], latency: dict[str, Any], choice: dict[str, Any]) -> list[Row]:
    """Return one row per scored model, in the order of the steps' results, the teacher first.

    scores, latency, choice: the contents of scores.json, latency.json and choice.json.
    """
    models = scores.get("models", {})
    speeds = latency.get("models", {})
    teachers = [name for name, model in models.items() if model.get("step") == FINETUNE.name]
    teacher_ms = speeds.get(teachers[0], {}).get("p50_ms") if teachers else None
    rows = []
    for name in sorted(models, key=lambda name: (name not in teachers, name)):
        speed = speeds.get(name, {})
        rows.append(
            Row(
                name=name,
                step=str(models[name].get("step", "")),
                validation_accuracy=score(models[name], "validation", "accuracy"),
                test_accuracy=score(models[name], "test", "accuracy"),
                validation_map_50=score(models[name], "validation", "map_50"),
                test_map_50=score(models[name], "test", "map_50"),
                validation_miou=score(models[name], "validation", "miou"),
                test_miou=score(models[name], "test", "miou"),
                p50_ms=speed.get("p50_ms"),
                p99_ms=speed.get("p99_ms"),
                size_bytes=speed.get("size_bytes"),
                times_faster=teacher_ms / speed["p50_ms"] if teacher_ms and speed.get("p50_ms") else None,
                chosen=name == choice.get("chosen"),
            )
        )
    return rows


def score(model: dict[str, Any], split: str, name: str) -> float | None:
    """Return a model's score of this name on a split, None when it was not scored there, or not by it."""
    value = model.get(split, {}).get(name)
    return value.get("value") if isinstance(value, dict) else value


def spent(timings: dict[str, dict[str, Any]], started: float, ended: float) -> Spent:
    """Return where the time of a run went that began and ended at these seconds since the epoch.

    timings: {stage: {started, ended}}; stages that worked side by side count once, those of other
    runs not at all.
    """
    spans = sorted((t["started"], t["ended"]) for t in timings.values() if t["started"] >= started)
    work, reached = 0.0, started
    for begin, end in spans:
        work += max(0.0, min(end, ended) - max(begin, reached))
        reached = max(reached, end)
    return Spent(ended - started, work)


def summary(outcomes: dict[str, str], times: Spent) -> dict[str, Any]:
    """Return the result of a run as JSON-ready values, from the files that its steps left."""
    choice, verdict = read_if_there(CHOICE), read_if_there(VERDICT)
    rows = model_rows(read_if_there(SCORES), read_if_there(LATENCY), choice)
    return {
        "stages": outcomes,
        "models": [vars(row) for row in rows],
        "chosen": choice.get("chosen"),
        "reason": choice.get("reason"),
        "generated": GENERATED_SENTENCE if "generated" in read_if_there(SOURCE_FACTS) else None,
        "onnx": choice.get("onnx"),
        "model": choice.get("model"),
        "gate": {key: verdict[key] for key in ("verdict", "paragraph")} if verdict else None,
        "report": str(REPORT_PAGE) if REPORT_PAGE.exists() else None,
        "seconds": round(times.total_seconds, 2),
        "orchestration_seconds": round(times.total_seconds - times.work_seconds, 2),
        "orchestration_share": round(times.orchestration_share, 4),
    }


def read_if_there(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`, an empty one when a pipeline has no such step."""
    return dict(read_json(path)) if path.exists() else {}


def print_summary(result: dict[str, Any], console: Console) -> None:
    """Print the models as a table, then the paths and the time, for people."""
    if result["models"]:
        console.print(models_table(result["models"]))
        if result["generated"]:
            console.print(result["generated"], soft_wrap=True)
    if result["reason"]:
        console.print(f"chosen: {result['chosen']}. {result['reason']}", soft_wrap=True)
    if result["gate"]:
        console.print(f"gate: {result['gate']['paragraph']}", soft_wrap=True, markup=False)
    for label, key in (("model:  ", "model"), ("report: ", "report")):
        if result[key]:
            console.print(f"{label}{result[key]}", soft_wrap=True)
    console.print(
        f"{stages_in_words(result['stages'])} in {duration(result['seconds'])}, "
        f"of which orchestration {duration(result['orchestration_seconds'])} ({result['orchestration_share']:.0%}).",
        soft_wrap=True,
    )


def models_table(models: list[dict[str, Any]]) -> Table:
    """Return the table of all models; the chosen one is marked by a sign, not by colour alone."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("model", no_wrap=True)
    measured = [key for key in WORDS if any(model.get(f"test_{key}") is not None for model in models)]
    shown = measured[0] if measured else "accuracy"
    word = WORDS.get(shown, "")
    for title in (f"validation{word}", f"test{word}", "p50 ms", "p99 ms", "size MB", "faster"):
        table.add_column(title, justify="right", no_wrap=True)
    for model in models:
        size = model["size_bytes"]
        table.add_row(
            ("* " if model["chosen"] else "  ") + model["name"],
            number(model[f"validation_{shown}"], ".4f"),
            number(model[f"test_{shown}"], ".4f"),
            number(model["p50_ms"], ".3f"),
            number(model["p99_ms"], ".3f"),
            number(None if size is None else size / 1e6, ".2f"),
            number(model["times_faster"], ".1f", "x"),
            style="bold" if model["chosen"] else None,
        )
    return table


def number(value: float | None, form: str, unit: str = "") -> str:
    """Return a number in the given form, or a dash where there is none."""
    return "-" if value is None else f"{value:{form}}{unit}"


def duration(seconds: float) -> str:
    """Return seconds as people say them: 8.2 s, 12 min 05 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def stages_in_words(outcomes: dict[str, str]) -> str:
    """Return how many stages ran, were restored and were unchanged, as a clause."""
    counts: dict[str, int] = {}
    for outcome in outcomes.values():
        counts[outcome] = counts.get(outcome, 0) + 1
    said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    return f"{len(outcomes)} stages ({said or 'none'})"
