"""Which device trains, and in which precision."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch

from kinglet.runtime.processors import available_processors


def pick_device() -> torch.device:
    """Return CUDA where there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def training_threads(n_processes: int = 1, variables: Mapping[str, str] = os.environ) -> int:
    """Return on how many threads each of `n_processes` trains, at least 1: its share of the granted processors.

    Fewer where `OMP_NUM_THREADS` asks for it: beside other work, threads that wait for each other cost more than one.
    What is no whole number above 0 there counts as nothing said.
    """
    share = max(1, available_processors() // n_processes)
    asked = variables.get("OMP_NUM_THREADS", "")
    return min(share, int(asked)) if asked.isdecimal() and int(asked) else share


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context in which forward passes run.

    precision: "fp32", "bf16", or "auto": bf16 on a CUDA device that has it, fp32 elsewhere (on CPUs
    bf16 autocast was measured to be slower for training).
    """
    fast = precision == "bf16" or (precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported())
    return torch.autocast(device.type, torch.bfloat16) if fast else nullcontext()


def make_deterministic(seed: int) -> None:
    """Seed torch and refuse operations whose result depends on timing."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    # Fills every new tensor with NaN to unmask reads of unwritten memory: 456 instead of 516 images/s
    # (EfficientNet-Lite0 at 48 px, 2 cores).
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
