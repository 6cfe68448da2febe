"""champion.json: which version of a model is in production, and which were before it.

The pointer is the only object that ever changes. It is moved by compare and swap: a writer names the state it
read, and the store refuses if it is another by now. Of two publishers at once exactly one wins.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from kinglet.errors import KingletError, other_format
from kinglet.publishing.store import Store, TakenError

POINTER = "champion.json"
FORMAT = 1
# Versions that a rollback can reach.
KEPT = 50
DIGEST = re.compile(r"[0-9a-f]{64}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Release:
    """A published version, and the SHA-256 of its SHA256SUMS, which stands for every byte of it."""

    version: str
    sha256: str


@dataclass(frozen=True)
class Pointer:
    """The version in production, and those before it, the latest last."""

    champion: Release
    previous: tuple[Release, ...] = ()

    def followed_by(self, release: Release) -> Pointer:
        """Return the pointer after a promotion."""
        return Pointer(release, (*self.previous, self.champion)[-KEPT:])

    def rolled_back(self) -> Pointer:
        """Return the pointer after a rollback; there must be a version before this one."""
        return Pointer(self.previous[-1], self.previous[:-1])


@dataclass(frozen=True)
class Seen:
    """The pointer as it was read, and the state of its object; both None if nothing was promoted yet."""

    pointer: Pointer | None
    etag: str | None


def check_version(version: str) -> str:
    """Return the name of a version; raises KingletError if it cannot be one."""
    if not VERSION.fullmatch(version) or version == POINTER:
        raise KingletError(
            f"{version!r} cannot name a version.", "Use up to 64 letters, digits, dots, dashes and underscores."
        )
    return version


def to_bytes(pointer: Pointer) -> bytes:
    """Return the content of champion.json."""
    value = {"format": FORMAT, **asdict(pointer)}
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def from_bytes(content: bytes, origin: str) -> Pointer:
    """Return the pointer that champion.json holds; raises KingletError if it is damaged or of a newer format."""
    try:
        value = json.loads(content)
        if value["format"] != FORMAT:
            raise other_format(origin, value["format"], FORMAT)
        return Pointer(release_of(value["champion"]), tuple(release_of(item) for item in value["previous"]))
    except (ValueError, KeyError, TypeError):
        raise KingletError(
            f"{origin} is no pointer to a version: it was changed or damaged.",
            "Restore it from the bucket's versioning, or delete it and publish again.",
        ) from None


def release_of(value: Any) -> Release:
    """Return a release from its JSON; raises ValueError, KeyError or TypeError if it is none."""
    if not VERSION.fullmatch(value["version"]) or not DIGEST.fullmatch(value["sha256"]):
        raise ValueError(value)
    return Release(value["version"], value["sha256"])


def read_pointer(store: Store) -> Seen:
    """Return the pointer and the state of its object."""
    found = store.read(POINTER)
    if found is None:
        return Seen(None, None)
    return Seen(from_bytes(found[0], f"{store.place}/{POINTER}"), found[1])


def move_pointer(store: Store, seen: Seen, pointer: Pointer) -> None:
    """Write the pointer if nobody has changed it since it was seen.

    Raises KingletError, with the winner's version, if somebody has.
    """
    content = to_bytes(pointer)
    condition = {"IfNoneMatch": "*"} if seen.etag is None else {"IfMatch": seen.etag}
    try:
        store.put(POINTER, content, **condition)
    except TakenError:
        now = store.read(POINTER)
        # A write whose answer was lost is sent again by the client, and then meets itself.
        if now is not None and now[0] == content:
            return
        winner = from_bytes(now[0], POINTER).champion.version if now is not None else "none"
        raise KingletError(
            f"Another publisher was faster: the champion of {store.place} is now {winner}, not "
            f"{pointer.champion.version}, which is uploaded but not in production.",
            "Look at the other one first; run the same command again to put yours in its place.",
        ) from None
