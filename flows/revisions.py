"""What another revision of this repository holds: files under DVC, and how metrics and settings differ from it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kinglet.errors import KingletError

LOCK = "dvc.lock"
# DVC's name for what is not committed.
WORKSPACE = "workspace"


def check_revision(revision: str) -> None:
    """Raise KingletError if the repository knows no such commit, branch or tag."""
    # What begins with a dash would be read as an option, by git or by DVC.
    known = not revision.startswith("-") and git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if not known:
        raise KingletError(
            f"There is no revision {revision!r} in this repository.",
            "Name a commit, a branch (origin/main) or a tag; `git fetch` brings those of the server.",
        )


def holds_run(revision: str) -> bool:
    """Return whether a revision keeps the outcome of a run, its dvc.lock."""
    return git("cat-file", "-e", f"{revision}:{LOCK}")


def git(*arguments: str) -> bool:
    """Return whether a git command that only looks ended well."""
    return subprocess.run(["git", *arguments], capture_output=True, check=False).returncode == 0


def read_at(revision: str, paths: Iterable[Path]) -> list[Any]:
    """Return the JSON in these files as they were in a revision; DVC takes them from its cache or its remote.

    Raises KingletError if the revision has no such file, or its content is in neither.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    try:
        files = DVCFileSystem(rev=revision)
        return [json.loads(files.read_text(path.as_posix())) for path in paths]
    except (OSError, DvcException) as error:
        raise KingletError(
            f"What {revision} found cannot be read: {' '.join(str(error).split())}.",
            "`dvc fetch --all-branches` brings it from the remote.",
        ) from None


def changes_since(revision: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metrics and the settings of this checkout that differ from a revision's, as DVC's `diff` finds them.

    Each is {file: {name: {"old", "new", and of numbers "diff"}}}; "old" is None where the revision has no such value.
    Raises KingletError if DVC cannot read those of this checkout.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            found = repo.metrics.diff(a_rev=revision), repo.params.diff(a_rev=revision)
    except DvcException as error:
        raise KingletError(f"DVC cannot compare with {revision}: {' '.join(str(error).split())}.") from None
    for one in found:
        if problem := one.get("errors", {}).get(WORKSPACE):
            raise KingletError(
                f"DVC cannot read this checkout: {in_words(problem)}.", "`dvc repro` brings it in order."
            )
    metrics, params = (dict(one.get("diff", {})) for one in found)
    return metrics, params


def in_words(problem: Exception | dict[str, Exception]) -> str:
    """Return what DVC found wrong with a checkout as a whole, or with one of its files, in one sentence."""
    if isinstance(problem, dict):
        file, error = min(problem.items())
        return f"{file}: {in_words(error)}"
    return " ".join(str(problem).split()) or type(problem).__name__
