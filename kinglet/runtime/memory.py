"""Peak memory that a model adds to a process, measured in a process of its own."""

from __future__ import annotations

import json
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
    threads: int,
    batch_size: int = 1,
    input_size: int | None = None,
    runtime: str = ONNXRUNTIME,
    channels: int = 3,
) -> float:
    """Return the peak memory in MB (10^6 bytes) that loading and running `model` adds to an empty runtime's process.

    input_size: edge length in pixels, for another runtime than ONNX Runtime, or a model whose height and width are
    free. runtime: a key of `kinglet.runtime.engines.RUNTIMES`. channels: of the images, for another runtime.
    Raises RuntimeError with the child's words if it failed.
    """
    arguments = [str(model), threads, batch_size, input_size, runtime, channels]
    command = [sys.executable, "-m", "kinglet.runtime.memory", json.dumps(arguments)]
    # The child finds this very package, wherever it was started from.
    search_path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    finished = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": search_path}
    )
    if finished.returncode:
        raise RuntimeError(f"measuring the memory of {model} failed: {finished.stderr.strip()}")
    return float(finished.stdout)


def added_by(model: Path, threads: int, batch_size: int, input_size: int | None, runtime: str, channels: int) -> float:
    """Return the megabytes by which opening and running `model` raises this process's peak."""
    from kinglet.runtime.any_model import action_of

    version_of(runtime)  # the runtime itself does not count: it is imported before the first look
    before = peak_of_this_process()
    if runtime == ONNXRUNTIME:
        action = action_of(model, threads, batch_size, input_size)
    else:
        assert input_size is not None
        action = timed_action(open_engine(runtime, model, (channels, input_size, input_size), threads), batch_size)
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
    path, *rest = json.loads(sys.argv[1])
    print(added_by(Path(path), *rest))
