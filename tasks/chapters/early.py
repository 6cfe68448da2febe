"""The chapter `early`: how often a stream is answered right before a clip ends."""

from __future__ import annotations

from typing import Any


def chapter(rows: dict[str, dict[str, Any]], frames: int) -> dict[str, Any] | None:
    """Return what the template shows; None where no model answers after every frame.

    rows: of all models, as `report_rows.model_rows` makes them. frames: of a clip.
    """
    found = [row for row in rows.values() if "early" in row]
    if not found:
        return None
    return {
        "frames": frames,
        "places": found[0]["early"],
        "rows": [{"name": row["name"], "kind": row["kind"], "places": row["early"]} for row in found],
    }
