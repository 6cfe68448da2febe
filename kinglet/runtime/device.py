"""What a latency depends on, told apart by a fingerprint: processor, instruction sets, cores, runtime."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from kinglet.runtime.processors import available_processors

CPU_INFO = Path("/proc/cpuinfo")
# Instruction sets that onnxruntime picks its kernels by.
KERNEL_FLAGS = (
    "avx2",
    "fma",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
)


@dataclass(frozen=True)
class Device:
    """The machine as far as a latency depends on it; its name and its load do not belong here.

    cores: processors this process may use. flags: instruction sets that matter, sorted.
    """

    cpu: str
    architecture: str
    flags: tuple[str, ...]
    cores: int
    system: str
    onnxruntime: str

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as JSON-ready values."""
        return {**asdict(self), "flags": list(self.flags)}

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that differ where any fact differs."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


def this_device(cpu_info: Path = CPU_INFO) -> Device:
    """Return the device that this process runs on."""
    fields = processor_fields(cpu_info)
    present = set((fields.get("flags") or fields.get("features") or "").split())
    return Device(
        cpu=fields.get("model name") or platform.processor() or "unknown processor",
        architecture=platform.machine(),
        flags=tuple(sorted(present.intersection(KERNEL_FLAGS))),
        cores=available_processors(),
        system=platform.system(),
        onnxruntime=onnxruntime.__version__,
    )


def processor_fields(cpu_info: Path) -> dict[str, str]:
    """Return the first processor's fields of /proc/cpuinfo, keys in lower case; empty where there is none."""
    try:
        text = cpu_info.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in lines}
