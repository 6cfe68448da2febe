import os

import pytest

from kinglet.runtime.processors import available_processors, cpu_quota


def lay(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "200000 100000"}, 0.5),  # the parent is tighter
        ("0::/not/mounted/here\n", {"cpu.max": "100000 100000"}, 1.0),  # a container's own root
        ("4:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "25000", "cpu/x/cpu.cfs_period_us": "100000"}, 0.25),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("", {}, None),
    ],
)
def test_quota_is_the_tightest_of_the_groups(tmp_path, own, files, expected):
    lay(tmp_path, {"own": own, **{f"fs/{name}": content for name, content in files.items()}})
    assert cpu_quota(tmp_path / "fs", tmp_path / "own") == expected


def test_half_a_processor_is_one_thread(tmp_path):
    lay(tmp_path, {"own": "0::/\n", "fs/cpu.max": "50000 100000"})
    assert available_processors(tmp_path / "fs", tmp_path / "own") == 1


def test_without_a_quota_the_bound_processors_count(tmp_path):
    assert available_processors(tmp_path, tmp_path / "none") == len(os.sched_getaffinity(0))
