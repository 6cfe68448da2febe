import socket

from kinglet.runtime.device import this_device


def test_fingerprint_differs_where_the_kernels_differ(tmp_path):
    plain, fast = tmp_path / "plain", tmp_path / "fast"
    plain.write_text("processor\t: 0\nmodel name\t: Chip 1\nflags\t\t: fpu avx2\n\nprocessor\t: 1\n")
    fast.write_text("processor\t: 0\nmodel name\t: Chip 1\nflags\t\t: fpu avx2 avx512_vnni\n")
    assert this_device(plain).cpu == "Chip 1"
    assert this_device(plain).flags == ("avx2",)
    assert this_device(plain).fingerprint == this_device(plain).fingerprint
    assert this_device(plain).fingerprint != this_device(fast).fingerprint


def test_the_machines_name_stays_out():
    assert socket.gethostname() not in str(this_device().to_dict())


def test_a_system_without_cpuinfo_still_has_a_fingerprint(tmp_path):
    assert len(this_device(tmp_path / "none").fingerprint) == 16
