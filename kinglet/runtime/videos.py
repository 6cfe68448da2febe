"""Frames of video files, decoded by FFmpeg through PyAV: each at its own time, upright, and found again exactly.

Where frames lie is read from the file's packets before anything is decoded. To read a frame, the decoder goes back to
the key frame before it and on to the very time stamp that is wanted; a frame number that a container reports is never
trusted.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.errors import KingletError

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
# How much later than its last frame a file may say that it ends.
MISSING_SECONDS = 1.0
# Frames whose distances differ by more than this share of the usual one are not as far apart as the others. Time
# stamps of containers are rounded, to a millisecond in Matroska.
UNEVEN_FROM = 0.1
ROUNDING_SECONDS = 0.002
# As many frames are decoded on the way to one that comes later before a search is made: key frames are seldom nearer.
NEAR_FRAMES = 48
REPAIR = "Write it anew, for instance with `ffmpeg -i OLD -c:v libx264 NEW.mp4`, and look at what that says."


@dataclass(frozen=True)
class Frame:
    """One frame as people see it.

    number: from 1. seconds: after the first one. image: uint8 (height, width, 3), RGB.
    """

    number: int
    seconds: float
    image: NDArray[np.uint8]


class Video:
    """The frames of one file, one after the other or by number.

    rate: frames per second, on average. seconds: of each frame after the first, float64
    (n,), ascending. is_even: whether all frames are as far apart. stored_size: (width, height) of the frames in pixels,
    before they are turned.
    """

    def __init__(self, file: Path, content: bytes | None = None, form: str | None = None) -> None:
        """Open a file and see where its frames are.

        content: its bytes where they are in memory; `file` is then what errors call it. form: FFmpeg's name of the
        only format that it may have, without which the bytes tell.
        Raises KingletError if it does not exist, is no video, or has no frames or none with a time.
        """
        self.file = file
        self._content, self._form = content, form
        self._next: int | None = None
        self._decoded: Iterator[Any] | None = None
        with self._open() as container:
            self._stamps, base = stamps_of(container, file)
            stream = container.streams.video[0]
            self.stored_size: tuple[int, int] = (stream.codec_context.width, stream.codec_context.height)
            self.seconds = (np.array(self._stamps, np.float64) - self._stamps[0]) * base
            refuse_cut_off(container, float(self.seconds[-1]), file)
        steps = np.diff(self.seconds)
        # Of a single frame nothing is known.
        self.rate = float(len(steps) / self.seconds[-1]) if len(steps) else 1.0
        usual = np.median(steps) if len(steps) else 0.0
        self.is_even = bool((np.abs(steps - usual) <= UNEVEN_FROM * usual + ROUNDING_SECONDS).all())

    def __len__(self) -> int:
        return len(self._stamps)

    def __iter__(self) -> Iterator[Frame]:
        for number in range(1, len(self) + 1):
            yield self.frame(number)

    def frame(self, number: int) -> Frame:
        """Return a frame by its number, 1 to the number of frames; one of the next ones costs no search.

        Raises KingletError if it cannot be decoded, or not whole.
        """
        wanted, found = self._stamps[number - 1], None
        if self._decoded is not None and self._next is not None and 0 <= number - self._next < NEAR_FRAMES:
            found = reach(self._decoded, wanted)
        # Where a search lands behind the frame, the way from the file's beginning does not.
        for start in (wanted, self._stamps[0]):
            if found is None:
                self._decoded = self._decode_from(start)
                found = reach(self._decoded, wanted)
        if found is None:
            self._decoded = None
            raise KingletError(
                f"{self.file}: frame {number} of {len(self)}, at {self.seconds[number - 1]:.2f} s, cannot be decoded.",
                REPAIR,
            )
        self._next = number + 1
        return Frame(number, float(self.seconds[number - 1]), upright(found))

    def _open(self) -> Any:
        # Here, as most who use this package read folders of images.
        import av

        if self._content is None and not self.file.is_file():
            raise KingletError(f"{self.file} does not exist.", "Name a video file or a folder of frames.")
        opened = str(self.file) if self._content is None else io.BytesIO(self._content)
        try:
            container = av.open(opened, format=self._form)
        except (av.FFmpegError, ValueError) as error:
            raise KingletError(f"{self.file} is no video that FFmpeg can read: {words_of(error)}.") from None
        if not container.streams.video:
            kinds = kinds_in(container)
            container.close()
            raise KingletError(f"{self.file} holds no video, only {kinds}.")
        return container

    def _decode_from(self, stamp: int) -> Iterator[Any]:
        """Yield decoded frames from the last key frame before this time on, up to what cannot be decoded."""
        import av

        with self._open() as container:
            stream = container.streams.video[0]
            # A frame with a hole that the decoder filled in is not the frame.
            stream.codec_context.options = {"err_detect": "explode"}
            container.seek(stamp, stream=stream, backward=True)
            try:
                for packet in container.demux(stream):
                    yield from packet.decode()
            except av.FFmpegError:
                # Frames before the broken one may wait for others that come later, and are whole.
                with suppress(av.FFmpegError, EOFError):
                    yield from stream.codec_context.decode(None)


def reach(decoded: Iterator[Any], wanted: int) -> Any | None:
    """Return the decoded frame of this time; None if it does not come, or not whole."""
    for frame in decoded:
        if frame.pts is not None and frame.pts >= wanted:
            return frame if frame.pts == wanted and not frame.is_corrupt else None
    return None


def stamps_of(container: Any, file: Path) -> tuple[list[int], float]:
    """Return when the frames are shown, ascending, in units of so many seconds; nothing is decoded.

    Raises KingletError if there are none, or some have no time.
    """
    import av

    stream = container.streams.video[0]
    stamps = []
    try:
        for packet in container.demux(stream):
            # The last one is empty, and only tells the decoder to give what it holds.
            if packet.size and not packet.is_discard:
                stamps.append(packet.pts)
    except av.FFmpegError as error:
        raise KingletError(f"{file}: it breaks off after {len(stamps)} frames: {words_of(error)}.", REPAIR) from None
    if not stamps:
        raise KingletError(f"{file} holds no frames.", "Name a video that does, or a folder of frames.")
    if None in stamps:
        raise KingletError(f"{file}: frame {stamps.index(None) + 1} in the file's order has no time.", REPAIR)
    if len(set(stamps)) < len(stamps):
        raise KingletError(f"{file}: several of its frames have the same time.", REPAIR)
    return sorted(stamps), float(stream.time_base)


def refuse_cut_off(container: Any, last: float, file: Path) -> None:
    """Raise KingletError if a file of nothing but frames says that it goes on long after the last one, in seconds."""
    if len(container.streams) == 1 and container.duration is not None:
        announced = container.duration / 1e6
        if announced - last > MISSING_SECONDS:
            raise KingletError(f"{file}: it breaks off after {last:.1f} of {announced:.1f} seconds.", REPAIR)


def upright(decoded: Any) -> NDArray[np.uint8]:
    """Return a decoded frame as RGB, turned as the file's metadata say."""
    image = decoded.to_ndarray(format="rgb24")
    # FFmpeg's number is the angle, counterclockwise, by which the picture has to be turned.
    return np.ascontiguousarray(np.rot90(image, round(decoded.rotation / 90) % 4))


def kinds_in(container: Any) -> str:
    """Return in words what a container holds."""
    return " and ".join(sorted({stream.type for stream in container.streams})) or "nothing"


def words_of(error: Exception) -> str:
    """Return an error of FFmpeg in words, without its number and file."""
    return str(getattr(error, "strerror", None) or error)
