"""The settings of clips, the pieces of videos that have a class each (`problem: video`)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tasks.settings_section import AUTO, AutoOrCount, AutoOrPositive, Section


class Clips(Section):
    """How clips are cut out of videos.

    frames: of a clip. frames_per_second: of a clip, taken from the video by the times of its frames; "auto": so many
    that a clip covers what nearly all videos have, 5 at the least. per_video: the most clips that are cut from one
    video, spread evenly and without overlap; "auto": as many as the usual video has room for.
    """

    frames: Annotated[int, Field(ge=2, le=256)] = 16
    frames_per_second: AutoOrPositive = AUTO
    per_video: AutoOrCount = AUTO
