"""What `kinglet doctor` prints for people: findings in order, the layers that lose most, what repairs are worth."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

STYLES = {"critical": "bold red", "warning": "yellow", "note": "dim"}
NAMES_SHOWN = 3
LAYERS_SHOWN = 8


def print_diagnosis(result: dict[str, Any], console: Console) -> None:
    """Print the result of an examination.

    result: as `tasks.doctor.diagnose` returns it.
    """
    console.print(summary(result), soft_wrap=True)
    for sentence in result["notes"]:
        console.print(f"note: {sentence}", soft_wrap=True)
    for finding in result["findings"]:
        console.print()
        print_finding(finding, console)
    if not result["findings"]:
        console.print("Nothing was found.")
    if result["layers"]:
        console.print()
        console.print(layers_table(result["layers"], result["layers_in_float"]))
    console.print()
    for sentence in result["left_out"]:
        console.print(f"left out: {sentence}", soft_wrap=True)
    if result["repaired"] is not None:
        console.print(repaired_line(result["repaired"]), soft_wrap=True)


def summary(result: dict[str, Any]) -> str:
    """Return the first line: the file's accuracy beside the float file's, and its latency."""
    line = f"{result['model']}: {result['accuracy']:.2%} right on {result['images']:,} images"
    guard = result["guard"]
    if guard is not None:
        name = "the float file" if result["float"] else "its float stand-in"
        line += f", {name} {result['reference_accuracy']:.2%} ({points(guard['accuracy_difference'])})"
    if result["latency_us"] is not None:
        line += f"; {result['latency_us']:.0f} µs per image"
    return f"{line}."


def print_finding(finding: dict[str, Any], console: Console) -> None:
    """Print one finding: how much it matters, where, what, the repair and its effect."""
    severity = finding["severity"]
    place = f"  {shortened(finding['where'])}" if finding["where"] else ""
    console.print(f"{severity:8} [bold]{finding['code']}[/bold]", style=STYLES[severity], end="")
    console.print(place, markup=False, soft_wrap=True)
    console.print(f"  {finding['what']}", markup=False, soft_wrap=True)
    console.print(f"  repair: {finding['repair']}", markup=False, soft_wrap=True)
    if finding["effect"] is not None:
        console.print(f"  effect: {effect_in_words(finding['effect'])}", markup=False, soft_wrap=True)


def shortened(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def effect_in_words(effect: dict[str, Any]) -> str:
    """Return what a repair is worth: points of accuracy, microseconds, each with its interval."""
    latency = effect["latency_us"]
    return points(effect["accuracy"]) + ("" if latency is None else f", {microseconds(latency)}")


def points(interval: dict[str, float]) -> str:
    """Return a difference of accuracies in points with its interval."""
    value, low, high = (100 * interval[key] for key in ("value", "low", "high"))
    return f"{value:+.2f} points, {low:+.2f} to {high:+.2f}"


def microseconds(interval: dict[str, float]) -> str:
    """Return a difference of latencies with its interval."""
    return f"{interval['value']:+.1f} µs ({interval['low']:+.1f} to {interval['high']:+.1f})"


def layers_table(layers: list[dict[str, Any]], prices: list[dict[str, Any]]) -> Table:
    """Return the layers that do the most damage, with their errors and the price of their return to float."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("layer", overflow="fold")
    for title in ("own dB", "file dB", "damage", "in float", "time"):
        table.add_column(title, justify="right", no_wrap=True, min_width=len(title))
    priced = {price["layer"]: price for price in prices}
    for layer in sorted(layers, key=lambda item: -item["damage"])[:LAYERS_SHOWN]:
        price = priced.get(layer["layer"])
        table.add_row(
            layer["layer"],
            f"{layer['own_db']:.1f}",
            f"{layer['accumulated_db']:.1f}",
            f"{layer['damage']:.5f}",
            "-" if price is None else f"{100 * price['accuracy']['value']:+.2f} points",
            "-" if price is None else f"{price['latency_us']['value']:+.1f} µs",
        )
    return table


def repaired_line(repaired: dict[str, Any]) -> str:
    """Return what all repairs that help are worth together, and where the file lies if it was written."""
    layers = repaired["float_layers"]
    spared = f" ({shortened(layers)} in float)" if layers else ""
    where = f" Written to {repaired['file']}." if repaired.get("file") else " Write it with --write FILE."
    return f"repaired by {', '.join(repaired['repairs'])}{spared}: {effect_in_words(repaired['effect'])}.{where}"
