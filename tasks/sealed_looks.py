"""How often the sealed images were looked at: a list that lies under version control, so that nobody forgets a look.

Every look at a test set makes the next one worth less: who chooses by it, fits to it. The sealed images are scored
only for a release, and each time is written down, with what was seen, before anybody sees it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from kinglet.atomic import read_json, write_json
from kinglet.data.splits import SEALED
from kinglet.errors import KingletError
from kinglet.evidence.gate import FAILED, NOT_JUDGED, PASSED, Check, Outcome
from tasks.artifacts import SPLIT
from tasks.image_tables import read_parquet

LOOKS = Path("data/sealed_looks.json")


def read_looks(path: Path = LOOKS) -> list[dict[str, Any]]:
    """Return all looks, the first one first.

    Raises KingletError if the file is missing or no such list: a count that starts anew would be a lie.
    """
    try:
        looks = read_json(path)
    except (FileNotFoundError, ValueError):
        looks = None
    if not isinstance(looks, list) or not all(isinstance(look, dict) for look in looks):
        raise KingletError(
            f"{path} is missing or damaged: it counts the looks at the sealed images.",
            f"Restore it with `git checkout {path}`.",
        )
    return looks


def looks_at(source: str, looks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the looks at the sealed images of one data set. source: its data.source."""
    return [look for look in looks if look.get("source") == source]


def write_look(look: dict[str, Any], path: Path = LOOKS) -> None:
    """Add one look to the list."""
    write_json(path, [*read_looks(path), look])


def sealed_digest() -> tuple[str, int]:
    """Return the SHA-256 of the sorted SHA-256 of the sealed images, which stands for all of them, and their number."""
    of_images = read_parquet(SPLIT / "manifest.parquet", ["sha256"], SEALED)["sha256"].to_pylist()
    return hashlib.sha256("\n".join(sorted(of_images)).encode()).hexdigest(), len(of_images)


def look_for(bundle: str, reference: str, sealed: str, looks: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the last look at these sealed images for this bundle beside this reference; None if there was none.

    bundle, reference: digests; that of the teacher's is its model file's. sealed: of the sealed images.
    """
    wanted = {"bundle": bundle, "reference_digest": reference, "sealed": sealed}
    found = [look for look in looks if {key: look.get(key) for key in wanted} == wanted]
    return found[-1] if found else None


def sealed_check(look: dict[str, Any] | None, n_images: int, n_looks: int) -> Check:
    """Return what the sealed images say about a bundle. look: at them for this bundle, None if there was none."""
    times = "once" if n_looks == 1 else f"{n_looks} times"
    figures = {"images": n_images, "looks": n_looks}
    if look is None:
        seen = f"looked at {times}, not for this comparison" if n_looks else "never looked at"
        return Check("sealed images", NOT_JUDGED, f"{n_images:,} sealed images, {seen}.", figures)
    said = " ".join(check["reason"] for check in look["checks"])
    outcome: Outcome = PASSED if look["passed"] else FAILED
    return Check("sealed images", outcome, f"On {n_images:,} sealed images, looked at {times}: {said}", figures)
