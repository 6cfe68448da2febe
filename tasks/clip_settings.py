"""The settings of clips, the pieces of videos that have a class each, and of what remembers their frames."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.settings_section import AUTO, AutoOrCount, AutoOrPositive, Count, Positive, Section


class Clips(Section):
    """How clips are cut out of videos.

    frames: of a clip. frames_per_second: of a clip, taken from the video by the times of its frames; "auto": so many
    that a clip covers what nearly all videos have, 5 at the least. per_video: the most clips that are cut from one
    video, spread evenly and without overlap; "auto": as many as the usual video has room for.
    """

    frames: Annotated[int, Field(ge=2, le=256)] = 16
    frames_per_second: AutoOrPositive = AUTO
    per_video: AutoOrCount = AUTO


class Recurrent(Section):
    """What takes a clip's frames one by one, and how it is trained alone, on features of a backbone that stays.

    kind: of memory. units: that it has. epochs: "auto" takes fewer where clips are many. views: in how many ways the
    backbone sees each clip. dropout: of the features and of what the memory says, in all of the training.
    """

    kind: Literal["gru", "lstm"] = "gru"
    units: Annotated[int, Field(ge=1, le=2048)] = 128
    epochs: AutoOrPositive = AUTO
    views: Annotated[int, Field(ge=1, le=64)] = 2
    batch_size: Count = 16
    learning_rate: Positive = 5e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
