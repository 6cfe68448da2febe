import platform
import subprocess
import sys


def test_freed_memory_is_kept_where_the_c_library_can():
    # In a process of its own: the setting lasts as long as the process.
    program = "from kinglet.training.allocator import keep_freed_memory; print(keep_freed_memory())"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert found.strip() == str(platform.libc_ver()[0] == "glibc")
