"""The files that servers leave for monitoring, in a folder or in a bucket of S3, the oldest first."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from kinglet.errors import KingletError
from kinglet.publishing.store import Store, place_of
from kinglet.runtime.sketches import Reference, Sketch, reference_from, sketch_from

SCHEME = "s3://"
SKETCH, ANSWERS, REFERENCE = "sketch-", "answers-", "reference-"


class Files(Protocol):
    """Named files of one place."""

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""

    def read(self, name: str) -> bytes:
        """Return the content of a file; raises KingletError if it is not there."""


@dataclass(frozen=True)
class FolderFiles:
    """The files of a folder."""

    path: Path

    def names(self) -> list[str]:
        """Return the names of all files; raises KingletError if there is no such folder."""
        if not self.path.is_dir():
            raise KingletError(
                f"monitor.sketches: the folder {self.path} does not exist.",
                "Let a server write there (`kinglet serve BUNDLE --monitor FOLDER`), or name another folder.",
            )
        return sorted(path.name for path in self.path.iterdir() if path.is_file())

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            raise missing(str(self.path), name) from None


@dataclass(frozen=True)
class BucketFiles:
    """The objects below a prefix of a bucket."""

    store: Store

    def names(self) -> list[str]:
        """Return the names of all objects."""
        return self.store.names()

    def read(self, name: str) -> bytes:
        """Return the content of an object."""
        found = self.store.read(name)
        if found is None:
            raise missing(str(self.store.place), name)
        return found[0]


def missing(place: str, name: str) -> KingletError:
    """Return the sentence for a file that is not there."""
    hint = "A server writes it again when it is started anew." if name.startswith(REFERENCE) else "Check again."
    return KingletError(f"{name} is missing in {place}.", hint)


def files_in(address: str) -> Files:
    """Return the files of a folder or of s3://bucket/prefix."""
    return BucketFiles(Store(place_of(address))) if address.startswith(SCHEME) else FolderFiles(Path(address))


@dataclass(frozen=True)
class SketchFile:
    """One interval of one server.

    lost: images that came too fast to be sketched. saturates: whether the server's 8-bit sums saturate, as those of the
    reference do not.
    """

    name: str
    model: str
    version: str
    reference: str
    started: datetime
    ended: datetime
    lost: int
    content: bytes
    saturates: bool = False


def read_sketch_file(files: Files, name: str) -> SketchFile:
    """Return a sketch's file with what it says of itself; raises KingletError that names it if it is none."""
    content = files.read(name)
    try:
        fields: dict[str, Any] = json.loads(content)
        return SketchFile(
            name,
            str(fields["model"]),
            str(fields["version"]),
            str(fields["reference"]),
            datetime.fromisoformat(fields["started"]),
            datetime.fromisoformat(fields["ended"]),
            int(fields["lost"]),
            content,
            fields.get("saturates") is True,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise KingletError(
            f"{name} is no sketch of a server ({type(error).__name__}: {error}).", "Remove it if it is damaged."
        ) from None


def sketch_in(file: SketchFile, reference: Reference) -> Sketch:
    """Return the counts of a sketch's file."""
    return sketch_from(file.content, file.name, reference)


def read_reference_file(files: Files, digest: str) -> Reference:
    """Return the reference that sketches name; raises KingletError if it is missing or was changed."""
    name = f"{REFERENCE}{digest}.json"
    content = files.read(name)
    if hashlib.sha256(content).hexdigest() != digest:
        raise KingletError(f"{name} was changed: its SHA-256 is another.", "Remove it; a server writes it again.")
    return reference_from(content, name)
