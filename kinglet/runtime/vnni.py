"""Whether this processor adds 8-bit products exactly, or in 16 bits that saturate (x86 without VNNI)."""

from __future__ import annotations

import platform
from pathlib import Path

from kinglet.runtime.device import CPU_INFO, processor_fields

X86 = ("x86_64", "amd64", "i386", "i686", "x86")
# With these, ONNX Runtime takes its AVX-512 kernels, which use VNNI only in its AVX-512 form.
AVX512_CORE = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}


def products_saturate(cpu_info: Path = CPU_INFO, machine: str | None = None) -> bool:
    """Return whether sums of two products of uint8 and int8 may saturate in ONNX Runtime on this processor.

    cpu_info: in the format of Linux's /proc/cpuinfo. machine: as `platform.machine()` says, the default.
    ARM and other architectures never saturate. An x86 processor that says nothing of itself, as on Windows and
    macOS, counts as one without VNNI: what is made for those is right on all.
    Source: onnxruntime, core/mlas/lib/platform.cpp, the choice of ConvSymU8S8Dispatch and GemmU8S8Kernel.
    """
    if (machine or platform.machine()).lower() not in X86:
        return False
    flags = set(processor_fields(cpu_info).get("flags", "").split())
    if flags >= AVX512_CORE:
        return "avx512_vnni" not in flags
    return "avx_vnni" not in flags
