"""Tracks as people see them: boxes with their numbers on the frames, as a video and as a strip of frames."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from kinglet.errors import KingletError
from kinglet.tracking.tracks import NO_CLASS, Tracks

# Neighbouring numbers get hues far from each other: a turn by the golden ratio.
HUE_STEP = 0.618034
STRIP_HEIGHT, STRIP_GAP, STRIP_FRAMES = 240, 4, 6
# Time stamps of the written video count in milliseconds.
TICKS_PER_SECOND = 1000
# Of H.264's scale of 0 to 51; what people call visually lossless.
QUALITY = "18"


def draw_tracks(image: NDArray[np.uint8], tracks: Tracks, classes: Sequence[str] = ()) -> NDArray[np.uint8]:
    """Return a frame with its tracks: each a box of its own colour, with its number and, if named, its class.

    image: uint8 (height, width, 3). tracks: of this frame alone. classes: names by label, none to leave them out.
    """
    picture = Image.fromarray(image)
    canvas = ImageDraw.Draw(picture)
    size = max(10, min(image.shape[:2]) // 25)
    font = ImageFont.load_default(size)
    for identity, box, label in zip(tracks.ids.tolist(), tracks.xyxy.tolist(), tracks.labels.tolist(), strict=True):
        colour = colour_of(identity)
        canvas.rectangle(box, outline=colour, width=max(1, size // 7))
        text = f"{identity} {classes[label]}" if len(classes) > 1 and label != NO_CLASS else f"{identity}"
        corner = (box[0], max(0.0, box[1] - size * 1.3))
        canvas.rectangle(canvas.textbbox(corner, text, font=font), fill=colour)
        canvas.text(corner, text, fill="black", font=font)
    return np.asarray(picture)


def colour_of(identity: int) -> tuple[int, int, int]:
    """Return the colour of a track, always the same one, RGB."""
    red, green, blue = colorsys.hsv_to_rgb(identity * HUE_STEP % 1, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def strip_frames(n_frames: int) -> list[int]:
    """Return the numbers of the frames that a strip shows, evenly spread, the first and the last among them."""
    return sorted({round(number) for number in np.linspace(1, n_frames, min(STRIP_FRAMES, n_frames)).tolist()})


def strip_of(pictures: Sequence[NDArray[np.uint8]], height: int = STRIP_HEIGHT) -> NDArray[np.uint8]:
    """Return pictures side by side at one height, uint8 (height, width, 3); one at least."""
    scaled = [
        np.asarray(
            Image.fromarray(picture).resize((max(1, round(height * picture.shape[1] / picture.shape[0])), height))
        )
        for picture in pictures
    ]
    gap = np.full((height, STRIP_GAP, 3), 255, np.uint8)
    return np.concatenate([part for picture in scaled for part in (gap, picture)][1:], axis=1)


class VideoWriter(AbstractContextManager["VideoWriter"]):
    """Writes frames as H.264 in MP4, each at its own time; the file is the same for the same frames.

    The path is written to as it is: give one that is not yet the file's name, as `kinglet.atomic` does.
    """

    def __init__(self, file: Path, rate: float) -> None:
        """Open the file. rate: frames per second, a hint for players."""
        # Here, as drawing needs no encoder.
        import av

        self._file, self._rate = file, Fraction(rate).limit_denominator(TICKS_PER_SECOND)
        self._container = av.open(str(file), "w", format="mp4")
        self._frame: Callable[..., Any] = av.VideoFrame.from_ndarray
        self._stream: Any = None
        self._shape: tuple[int, ...] = ()

    def write(self, image: NDArray[np.uint8], seconds: float) -> None:
        """Write a frame, uint8 (height, width, 3), shown at this time after the first.

        Raises KingletError for a frame of another size than the first.
        """
        if self._stream is None:
            self._shape = image.shape
            self._stream = self._begin(image)
        if image.shape != self._shape:
            (height, width), (first_height, first_width) = image.shape[:2], self._shape[:2]
            raise KingletError(
                f"a frame of {width} x {height} pixels follows one of {first_width} x {first_height}.",
                "Frames of a video are all of one size.",
            )
        # H.264 stores colours for squares of two pixels.
        even = np.pad(image, [(0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)], mode="edge")
        frame = self._frame(even, format="rgb24")
        frame.time_base = Fraction(1, TICKS_PER_SECOND)
        frame.pts = round(seconds * TICKS_PER_SECOND)
        self._container.mux(self._stream.encode(frame))

    def _begin(self, image: NDArray[np.uint8]) -> Any:
        # One thread, and none of the encoder's words on itself: the same bytes whatever the machine is busy with.
        stream: Any = self._container.add_stream("libx264", rate=self._rate, options={"crf": QUALITY, "threads": "1"})
        stream.height, stream.width = (side + side % 2 for side in image.shape[:2])
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS_PER_SECOND)
        return stream

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what the encoder holds, and close the file."""
        with self._container:
            if kind is None and self._stream is not None:
                self._container.mux(self._stream.encode())
