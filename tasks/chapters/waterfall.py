"""The chapter `waterfall`: the way from the reference to the chosen model, and what each step cost."""

from __future__ import annotations

from typing import Any

from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.waterfall_chart import Panel, Step, waterfall
from tasks.report_rows import difference_on_test, percent, signed

TIMES = "\u00d7"
ROBUSTNESS = "mean_corruption_accuracy"


def chapter(
    rows: dict[str, Any],
    answers: dict[str, Any],
    chosen: str,
    robustness: dict[str, Any] | None,
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    """Return what the chapter shows: {"rows", "total", "charts", "corrupted"}.

    rows: of all models, as `report_rows.model_rows` makes them. answers: to the test images, by model. robustness:
    the content of robustness/scores.json, None where corrupted images were not scored. total: from the first model
    to the chosen one, None if they are the same. corrupted: whether all models of the way have scores there.
    """
    names = lineage(rows, chosen)
    of_models = (robustness or {}).get("models", {})
    chain = [
        {
            **rows[name],
            "corrupted": of_models.get(name, {}).get(ROBUSTNESS),
            "corrupted_to_teacher": of_models.get(name, {}).get("difference_to_teacher"),
            "step": change(rows, answers, parent, name, confidence, seed) if parent else None,
        }
        for parent, name in zip(["", *names[:-1]], names, strict=True)
    ]
    total = change(rows, answers, names[0], chosen, confidence, seed) if len(names) > 1 else None
    corrupted = all(row["corrupted"] for row in chain)
    titles = [(row["name"], row["kind"]) for row in chain]
    panels = panels_of(chain, corrupted)
    return {
        "rows": chain,
        "first": names[0],
        "total": total,
        "corrupted": any(row["corrupted"] for row in chain),
        "charts": {
            "wide": waterfall(titles, panels, width=1000, narrow=False),
            "narrow": waterfall(titles, panels, width=380, narrow=True),
        },
    }


def lineage(rows: dict[str, Any], chosen: str) -> list[str]:
    """Return the names of the models from which the chosen one was made, one from the other, the first one first."""
    names: list[str] = []
    name = chosen
    while name in rows and name not in names:
        names.insert(0, name)
        name = rows[name]["parent"]
    return names


def change(
    rows: dict[str, Any], answers: dict[str, Any], before: str, after: str, confidence: float, seed: int
) -> dict[str, Any]:
    """Return what lies between two models: paired difference of test accuracy, ratios of latency and of size.

    The interval of the latencies' ratio takes the unfavourable ends of both, so it is rather too wide.
    """
    one, other = rows[before], rows[after]
    latency = Interval(
        other["p50_ms"] / one["p50_ms"],
        other["p50_low_ms"] / one["p50_high_ms"],
        other["p50_high_ms"] / one["p50_low_ms"],
    )
    return {
        **difference_on_test(answers, after, before, confidence, seed),
        "latency": latency.to_dict(),
        "latency_established": not latency.low <= 1 <= latency.high,
        "size": other["size_bytes"] / one["size_bytes"],
    }


def panels_of(chain: list[dict[str, Any]], corrupted: bool) -> list[Panel]:
    """Return the panels of the chart: accuracy, on corrupted images where that was measured, latency, size."""
    shares = [Panel("test accuracy, %", [accuracy_step(row) for row in chain])]
    if corrupted:
        pairs = zip([None, *chain[:-1]], chain, strict=True)
        shares.append(Panel("under corruption, %", [corrupted_step(row, before) for before, row in pairs]))
    return [
        *shares,
        Panel("latency, ms (log.)", [latency_step(row) for row in chain], logarithmic=True),
        Panel("size, MB (log.)", [size_step(row) for row in chain], logarithmic=True),
    ]


def accuracy_step(row: dict[str, Any]) -> Step:
    """Return a model's accuracy; the change is established where its paired interval leaves zero out."""
    value, step = in_percent(row["test"]["accuracy"]), row["step"]
    if step is None:
        return Step(value, percent(row["test"]["accuracy"]["value"]))
    difference = step["difference"]["value"]
    return Step(
        value, percent(row["test"]["accuracy"]["value"]), signed(difference), tone(difference, step["established"])
    )


def corrupted_step(row: dict[str, Any], before: dict[str, Any] | None) -> Step:
    """Return a model's accuracy on corrupted images; the change is established where the two intervals lie apart."""
    of_row = row["corrupted"]
    value = in_percent(of_row)
    if before is None:
        return Step(value, percent(of_row["value"]))
    of_before = before["corrupted"]
    difference = of_row["value"] - of_before["value"]
    apart = of_row["low"] > of_before["high"] or of_row["high"] < of_before["low"]
    return Step(value, percent(of_row["value"]), signed(difference), tone(difference, apart))


def latency_step(row: dict[str, Any]) -> Step:
    """Return a model's latency; less is better."""
    value, step = Interval(row["p50_ms"], row["p50_low_ms"], row["p50_high_ms"]), row["step"]
    said = f"{row['p50_ms']:.3f}"
    if step is None:
        return Step(value, said)
    ratio = step["latency"]["value"]
    return Step(value, said, f"{TIMES}{ratio:.2f}", tone(1 - ratio, step["latency_established"]))


def size_step(row: dict[str, Any]) -> Step:
    """Return a model's size, which is exact; less is better."""
    value, step = Interval(row["size_mb"], row["size_mb"], row["size_mb"]), row["step"]
    said = f"{row['size_mb']:.2f}"
    return (
        Step(value, said)
        if step is None
        else Step(value, said, f"{TIMES}{step['size']:.2f}", tone(1 - step["size"], True))
    )


def in_percent(share: dict[str, float]) -> Interval:
    """Return an interval of shares in percent."""
    return Interval(*(100 * share[end] for end in ("value", "low", "high")))


def tone(gain: float, established: bool) -> str:
    """Return how a change is drawn: up for better, down for worse, mute where it is not established."""
    return "mute" if not established or gain == 0 else "up" if gain > 0 else "down"
