"""The source of a data set for tracking: sequences whose frames are images with boxes that have identities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kinglet.data.annotations.mot import FORMAT, sequence_frames
from kinglet.errors import KingletError
from kinglet.tracking.frames import FrameFolder
from kinglet.tracking.sequences import find_sequences
from kinglet.tracking.videos import Video
from tasks.detection_source import folder_of, open_annotated
from tasks.opened_source import OpenedSource
from tasks.parameters import Parameters


def open_sequences(parameters: Parameters) -> OpenedSource:
    """Return the source of frames that have boxes, and print what is left out of it.

    Raises KingletError for a source that holds no sequences with true tracks.
    """
    root = folder_of(parameters.data.source)
    opened = open_annotated(parameters)
    found = opened.facts["annotations"]["format"]
    if found != FORMAT:
        raise KingletError(
            f"data.source: {root} holds images with boxes ({found}), and no sequences with true tracks.",
            "Bring sequences in the form of the MOTChallenge, or set problem to detection.",
        )
    places = {frame.path: (frame.sequence, frame.number, frame.seconds) for frame in sequence_frames(root)}
    frames = [places[record.location] for record in opened.source.records]
    facts = {sequence.name: facts_of(sequence.open()) for sequence in find_sequences(root)}
    return replace(opened, frames=frames, facts={**opened.facts, "sequences": facts})


def facts_of(frames: Video | FrameFolder) -> dict[str, Any]:
    """Return what is told of a sequence: how many frames, how many of them in a second, and whether evenly."""
    return {"frames": len(frames), "rate": round(frames.rate, 6), "is_even": frames.is_even}
