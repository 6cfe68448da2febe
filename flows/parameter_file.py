"""Run with another parameter file: DVC reads `params.yaml` only, so the file takes its place."""

from __future__ import annotations

import subprocess
from pathlib import Path

from kinglet.atomic import write_bytes
from kinglet.errors import KingletError
from tasks.parameters import PARAMS_FILE, load_parameters


def use_parameters(source: Path, *, overwrite: bool = False) -> None:
    """Replace params.yaml by `source`, after checking `source`.

    Raises KingletError when `source` is not valid, or when params.yaml holds edits that would be lost:
    they are neither in Git nor in another parameter file. `overwrite` replaces it all the same.
    """
    load_parameters(source)
    content = source.read_bytes()
    if PARAMS_FILE.exists():
        if PARAMS_FILE.read_bytes() == content:
            return
        if not overwrite and not is_kept_elsewhere(PARAMS_FILE):
            raise KingletError(
                f"{PARAMS_FILE} has changes that are neither in Git nor in params/, and {source} would replace them.",
                "Commit them, copy them to a file in params/, or pass --overwrite-params.",
            )
    write_bytes(PARAMS_FILE, content)


def is_kept_elsewhere(path: Path) -> bool:
    """Return whether the content of `path` is the committed one, or that of a file in params/."""
    content = path.read_bytes()
    if any(other.read_bytes() == content for other in sorted(path.parent.glob("params/*.yaml"))):
        return True
    committed = subprocess.run(
        ["git", "show", f"HEAD:./{path.name}"], cwd=path.parent, capture_output=True, check=False
    )
    return committed.returncode == 0 and committed.stdout == content
