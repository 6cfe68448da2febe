"""The chapter `gate`: the verdict in a paragraph, and every check with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kinglet.atomic import read_json
from tasks.artifacts import VERDICT

STYLES = {"passed": "passed", "failed": "critical", "not judged": "unjudged"}
# What failed comes first, what was not judged last.
ORDER = ("failed", "passed", "not judged")


def chapter(path: Path = VERDICT) -> dict[str, Any] | None:
    """Return what the chapter shows, None if no gate has judged."""
    if not path.is_file():
        return None
    verdict = read_json(path)
    checks = [{**check, "style": STYLES[check["outcome"]]} for check in verdict["checks"]]
    return {
        "accepted": verdict["verdict"] == "accepted",
        "word": verdict["verdict"],
        "paragraph": verdict["paragraph"].partition(": ")[2],
        "checks": sorted(checks, key=lambda check: ORDER.index(check["outcome"])),
        "champion": verdict["champion"],
        "bundle": verdict["challenger"]["bundle"],
    }
