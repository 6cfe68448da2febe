"""Peak memory that a model adds to a process, measured in a process of its own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from kinglet.runtime.engines import ONNXRUNTIME, open_engine, version_of
from kinglet.runtime.latency import timed_action

STATUS = Path("/proc/self/status")
RUNS = 5


def peak_memory_mb(
    model: Path,
    input_shape: tuple[int, int, int],
    threads: int,
    batch_size: int = 1,
    runtime: str = ONNXRUNTIME,
) -> float:
    """Return the peak memory in MB (10^6 bytes) that loading and running `model` adds to an empty runtime's process.

    input_shape: (channels, height, width). runtime: a key of `kinglet.runtime.engines.RUNTIMES`.
    Raises RuntimeError with the child's words if it failed.
    """
    numbers = [str(number) for number in (*input_shape, threads, batch_size)]
    command = [sys.executable, "-m", "kinglet.runtime.memory", runtime, str(model), *numbers]
    # The child finds this very package, wherever it was started from.
    search_path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    finished = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": search_path}
    )
    if finished.returncode:
        raise RuntimeError(f"measuring the memory of {model} failed: {finished.stderr.strip()}")
    return float(finished.stdout)


def added_by(runtime: str, model: Path, input_shape: tuple[int, int, int], threads: int, batch_size: int) -> float:
    """Return the megabytes by which opening and running `model` raises this process's peak."""
    version_of(runtime)  # the runtime itself does not count: it is imported before the first look
    before = peak_of_this_process()
    action = timed_action(open_engine(runtime, model, input_shape, threads), batch_size)
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
    channels, height, width, threads, batch_size = map(int, sys.argv[3:])
    print(added_by(sys.argv[1], Path(sys.argv[2]), (channels, height, width), threads, batch_size))
