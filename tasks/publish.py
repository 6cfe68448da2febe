"""Publish the bundle to S3, fetch the champion from there, and go back to the one before.

These act outside the repository, so they are no stages of dvc.yaml.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from kinglet.atomic import atomic_folder
from kinglet.errors import KingletError
from kinglet.publishing.pointer import Pointer, Release, Seen, check_version, move_pointer, read_pointer
from kinglet.publishing.releases import digest_of, download, upload
from kinglet.publishing.store import Store, place_of
from kinglet.runtime import bundles
from tasks.champion import listed_files

# Letters of the bundle's SHA-256 that name a version, unless it is given a name.
VERSION_LETTERS = 16


@dataclass(frozen=True)
class Outcome:
    """What a command did. version: the one it was about; champion: the one in production, empty if there is none.

    changed: whether the champion, or the folder of a fetch, is another than before.
    """

    place: str
    version: str
    champion: str
    changed: bool


def publish(folder: Path, address: str, version: str = "", promote: bool = True) -> Outcome:
    """Upload a bundle to s3://bucket/prefix/name as a version, and put it into production if `promote`.

    version: by default the start of the bundle's own SHA-256, so that the same bundle is the same version.
    A publish that was killed is completed by the next one; until then the old champion stays.
    Raises KingletError if the bundle is damaged, the store refuses, or another publisher was faster.
    """
    bundles.verify(folder)
    store = Store(place_of(address))
    version = check_version(version or digest_of(folder)[:VERSION_LETTERS])
    # Read before the upload: whoever promotes in the meantime has not seen this version, nor this one theirs.
    seen = read_pointer(store)
    release = upload(store, folder, version)
    champion = seen.pointer.champion if seen.pointer else None
    if not promote or champion == release:
        return Outcome(str(store.place), version, champion.version if champion else "", False)
    move_pointer(store, seen, seen.pointer.followed_by(release) if seen.pointer else Pointer(release))
    return Outcome(str(store.place), version, version, True)


def fetch(address: str, folder: Path, version: str = "") -> Outcome:
    """Download a version, by default the champion, into a folder that is replaced once every byte was verified.

    Raises KingletError if there is no such version, if it is damaged, or if the folder holds other files.
    """
    refuse_other_files(folder)
    store = Store(place_of(address))
    seen = read_pointer(store)
    known = {release.version: release.sha256 for release in releases_of(seen)}
    champion = seen.pointer.champion.version if seen.pointer else ""
    wanted = check_version(version) if version else champion_of(store, seen).champion.version
    if is_whole(folder) and digest_of(folder) == known.get(wanted):
        return Outcome(str(store.place), wanted, champion, False)
    with atomic_folder(folder) as new:
        download(store, wanted, new, known.get(wanted))
    return Outcome(str(store.place), wanted, champion, True)


def rollback(address: str) -> Outcome:
    """Put the version before the champion into production again, after every byte of it was verified.

    Raises KingletError if there is none, if it is damaged, or if somebody moved the pointer meanwhile.
    """
    store = Store(place_of(address))
    seen = read_pointer(store)
    pointer = champion_of(store, seen)
    if not pointer.previous:
        raise KingletError(
            f"{store.place} has no version before {pointer.champion.version} to go back to.",
            "Publish a good bundle instead.",
        )
    back = pointer.rolled_back()
    with tempfile.TemporaryDirectory(prefix="kinglet-rollback-") as folder:
        download(store, back.champion.version, Path(folder), back.champion.sha256)
    move_pointer(store, seen, back)
    return Outcome(str(store.place), back.champion.version, back.champion.version, True)


def champion_of(store: Store, seen: Seen) -> Pointer:
    """Return the pointer; raises KingletError if nothing was promoted yet."""
    if seen.pointer is None:
        raise KingletError(f"{store.place} has no champion yet.", "Publish a bundle first: `kinglet publish`.")
    return seen.pointer


def releases_of(seen: Seen) -> list[Release]:
    """Return the releases that the pointer knows."""
    return [seen.pointer.champion, *seen.pointer.previous] if seen.pointer else []


def is_whole(folder: Path) -> bool:
    """Return whether a folder holds an undamaged bundle."""
    try:
        bundles.verify(folder)
    except KingletError:
        return False
    return True


def refuse_other_files(folder: Path) -> None:
    """Raise KingletError if replacing the folder would lose files that are not a bundle's."""
    if folder.exists() and not folder.is_dir():
        raise KingletError(f"{folder} is a file.", "Name a folder that does not exist yet, or one with a bundle.")
    own = {bundles.CHECKSUMS, *listed_files(folder)}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.relative_to(folder).as_posix() not in own:
            raise KingletError(
                f"{folder} holds other files than a bundle's, {file.name} among them.",
                "Name a folder that does not exist yet, or one with a bundle.",
            )
