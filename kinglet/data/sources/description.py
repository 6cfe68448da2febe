"""A public data set in IDX files, described by a YAML file with the sums of its content and where to find it."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from kinglet.atomic import NO_SPACE, atomic_path
from kinglet.data.sources.records import Record, Source
from kinglet.errors import KingletError

SECONDS_TO_WAIT = 120


@dataclass(frozen=True)
class IdxPart:
    """The two files of one part of the set: names without .gz, sums of the uncompressed content."""

    split: str
    images: str
    images_sha256: str
    labels: str
    labels_sha256: str


@dataclass(frozen=True)
class Description:
    """What a data set's description says."""

    name: str
    title: str
    classes: list[str]
    system_folder: str
    debian_package: str
    home: str
    parts: list[IdxPart]

    @property
    def sums(self) -> dict[str, str]:
        """SHA-256 of the uncompressed content by file name."""
        pairs = [((part.images, part.images_sha256), (part.labels, part.labels_sha256)) for part in self.parts]
        return {name: value for pair in pairs for name, value in pair}


def open_description(location: str, _images: str) -> Source:
    """Return the source of a described data set, fetched if this machine does not have it yet.

    _images: unused. Raises KingletError for a description that is wrong, and, with the three ways to
    get it, for a data set that cannot be found.
    """
    description = read_description(Path(location))
    folder, notes = find_files(description)
    records = []
    for part in description.parts:
        labels = read_idx(str(folder / part.labels))
        n_images = len(read_idx(str(folder / part.images)))
        if len(labels) != n_images or labels.max(initial=0) >= len(description.classes):
            raise KingletError(f"{location}: labels and images of {part.split!r}, or the classes, do not fit together.")
        width = len(str(max(n_images - 1, 0)))
        for number, label in enumerate(labels.tolist()):
            path = f"{part.split}/{number:0{width}d}"
            place = f"{part.images}:{number}"
            records.append(Record(path, place, label=description.classes[label], given_split=part.split))
    records.sort(key=lambda record: record.path)
    return Source("description", records, partial(read_image, str(folder)), channels=1, notes=notes)


def read_description(path: Path) -> Description:
    """Return the content of a description; raises KingletError if it is not one."""
    try:
        content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        parts = [IdxPart(**part) for part in content.pop("parts")]
        return Description(**content, parts=parts)
    except (yaml.YAMLError, TypeError, KeyError, AttributeError, UnicodeDecodeError) as error:
        raise KingletError(
            f"data.source: {path} is no description of a data set: {' '.join(str(error).split())}.",
            "See data/fashion-mnist/dataset.yaml for one that is.",
        ) from None


def cache_folder(name: str) -> Path:
    """Return the folder in which a fetched data set is kept for all checkouts of this user."""
    root = os.environ.get("KINGLET_CACHE") or Path.home() / ".cache" / "kinglet"
    return Path(root) / "datasets" / name


def find_files(description: Description) -> tuple[Path, list[str]]:
    """Return a folder whose files have the described sums, and sentences on what was found wrong on the way.

    Looks in the system's folder, the cache, the distribution's package, the home on the web.
    """
    problems: list[str] = []
    kept = cache_folder(description.name)
    for folder in (Path(description.system_folder), kept):
        problem = what_is_wrong(folder, description)
        if not problem:
            return folder, [f"{text}; another copy is used." for text in problems]
        if folder.is_dir():
            problems.append(problem)
    fetchers: dict[str, Callable[[Description, Path], Path]] = {
        f"package {description.debian_package}": fetch_package,
        description.home: fetch_from_home,
    }
    for origin, fetch in fetchers.items():
        with temporary_folder(kept.parent) as scratch:
            try:
                found = fetch(description, scratch)
                problem = what_is_wrong(found, description)
            except (OSError, subprocess.SubprocessError, zlib.error) as error:
                if isinstance(error, OSError) and error.errno in NO_SPACE:
                    raise
                problem = f"{origin}: {' '.join(str(error).split())}"
            if not problem:
                for name in description.sums:
                    with atomic_path(kept / f"{name}.gz") as path:
                        shutil.copyfile(found / f"{name}.gz", path)
                return kept, [f"{description.title} was fetched from {origin} into {kept}."]
            problems.append(problem)
    raise KingletError(
        f"{description.title} was found nowhere ({'; '.join(problems)}).",
        f"One of three ways: install it (apt-get install {description.debian_package}); let this machine reach its "
        f"package mirror or {description.home}; or copy {', '.join(f'{name}.gz' for name in description.sums)} "
        f"into {kept}.",
    )


def what_is_wrong(folder: Path, description: Description) -> str:
    """Return "" if all files are in the folder with the right content, else a clause that says what is not."""
    for name, expected in description.sums.items():
        if not (folder / f"{name}.gz").is_file():
            return f"{folder}: {name}.gz is missing"
        try:
            content = gzip.decompress((folder / f"{name}.gz").read_bytes())
        except (OSError, EOFError, zlib.error) as error:
            return f"{folder}/{name}.gz is damaged: {error}"
        if hashlib.sha256(content).hexdigest() != expected:
            return f"{folder}/{name}.gz has another content than described (SHA-256)"
    return ""


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder below `parent` that is removed afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)


def fetch_package(description: Description, scratch: Path) -> Path:
    """Download and unpack the distribution's package, which needs no root; return the folder of the files."""
    download = ["apt-get", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", "download"]
    run_quietly([*download, description.debian_package], scratch)
    archive = next(iter(sorted(scratch.glob("*.deb"))), None)
    if archive is None:
        raise OSError("apt-get downloaded nothing")
    run_quietly(["dpkg-deb", "-x", archive.name, "."], scratch)
    return scratch / description.system_folder.lstrip("/")


def run_quietly(command: list[str], folder: Path) -> None:
    """Run a command in a folder; raises OSError with its last words if it fails."""
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=SECONDS_TO_WAIT)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise OSError(f"{command[0]} failed: {last}")


def fetch_from_home(description: Description, scratch: Path) -> Path:
    """Download the files from the data set's home on the web; return the folder they are in."""
    # Here, as most data sets lie on this machine, and TLS takes longer to import than they to be opened.
    import http.client
    import urllib.request

    for name in description.sums:
        address = f"{description.home}/{name}.gz"
        if not address.startswith("https://"):
            raise OSError(f"{address} is not an https address")
        try:
            with urllib.request.urlopen(address, timeout=30) as answer, (scratch / f"{name}.gz").open("wb") as file:  # noqa: S310
                shutil.copyfileobj(answer, file)
        except http.client.HTTPException as error:
            raise OSError(str(error)) from None
    return scratch


@cache
def read_idx(path: str) -> NDArray[np.uint8]:
    """Return the uint8 array in the IDX file `path`.gz; kept, since every image is read from it.

    Source: http://yann.lecun.com/exdb/mnist, "the IDX file format".
    """
    content = gzip.decompress(Path(f"{path}.gz").read_bytes())
    try:
        zeros, kind, n_dimensions = struct.unpack(">HBB", content[:4])
        if zeros != 0 or kind != 8:
            raise ValueError(f"type {kind}")
        shape = struct.unpack(f">{n_dimensions}I", content[4 : 4 + 4 * n_dimensions])
        return np.frombuffer(content, np.uint8, offset=4 + 4 * n_dimensions).reshape(shape)
    except (struct.error, ValueError) as error:
        raise KingletError(f"data.source: {path}.gz is no IDX file of unsigned bytes ({error}).") from None


def read_image(folder: str, record: Record) -> NDArray[np.uint8]:
    """Return the pixels of a record, of shape (height, width, 1)."""
    name, _, number = record.location.rpartition(":")
    return read_idx(str(Path(folder, name)))[int(number)][:, :, None]
