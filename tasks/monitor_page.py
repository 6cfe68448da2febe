"""The result of a check as a page of Markdown."""

from __future__ import annotations

from typing import Any

SMALLEST_SHOWN = 1e-99
HEAD = "| what | verdict | stability index | test | corrected p | rests on |\n|---|---|---:|---|---:|---:|"


def monitor_page(result: dict[str, Any]) -> str:
    """Return the page of a check. result: as `tasks.monitor.check` returns it."""
    parts = ["# Drift\n"]
    if not result["models"]:
        parts.append("Nothing new since the last check.\n")
    for model in result["models"]:
        parts.append(f"## {model['model']}, version {model['version']}\n\n{model['sentence']}\n")
        lost = f" {model['lost']:,} more came too fast to be sketched." if model["lost"] else ""
        parts.append(
            f"{model['images']:,} {model['counted']} from {model['started'][:19]} to {model['ended'][:19]} (UTC), "
            f"{len(model['names'])} sketches.{lost}\n"
        )
        parts.append("\n".join([HEAD, *(row(finding) for finding in model["findings"])]) + "\n")
    parts.append(
        f"Without drift, at most {100 * result['false_alarm_rate']:g} % of checks raise any alarm, if images, or "
        "videos, are independent. The stability index of the population says how far a column moved: below 0.1 is "
        "little, above 0.2 is much.\n"
    )
    return "\n".join(parts)


def row(finding: dict[str, Any]) -> str:
    """Return the line of a table for one finding."""
    index = "" if finding["stability_index"] is None else f"{finding['stability_index']:.3f}"
    cells = [finding["name"], finding["verdict"], index, finding["test"], shown_p(finding["p_value"])]
    return "| " + " | ".join([*cells, f"{finding['images']:,}"]) + " |"


def shown_p(p_value: float) -> str:
    """Return a p-value as people read it: what a computer rounds to zero is not zero."""
    return f"{p_value:.2g}" if p_value >= SMALLEST_SHOWN else f"<{SMALLEST_SHOWN:g}"
