"""How many processors this process may really use: what the container grants, not what the host has."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def available_processors(cgroups: Path = CGROUPS, own_cgroup: Path = OWN_CGROUP) -> int:
    """Return the number of processors to size a thread pool by, at least 1.

    The smaller of the processors that the process is bound to and its CPU quota, rounded up.
    onnxruntime alone looks at the host and starts 64 threads on half a processor (onnxruntime#29510).
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(cgroups, own_cgroup)
    return max(1, bound if quota is None else min(bound, math.ceil(quota)))


def cpu_quota(cgroups: Path = CGROUPS, own_cgroup: Path = OWN_CGROUP) -> float | None:
    """Return the CPU quota of this process in processors, the tightest of its control groups; None without one.

    Reads version 2 (`cpu.max`) and version 1 (`cpu.cfs_quota_us`). Files that cannot be read count as no quota.
    """
    quotas = []
    for controllers, group in read_groups(own_cgroup):
        root = cgroups / "cpu" if "cpu" in controllers else cgroups
        folder = root / group.lstrip("/")
        # Inside a container the path may be the host's, which is not mounted here: the root is tried in any case.
        for level in {folder, *folder.parents, root}:
            if level == root or root in level.parents:
                quotas += [quota for quota in (quota_v2(level), quota_v1(level)) if quota is not None]
    return min(quotas, default=None)


def read_groups(own_cgroup: Path) -> list[tuple[list[str], str]]:
    """Return the control groups of this process that may limit its CPU: (controllers, path) pairs."""
    groups = []
    for line in read(own_cgroup).splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            groups.append((controllers.split(","), group))
    return groups


def quota_v2(folder: Path) -> float | None:
    """Return the quota in a version 2 control group's `cpu.max`."""
    fields = read(folder / "cpu.max").split()
    if len(fields) != 2 or not fields[0].isdigit() or not fields[1].isdigit() or fields[1] == "0":
        return None
    return int(fields[0]) / int(fields[1])


def quota_v1(folder: Path) -> float | None:
    """Return the quota in a version 1 control group; -1 stands for none."""
    quota, period = read(folder / "cpu.cfs_quota_us").strip(), read(folder / "cpu.cfs_period_us").strip()
    if not quota.isdigit() or not period.isdigit() or period == "0":
        return None
    return int(quota) / int(period)


def read(path: Path) -> str:
    """Return the text of `path`, empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
