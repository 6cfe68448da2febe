"""The facts without which a figure means nothing: the machine, and the versions of what ran on it."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import psutil

from kinglet.runtime.device import this_device

# Of what a processor has, the first of these says most about how fast it computes networks.
INSTRUCTIONS = {
    "amx_int8": "AMX",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
    "i8mm": "Arm I8MM",
    "asimddp": "Arm dot product",
    "asimd": "Neon",
}
PACKAGES = ("torch", "onnxruntime", "dvc", "prefect", "numpy", "pillow")


def machine() -> dict[str, Any]:
    """Return the CPU's model, its instructions, the processors to use, and the memory in GB (10^9 bytes)."""
    device = this_device()
    return {
        "cpu": device.cpu,
        "instructions": next((name for flag, name in INSTRUCTIONS.items() if flag in device.flags), ""),
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
    # Results of earlier versions do not say it.
    instructions = f" ({facts['instructions']})" if facts.get("instructions") else ""
    return f"{facts['cpu']}{instructions}, {cores}, {facts['memory_gb']:.0f} GB"
