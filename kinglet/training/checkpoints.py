"""The state of a training on disk, so that a killed run goes on at the last epoch's end."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from kinglet.atomic import write_bytes


def checkpoint_key(facts: Any, files: Iterable[Path]) -> str:
    """Return a key of everything that decides a training: JSON-ready facts and the content of files."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for path in files:
        with path.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:24]


def write_state(path: Path, state: Any) -> None:
    """Write what `torch.load` reads to `path`, atomically; the same state gives the same bytes.

    Through memory: torch names the archive inside after the file that it writes, which is a temporary
    one here, and reports a full disk as a RuntimeError that does not say so.
    """
    content = io.BytesIO()
    torch.save(state, content)
    write_bytes(path, content.getvalue())


class Checkpoint:
    """One training's state, kept in a folder of its own until the training is done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "state.pt"

    def load(self) -> dict[str, Any] | None:
        """Return the last state saved, or None."""
        if not self.path.exists():
            return None
        state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state on disk; a kill while it is written leaves the old one."""
        write_state(self.path, state)

    def clear(self) -> None:
        """Forget the state."""
        shutil.rmtree(self.folder, ignore_errors=True)
