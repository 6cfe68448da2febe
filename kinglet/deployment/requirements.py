"""Which packages an image needs, out of a lock file that is complete for everything; and its own lock with hashes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from kinglet.errors import KingletError

HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Pinned:
    """A package at one version. hashes: the SHA-256 of its wheels, one for each kind of processor; may be empty."""

    name: str
    version: str
    hashes: tuple[str, ...] = ()


def read_pins(text: str, origin: str) -> dict[str, Pinned]:
    """Return {canonical name: package} of a lock file in pip's format.

    Raises KingletError that names the line which pins nothing.
    """
    pins: dict[str, Pinned] = {}
    for number, line in enumerate(text.replace("\\\n", " ").splitlines(), start=1):
        words = line.partition("#")[0].strip()
        if not words:
            continue
        named, _, hashes = words.partition(" --hash")
        try:
            requirement = Requirement(named)
        except InvalidRequirement:
            raise KingletError(f"{origin}, line {number}: {named!r} is no requirement.", "Write name==1.2.3.") from None
        exact = [each.version for each in requirement.specifier if each.operator == "=="]
        if len(exact) != 1:
            raise KingletError(f"{origin}, line {number}: {requirement.name} has no exact version.", "Write ==.")
        name = canonicalize_name(requirement.name)
        pins[name] = Pinned(name, exact[0], tuple(HASH.findall(f"--hash{hashes}")))
    return pins


def closure(wanted: Iterable[str], requires: Callable[[str], Sequence[str] | None], python_version: str) -> list[str]:
    """Return the canonical names of some requirements and of all that they need on Linux, sorted.

    requires: the requirements of a package as its metadata states them. python_version: of the image, such as "3.11".
    """
    environment = {
        **default_environment(),
        "python_version": python_version,
        "python_full_version": f"{python_version}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
    }
    found: set[str] = set()
    waiting = [Requirement(text) for text in wanted]
    while waiting:
        requirement = waiting.pop()
        if not applies(requirement, environment):
            continue
        name = canonicalize_name(requirement.name)
        if name not in found:
            found.add(name)
            waiting += [Requirement(text) for text in requires(name) or ()]
    return sorted(found)


def applies(requirement: Requirement, environment: Mapping[str, object]) -> bool:
    """Return whether a requirement counts here; those of an extra do not, no package of ours asks for one."""
    return requirement.marker is None or requirement.marker.evaluate({**environment, "extra": ""})  # type: ignore[dict-item]


def pinned(names: Iterable[str], pins: Mapping[str, Pinned], origin: str) -> list[Pinned]:
    """Return the packages of these names at the versions of a lock; raises KingletError for one that it lacks."""
    missing = [name for name in names if name not in pins]
    if missing:
        raise KingletError(f"{origin} does not pin {missing[0]}, which the image needs.", "Add its exact version.")
    return [pins[name] for name in names]


def lock_text(packages: Iterable[Pinned], comment: str) -> str:
    """Return a lock with hashes, in pip's format."""
    lines = [f"# {line}" for line in comment.splitlines()]
    for package in packages:
        hashes = [f"--hash=sha256:{digest}" for digest in sorted(package.hashes)]
        lines.append(" \\\n    ".join([f"{package.name}=={package.version}", *hashes]))
    return "\n".join(lines) + "\n"
