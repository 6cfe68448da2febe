"""The data checks of clips that images do not have."""

from __future__ import annotations

from kinglet.data.expectations import Check, flag


def clip_checks() -> list[Check]:
    """Return what is expected of clips besides: of the table of images with recording_leaking, bool."""
    return [
        flag(
            "leaking recordings",
            "recording_leaking",
            False,
            "{count} clips are cut from a recording that is also in another part of the split the set brings",
        )
    ]
