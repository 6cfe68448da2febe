"""Peak memory that a model adds to a process, measured in a process of its own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
RUNS = 5


def peak_memory_mb(model: Path, threads: int, batch_size: int = 1, input_size: int | None = None) -> float:
    """Return the peak memory in MB (10^6 bytes) that loading and running `model` adds to an empty onnxruntime process.

    input_size: edge length in pixels for a model whose height and width are free.
    Raises RuntimeError with the child's words if it failed.
    """
    command = [sys.executable, "-m", "kinglet.runtime.memory", str(model), str(threads), str(batch_size)]
    command += [str(input_size)] if input_size else []
    # The child finds this very package, wherever it was started from.
    search_path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    finished = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": search_path}
    )
    if finished.returncode:
        raise RuntimeError(f"measuring the memory of {model} failed: {finished.stderr.strip()}")
    return float(finished.stdout)


def added_by(model: Path, threads: int, batch_size: int, input_size: int | None = None) -> float:
    """Return the megabytes by which opening and running `model` raises this process's peak."""
    from kinglet.runtime.any_model import action_of

    before = peak_of_this_process()
    action = action_of(model, threads, batch_size, input_size)
    for _ in range(RUNS):
        action()
    return (peak_of_this_process() - before) / 1e6


def peak_of_this_process(status: Path = STATUS) -> int:
    """Return the largest resident size that this process ever had, in bytes."""
    # ru_maxrss of a child starts at its parent's size on Linux (kept across exec); VmHWM starts afresh.
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    print(added_by(Path(sys.argv[1]), *map(int, sys.argv[2:])))
