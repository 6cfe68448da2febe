"""The state of a training on disk, so that a killed run goes on at the last epoch's end."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from kinglet.atomic import atomic_path


def checkpoint_key(facts: Any, files: Iterable[Path]) -> str:
    """Return a key of everything that decides a training: JSON-ready facts and the content of files."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for path in files:
        with path.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:24]


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
        with atomic_path(self.path) as temporary:
            torch.save(state, temporary)

    def clear(self) -> None:
        """Forget the state."""
        shutil.rmtree(self.folder, ignore_errors=True)
