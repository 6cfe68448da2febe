"""A folder with one sub-folder per class."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace
from functools import partial
from pathlib import Path

from kinglet.data.sources.domains import NAMES, read_domains
from kinglet.data.sources.layout import NOT_IN_A_CLASS, arrange, has_image_suffix
from kinglet.data.sources.records import Record, Source, printable
from kinglet.errors import KingletError
from kinglet.runtime.decoding import sniff

LAYOUT_HINT = "Make one sub-folder per class and put its images inside, or name a .csv table of paths and labels."


def open_folder(location: str, _images: str) -> Source:
    """Return the source of a folder with one sub-folder per class (or with train, validation, test above them).

    _images: unused, the folder itself holds the images. Symbolic links are followed. The images' domains are those of a
    domains.csv in it.
    Raises KingletError for a folder that cannot be listed or holds no image of a class, and for a domains.csv that
    cannot be understood.
    """
    root = Path(location)
    paths, domains = [path for path in list_files(root) if path != NAMES], read_domains(root)
    if not any(root.iterdir()):
        raise KingletError(f"data.source: the folder {location} is empty.", LAYOUT_HINT)
    records, left_out = arrange(paths, lambda path: starts_like_an_image(root / path))
    if not records:
        loose = [path for path in left_out.get(NOT_IN_A_CLASS, []) if has_image_suffix(path)]
        what = f"{len(loose)} images but no folder of a class" if loose else "no images"
        raise KingletError(f"data.source: the folder {location} holds {what}.", LAYOUT_HINT)
    records = [replace(record, domain=domains.of(record.location)) for record in records]
    return Source("folder", records, partial(read_file, str(root)), left_out=left_out)


def open_unlabelled(location: str) -> Source:
    """Return the source of a folder of images without a label, wherever below it they lie.

    Raises KingletError if there is no such folder or it cannot be listed.
    """
    root = Path(location)
    if not root.is_dir():
        raise KingletError(
            f"data.unlabelled: {location} is no folder (looked in {Path.cwd()}).",
            "Name a folder of images; an empty one where there are none without a label.",
        )
    names = [name for name in list_files(root, "data.unlabelled") if is_image(root, name)]
    return Source("unlabelled", [Record(printable(name), name) for name in names], partial(read_file, str(root)))


def is_image(root: Path, name: str) -> bool:
    """Return whether a file below `root` is called like an image or begins like one."""
    return has_image_suffix(name) or starts_like_an_image(root / name)


def list_files(root: Path, setting: str = "data.source") -> list[str]:
    """Return the paths of all files below `root`, relative, with forward slashes; links are followed.

    setting: who named the folder, for the error. A link that leads back to a folder it lies in is not followed.
    Raises KingletError if one cannot be listed.
    """
    found = []

    def refuse(error: OSError) -> None:
        raise KingletError(f"{setting}: {error.filename} cannot be read: {error.strerror}.") from error

    for folder, inner, files in os.walk(root, followlinks=True, onerror=refuse):
        inner[:] = sorted(name for name in inner if not leads_back(Path(folder, name)))
        relative = os.path.relpath(folder, root)
        found += [name if relative == "." else f"{relative}/{name}".replace(os.sep, "/") for name in files]
    return sorted(found)


def leads_back(folder: Path) -> bool:
    """Return whether a folder is a link to one of the folders it lies in."""
    if not folder.is_symlink():
        return False
    return folder.parent.resolve().is_relative_to(folder.resolve())


def starts_like_an_image(path: Path) -> bool:
    """Return whether the first bytes of a file are those of an image format."""
    try:
        refuse_irregular(path)
        with path.open("rb") as file:
            return bool(sniff(file.read(12)))
    except OSError:
        return False


def read_file(root: str, record: Record) -> bytes:
    """Return the bytes of a record's file."""
    path = Path(root, record.location)
    refuse_irregular(path)
    return path.read_bytes()


def refuse_irregular(path: Path) -> None:
    """Raise OSError for a pipe, a socket or a device: reading one could wait for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
