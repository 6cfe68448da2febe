"""Workers that hold one model each, and how they are timed in turns.

The models live in different environments, so in different processes; only one of them computes at any
time. They take turns in blocks of a tenth of a second, each round begins with another model, and the first
run of a block is not counted: what a drifting machine does to one it does to all. Between two blocks is a
rest, in which the threads of the one that just ran fall asleep: those of ONNX Runtime spin for a while,
and would take a processor from the next. Each runtime is set for its best: one request at a time, the
number of threads given, OpenVINO with a fixed batch size and without copies.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.environments import peer_settings
from benchmarks.peers.reasons import PeerError, each_or_reason, reason_in
from kinglet.runtime.latency import MIN_ROUNDS, Timing, summarize

REST_SECONDS = 0.05


class Worker:
    """A process that holds a model until it is closed."""

    def __init__(self, python: Path, model: Path, log: Path) -> None:
        self.log = log
        self.file = log.open("w", encoding="utf-8")
        self.process = subprocess.Popen(
            [str(python), "-m", "benchmarks.peers.worker", str(model)],
            env=peer_settings(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.file,
            text=True,
        )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Return the answer to a request; raises PeerError if the process ended instead."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.process.wait()
            raise PeerError(f"its model does not run: {reason_in(self.log)}")
        return dict(json.loads(answer))

    def close(self) -> None:
        """End the process."""
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):  # it has ended already
                self.process.stdin.close()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        self.file.close()


def time_workers(
    workers: Mapping[str, Worker],
    inputs: Mapping[str, Mapping[str, Any]],
    batch_size: int,
    threads: int,
    seconds_per_model: float,
    failed: dict[str, str],
    rest: Callable[[float], None] = time.sleep,
) -> dict[str, Timing]:
    """Return the timing of every model that runs, {name: Timing}, all measured at the same time.

    inputs: shape and dtype of every model's input, without the batch axis. There are at least ten rounds in any case.
    Why a model does not run goes into `failed`.
    """

    def open_model(name: str) -> int:
        request = {"batch_size": batch_size, "threads": threads, **inputs[name]}
        return int(workers[name].ask("open", **request)["runs"])

    def time_block(name: str) -> NDArray[np.float64]:
        rest(REST_SECONDS)
        return np.array(workers[name].ask("block", runs=runs[name])["ms"])

    runs = each_or_reason(list(workers), open_model, failed)
    names = list(runs)
    rounds: list[dict[str, NDArray[np.float64]]] = []
    timed_ms = 0.0
    while timed_ms < 1000 * seconds_per_model * len(names) or len(rounds) < MIN_ROUNDS:
        first = len(rounds) % len(names)
        rounds.append(each_or_reason(names[first:] + names[:first], time_block, failed))
        timed_ms += sum(float(times.sum()) for times in rounds[-1].values())
        names = [name for name in names if name not in failed]
    return {name: summarize([blocks[name] for blocks in rounds], batch_size) for name in names}
