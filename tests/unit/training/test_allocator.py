import platform
import subprocess
import sys
from pathlib import Path

import pytest


def test_freed_memory_is_kept_where_the_c_library_can():
    # In a process of its own: the setting lasts as long as the process.
    program = "from kinglet.training.allocator import keep_freed_memory; print(keep_freed_memory())"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert found.strip() == str(platform.libc_ver()[0] == "glibc")


def test_heap_is_backed_by_huge_pages_where_the_system_has_them():
    # A block from the grown heap lies in a mapping that the kernel marks with "hg" (MADV_HUGEPAGE).
    program = """
from kinglet.training.allocator import keep_freed_memory, use_huge_pages
keep_freed_memory()
agreed = use_huge_pages(64 << 20)
heap = open("/proc/self/smaps").read().split("[heap]")[1:]
print(agreed, any("hg" in part.split("VmFlags:")[1].splitlines()[0].split() for part in heap))
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if platform.libc_ver()[0] != "glibc" or not Path("/sys/kernel/mm/transparent_hugepage/enabled").is_file():
        pytest.skip("this system has no glibc or no transparent huge pages")
    assert found.stdout.split() == ["True", "True"], found.stderr
