"""The chapter `data`: what the checks of the data found, and what was left out."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

SEVERITIES = ("critical", "warning", "info")


def findings(checks: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the findings of the data checks: those that failed first, by severity."""
    found = [
        {**item, "severity": item["severity"] if item["severity"] in SEVERITIES else "info"}
        for item in checks.get("findings", [])
    ]
    return sorted(found, key=lambda item: (item["passed"], SEVERITIES.index(item["severity"]), item["check"]))


def read_quarantine(path: Path) -> list[dict[str, str]]:
    """Return the images that were left out, with the reason."""
    with path.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))
