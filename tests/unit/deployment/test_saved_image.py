"""Images that were built at different times become the same, and what the base image brought stays."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from kinglet.deployment.saved_image import rewrite


def layer(files: dict[str, bytes], time: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.uname, entry.mode = len(content), time, "builder", 0o640
            archive.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname, link.mtime = tarfile.SYMTYPE, "a", time
        archive.addfile(link)
    return buffer.getvalue()


BASE = layer({"base": b"system"}, 111)


def saved(path: Path, time: int, *, compressed: bool = False) -> Path:
    """Write an image of a base layer and one of its own, as engines save it."""
    own = layer({"a": b"model", "b": b""}, time)
    configuration = {
        "architecture": "amd64",
        "os": "linux",
        "container": f"random-{time}",
        "created": f"{time}",
        "config": {"User": "10001", "Image": f"parent-{time}", "Hostname": "", "Labels": {"a": "b"}},
        "history": [{"created": "base"}, {"created": f"{time}", "created_by": "COPY"}],
        "rootfs": {"type": "layers", "diff_ids": ["x", "y"]},
    }
    files = {
        "config.json": json.dumps(configuration).encode(),
        "1/layer.tar": BASE,
        "2/layer.tar": gzip.compress(own) if compressed else own,
    }
    manifest = [{"Config": "config.json", "RepoTags": None, "Layers": ["1/layer.tar", "2/layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        for name, content in {**files, "manifest.json": json.dumps(manifest).encode()}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def contents(path: Path) -> tuple[dict[str, Any], dict[str, Any], list[bytes]]:
    with tarfile.open(path) as archive:

        def read(name: str) -> bytes:
            return archive.extractfile(name).read()  # type: ignore[union-attr]

        manifest = json.loads(read("manifest.json"))[0]
        return manifest, json.loads(read(manifest["Config"])), [read(name) for name in manifest["Layers"]]


def rewritten(tmp_path: Path, time: int, **options: bool) -> tuple[str, Path]:
    target = tmp_path / f"{time}.tar"
    image_id = rewrite(saved(tmp_path / "saved.tar", time, **options), target, "kinglet:1", 315_532_800, 1, 1)
    return image_id, target


def test_the_time_of_a_build_and_how_an_engine_stores_it_leave_no_trace(tmp_path: Path) -> None:
    first, one = rewritten(tmp_path, 1_000_000_000)
    second, two = rewritten(tmp_path, 2_000_000_000, compressed=True)
    assert first == second
    assert one.read_bytes() != b""
    assert contents(one) == contents(two)


def test_only_times_and_notes_of_the_builder_are_lost(tmp_path: Path) -> None:
    image_id, target = rewritten(tmp_path, 1_000_000_000)
    manifest, configuration, layers = contents(target)
    assert manifest["RepoTags"] == ["kinglet:1"]
    assert manifest["Config"] == f"{image_id.removeprefix('sha256:')}.json"
    assert configuration["config"] == {"User": "10001", "Labels": {"a": "b"}}
    assert configuration["created"] == "1980-01-01T00:00:00Z"
    assert [step["created"] for step in configuration["history"]] == ["base", "1980-01-01T00:00:00Z"]
    assert configuration["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in layers]
    assert layers[0] == BASE
    with tarfile.open(fileobj=io.BytesIO(layers[1])) as own:
        found = [(entry.name, entry.mtime, entry.uname, entry.mode) for entry in own if entry.isreg()]
        assert found == [("a", 315_532_800, "", 0o640), ("b", 315_532_800, "", 0o640)]
        assert own.extractfile("a").read() == b"model"  # type: ignore[union-attr]
        assert own.getmember("link").linkname == "a"


def test_an_archive_that_is_no_image_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(KeyError):
        rewrite(tmp_path / "empty.tar", tmp_path / "new.tar", "kinglet:1", 0, 0, 0)
