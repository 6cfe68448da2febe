"""An image as `docker save` writes it, made to depend on its content alone.

Two builds of the same files differ in the time of every file, of every step and of the image, and so in its id.
BuildKit can be told the time from version 0.13 on (`rewrite-timestamp`); this does the same for every engine.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

MANIFEST = "manifest.json"
# Of a layer that an engine stores compressed.
GZIP = b"\x1f\x8b"
# What the image specification of OCI knows; all else is a builder's note about itself.
CONFIGURATION = ("architecture", "os", "variant", "author")
RUN_CONFIGURATION = (
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
)


def rewrite(saved: Path, target: Path, reference: str, epoch: int, base_layers: int, base_history: int) -> str:
    """Write a saved image again with one time everywhere; return the id that it has once it is loaded.

    saved, target: archives of one image, `docker save` and `docker load`. reference: the name and tag of the new
    image. epoch: seconds since 1970 of every file, step and image. base_layers, base_history: how many layers and
    steps the base image has, which stay as they are.
    """
    with tarfile.open(saved) as opened, tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as written:
        manifest = json.load(content_of(opened, MANIFEST))[0]
        configuration = json.load(content_of(opened, manifest["Config"]))
        names, diff_ids = [], []
        for number, name in enumerate(manifest["Layers"]):
            with tempfile.TemporaryFile() as layer:
                copy_layer(opened, name, layer, None if number < base_layers else epoch)
                digest = sha256_of(layer)
                names.append(f"{digest}.tar")
                diff_ids.append(f"sha256:{digest}")
                if names.count(names[-1]) == 1:
                    add(written, names[-1], layer)
        content = json.dumps(
            timeless(configuration, diff_ids, moment(epoch), base_history), sort_keys=True, separators=(",", ":")
        ).encode()
        digest = hashlib.sha256(content).hexdigest()
        add(written, f"{digest}.json", io.BytesIO(content))
        entry = {"Config": f"{digest}.json", "RepoTags": [reference], "Layers": names}
        add(written, MANIFEST, io.BytesIO(json.dumps([entry]).encode()))
    return f"sha256:{digest}"


def timeless(configuration: dict[str, Any], diff_ids: list[str], created: str, base_history: int) -> dict[str, Any]:
    """Return an image's configuration without what differs from build to build.

    diff_ids: of the layers. created: the time of the image and of its steps beyond those of the base image.
    """
    run = configuration.get("config") or {}
    history = [
        step if number < base_history else {**step, "created": created}
        for number, step in enumerate(configuration.get("history") or [])
    ]
    return {
        **{key: configuration[key] for key in CONFIGURATION if configuration.get(key)},
        "config": {key: run[key] for key in RUN_CONFIGURATION if run.get(key)},
        "created": created,
        "history": history,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }


def copy_layer(saved: tarfile.TarFile, name: str, target: IO[bytes], epoch: int | None) -> None:
    """Write a layer to `target`, uncompressed; with an epoch every file in it has this time."""
    layer = content_of(saved, name)
    compressed = layer.read(2) == GZIP
    layer.seek(0)
    stream: IO[bytes] = gzip.GzipFile(fileobj=layer) if compressed else layer  # type: ignore[assignment]
    if epoch is None:
        copy(stream.read, target)
        return
    with (
        tarfile.open(fileobj=stream, mode="r|") as old,
        tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in old:
            member.mtime = epoch
            member.uname = member.gname = ""
            member.pax_headers = {
                key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")
            }
            new.addfile(member, old.extractfile(member) if member.isreg() else None)


def copy(read: Callable[[int], bytes], target: IO[bytes]) -> None:
    """Write all that `read` gives to `target`."""
    while block := read(1 << 20):
        target.write(block)


def content_of(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """Return a file of an archive, opened; raises KeyError if there is none of this name.

    An engine may write a layer that is there twice as a link to the other.
    """
    found = archive.extractfile(name)
    if found is None:
        raise KeyError(name)
    return found


def add(archive: tarfile.TarFile, name: str, content: IO[bytes]) -> None:
    """Add a file to an archive, from its beginning to its end."""
    entry = tarfile.TarInfo(name)
    entry.size = content.seek(0, io.SEEK_END)
    content.seek(0)
    archive.addfile(entry, content)


def sha256_of(content: IO[bytes]) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    content.seek(0)
    digest = hashlib.sha256()
    while block := content.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def moment(epoch: int) -> str:
    """Return seconds since 1970 as the image specification writes a time."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
