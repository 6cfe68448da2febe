"""Progress of a long step on stderr: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kinglet.reporting import Report

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """Yield a function that shows how far a step is."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield line_reporter(title)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, text="")

        def report(done: float, total: float, text: str = "") -> None:
            bar.update(task, completed=done, total=total, text=text)

        yield report


def line_reporter(title: str) -> Report:
    """Return a function that prints a line when enough time has passed, and at the end."""
    printed_at = time.monotonic()

    def report(done: float, total: float, text: str = "") -> None:
        nonlocal printed_at
        now = time.monotonic()
        if done < total and now - printed_at < SECONDS_BETWEEN_LINES:
            return
        printed_at = now
        share = 100 * done / total if total else 100
        print(f"{title}: {share:3.0f} % ({done:g} of {total:g}) {text}".rstrip(), file=sys.stderr, flush=True)

    return report
