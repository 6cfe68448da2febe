"""How figures are said in README's tables: accuracies, differences, times and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.results import counted

# What, its goal and what was measured: one row of the table.
Rows = list[tuple[str, str, str]]
HOW_MADE = {
    "finetune": "fine-tuned from ImageNet",
    "distill": "distilled from",
    "prune": "pruned from",
    "quantize": "quantized from",
    "export": "converted from",
}


def how_made(model: dict[str, Any]) -> str:
    """Return in words which step made a model, from which, and at which size and precision."""
    origin = f"{HOW_MADE.get(model['step'], model['step'])} {model['parent']}".strip()
    if model.get("control_for"):
        origin = f"control beside {model['control_for']}"
    return f"{origin}, {model['input_size']} px, {model['precision']}"


def accuracy_in_words(interval: dict[str, float]) -> str:
    """Return an accuracy in percent, with its interval where there is one."""
    value = f"{100 * interval['value']:.2f} %"
    return f"{value} ({100 * interval['low']:.2f} to {100 * interval['high']:.2f})" if "low" in interval else value


def points_in_words(difference: dict[str, float]) -> str:
    """Return a difference of accuracies in percentage points, with its interval and sign."""
    value, low, high = (100 * difference[key] for key in ("value", "low", "high"))
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def megabytes(model: dict[str, Any]) -> str:
    """Return the size of a model's file in MB (10^6 bytes)."""
    return f"{model['size_bytes'] / 1e6:.2f}"


def seconds_in_words(found: dict[str, Any]) -> str:
    """Return the median of some seconds with their range."""
    runs = counted(len(found["values"]), "run")
    return f"**{found['median']:.2f} s** ({found['low']:.2f} to {found['high']:.2f}, {runs})"


def duration(seconds: float) -> str:
    """Return seconds as people say them: 8.2 s, 12 min 05 s."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def markdown_table(heads: Sequence[str], lines: Sequence[Sequence[str]], aligned_right: Sequence[str] = ()) -> str:
    """Return a Markdown table; a bar inside a cell is escaped."""
    rule = ["---:" if head in aligned_right else "---" for head in heads]
    rows = [heads, rule, *([cell.replace("|", "\\|") for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
