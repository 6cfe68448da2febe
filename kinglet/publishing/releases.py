"""Bundles as versions in a store: uploaded whole or not counted, never overwritten, verified when they come back."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kinglet.errors import KingletError
from kinglet.publishing.pointer import Release
from kinglet.publishing.store import Store, TakenError
from kinglet.runtime import bundles


def digest_of(folder: Path) -> str:
    """Return the SHA-256 of a bundle's checksums, in hexadecimal; it stands for the whole bundle."""
    return bundles.sha256_of(folder / bundles.CHECKSUMS)


def upload(store: Store, folder: Path, version: str) -> Release:
    """Upload a bundle as a version. SHA256SUMS goes last: without it a version does not count.

    What an interrupted upload of the same bundle left is kept and completed.
    Raises KingletError if the bundle is damaged, or if the version exists with another content.
    """
    names = bundles.verify(folder)
    for name in (*names, bundles.CHECKSUMS):
        try:
            store.create(f"{version}/{name}", folder / name)
        except TakenError:
            if not holds(store, f"{version}/{name}", folder / name):
                raise KingletError(
                    f"The version {version} of {store.place} exists, and its {name} is another.",
                    "A version is never overwritten: publish this bundle under another --version.",
                ) from None
    return Release(version, digest_of(folder))


def holds(store: Store, name: str, file: Path) -> bool:
    """Return whether an object is, byte by byte, a file's content."""
    found = store.read(name)
    return found is not None and hashlib.sha256(found[0]).hexdigest() == bundles.sha256_of(file)


def download(store: Store, version: str, folder: Path, sha256: str | None = None) -> None:
    """Download a version into an empty folder and verify every byte.

    sha256: that of its SHA256SUMS as the pointer says it; None to trust the version's own.
    Raises KingletError if the version is not there, not whole, or not what was published.
    """
    origin = f"{store.place}/{version}"
    hint = "Go back to a good version with `kinglet rollback`, and publish the bundle again as a new version."
    if not store.download(f"{version}/{bundles.CHECKSUMS}", folder / bundles.CHECKSUMS):
        raise KingletError(f"{origin} is no finished version: {bundles.CHECKSUMS} is missing.", "Name another version.")
    if sha256 is not None and digest_of(folder) != sha256:
        raise KingletError(f"{origin}/{bundles.CHECKSUMS} is not what was published: it was changed or damaged.", hint)
    for name, expected in bundles.read_checksums(folder / bundles.CHECKSUMS).items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not store.download(f"{version}/{name}", file):
            raise KingletError(f"{origin}/{name} is missing from the version.", hint)
        if bundles.sha256_of(file) != expected:
            raise KingletError(f"{origin}/{name} is not what was published: it was changed or damaged.", hint)
    bundles.verify(folder)
