"""The memory of a process and all that it started, sampled while they run."""

from __future__ import annotations

import threading
from contextlib import suppress

import psutil

INTERVAL_SECONDS = 0.5


def memory_measure() -> str:
    """Return "pss" where the system tells it (Linux), else "rss".

    PSS divides a page among the processes that share it, so a sum over processes counts it once; a sum
    of RSS counts it once per process.
    """
    return "pss" if hasattr(psutil.Process().memory_full_info(), "pss") else "rss"


def tree_bytes(root: psutil.Process, measure: str) -> int:
    """Return the bytes of `root` and its descendants; processes that end meanwhile count nothing."""
    total = 0
    with suppress(psutil.Error):
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.Error):
                info = process.memory_full_info() if measure == "pss" else process.memory_info()
                total += int(getattr(info, measure))
    return total


class PeakMemory:
    """A context in which the tree of a process is watched; `peak_bytes` is the largest sum seen."""

    def __init__(self, pid: int, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self.measure = memory_measure()
        self.peak_bytes = 0
        self.samples = 0
        self._root = psutil.Process(pid)
        self._interval = interval_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, tree_bytes(self._root, self.measure))
            self.samples += 1
            if self._ended.wait(self._interval):
                return
