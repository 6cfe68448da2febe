"""The facts without which a figure means nothing: the machine, and the versions of what ran on it."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import psutil

from kinglet.runtime.device import this_device

PACKAGES = ("torch", "onnxruntime", "dvc", "prefect", "numpy", "pillow")


def machine() -> dict[str, Any]:
    """Return the CPU's model, the processors that this process may use, and the memory in GB (10^9 bytes)."""
    device = this_device()
    return {
        "cpu": device.cpu,
        "cores": device.cores,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a figure depends on."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def machine_in_words(facts: dict[str, Any]) -> str:
    """Return `machine()`'s facts as one phrase."""
    cores = f"{facts['cores']} core{'' if facts['cores'] == 1 else 's'}"
    return f"{facts['cpu']}, {cores}, {facts['memory_gb']:.0f} GB"
