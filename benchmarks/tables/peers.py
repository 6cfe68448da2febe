"""README's section on Kinglet beside its peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.machine import machine_in_words
from benchmarks.results import counted, read_result
from benchmarks.tables.words import accuracy_in_words, duration, markdown_table, megabytes, points_in_words


def peers_section(results: Path) -> str:
    """Return the section on Kinglet beside its peers, a table for each result; nothing if none was measured."""
    tables = [peers_table(read_result(results, path.stem)) for path in sorted(results.glob("peers*.json"))]
    return "\n\n".join(["## Beside its peers", *tables]) if tables else ""


def peers_table(result: dict[str, Any]) -> str:
    """Return in words how Kinglet and its peers were measured on one data set, and the table."""
    figures = result["figures"]
    loads = figures["loads"].values()
    conditions = "; ".join(f"batch {load['batch_size']} on {counted(load['threads'], 'thread')}" for load in loads)
    told = (
        f"**{figures['data']}.** "
        f"The same network, data and {figures['calibration_images']} calibration images for each, its own documented "
        f"recipe; scored on {figures['test_images']:,} test images by the same code, timed in turns ({conditions}). "
        f"Ratios are to the teacher in fp32. Who trains has {duration(figures['training_seconds'])} for it. "
        f"{machine_in_words(result['machine'])}, {result['date']}, `{result['command']}`."
    )
    heads = [
        "made by",
        "settings",
        "test accuracy",
        "points to teacher",
        "p50 ms",
        "faster",
        "images/s",
        "faster",
        "MB",
    ]
    lines = [peer_line(model) for model in figures["models"]]
    parts = [told, markdown_table(heads, lines, aligned_right=heads[4:]), beside_the_fastest_peer(figures["models"])]
    return "\n\n".join(part for part in parts if part)


def beside_the_fastest_peer(models: list[dict[str, Any]]) -> str:
    """Return in a sentence how the chosen model compares with the fastest peer that loses no more at worst.

    Nothing where no peer is as good, or the chosen model was not measured.
    """
    measured = [model for model in models if "failed" not in model]
    chosen = next((model for model in measured if model.get("chosen")), None)
    if chosen is None:
        return ""
    at_worst = chosen["difference_to_teacher"]["low"]
    as_good = [
        model for model in measured if model["tool"] != "Kinglet" and model["difference_to_teacher"]["low"] >= at_worst
    ]
    if not as_good:
        return ""
    rival = min(as_good, key=lambda model: float(model["latency"]["p50_ms"]))
    ratios = [
        (rival["latency"]["p50_ms"] / chosen["latency"]["p50_ms"], "as fast"),
        (chosen["throughput"]["images_per_second"] / rival["throughput"]["images_per_second"], "the images a second"),
        (rival["size_bytes"] / chosen["size_bytes"], "smaller"),
    ]
    told = ", ".join(f"{ratio:.1f} times {what}" for ratio, what in ratios)
    return (
        f"Of the peers that lose no more at worst than the chosen model ({-100 * at_worst:.2f} points), "
        f"{maker_in_words(rival)} is the fastest; beside it, the chosen model is {told}."
    )


def peer_line(model: dict[str, Any]) -> list[str]:
    """Return the cells of a model beside its peers, or of a peer that has none."""
    maker = maker_in_words(model)
    if "failed" in model:
        return [maker, f"no result: {model['failed']}", *[""] * 7]
    latency, throughput = model["latency"], model["throughput"]
    return [
        maker,
        settings_in_words(model),
        accuracy_in_words(model["test_accuracy"]),
        points_in_words(model["difference_to_teacher"]),
        f"{latency['p50_ms']:.3f}",
        f"{latency['times_faster']:.1f}",
        f"{throughput['images_per_second']:,.0f}",
        f"{throughput['times_faster']:.1f}",
        megabytes(model),
    ]


def maker_in_words(model: dict[str, Any]) -> str:
    """Return who made a model: Kinglet with the model's name, or a peer with the version that it is known by."""
    if model["tool"] == "Kinglet":
        return f"**Kinglet, {model['name']}** (chosen)" if model["chosen"] else f"Kinglet, {model['name']}"
    return f"{model['tool']} {next(iter(model['versions'].values()))}"


def settings_in_words(model: dict[str, Any]) -> str:
    """Return what was set, and how a runtime computes floats if that is not in fp32."""
    precision = model.get("float_precision", "f32")
    return model["settings"] if precision == "f32" else f"{model['settings']}; floats in {precision}"
