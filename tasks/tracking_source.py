"""The source of a data set for tracking: sequences whose frames are images with boxes that have identities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kinglet.atomic import atomic_path
from kinglet.data.annotations.mot import FORMAT, sequence_frames
from kinglet.errors import KingletError
from kinglet.runtime.videos import Video
from kinglet.tracking.frames import FrameFolder
from kinglet.tracking.sequences import find_sequences
from tasks.annotated_source import folder_of
from tasks.artifacts import FRAMES
from tasks.detection_source import open_annotated
from tasks.opened_source import OpenedSource
from tasks.parameters import Parameters

WHAT_IS_READ = "Bring sequences in the form of the MOTChallenge, or set problem to detection."


def open_sequences(parameters: Parameters) -> OpenedSource:
    """Return the source of frames that have boxes, and print what is left out of it.

    Raises KingletError for a source that holds no sequences with true tracks.
    """
    root = folder_of(parameters.data.source, "sequences", WHAT_IS_READ)
    opened = open_annotated(parameters)
    found = opened.facts["annotations"]["format"]
    if found != FORMAT:
        raise KingletError(
            f"data.source: {root} holds images with boxes ({found}), and no sequences with true tracks.",
            WHAT_IS_READ,
        )
    places = {frame.path: (frame.sequence, frame.number, frame.seconds) for frame in sequence_frames(root)}
    frames = [places[record.location] for record in opened.source.records]
    facts = {sequence.name: facts_of(sequence.open()) for sequence in find_sequences(root)}

    def write_annotations(rows: list[dict[str, Any]]) -> None:
        opened.write_annotations(rows)
        write_frames(frames, FRAMES)

    return replace(opened, write_annotations=write_annotations, facts={**opened.facts, "sequences": facts})


def write_frames(frames: Sequence[tuple[str, int, float]], file: Path) -> None:
    """Write of which sequence every image is a frame, its number there and its seconds after the first."""
    import pyarrow
    import pyarrow.parquet

    sequences, numbers, seconds = zip(*frames, strict=True)
    columns = {"index": range(len(frames)), "sequence": sequences, "frame": numbers, "seconds": seconds}
    with atomic_path(file) as path:
        pyarrow.parquet.write_table(pyarrow.table({name: list(values) for name, values in columns.items()}), path)


def facts_of(frames: Video | FrameFolder) -> dict[str, Any]:
    """Return what is told of a sequence: how many frames, how many of them in a second, and whether evenly."""
    return {"frames": len(frames), "rate": round(frames.rate, 6), "is_even": frames.is_even}
