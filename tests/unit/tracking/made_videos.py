"""Small videos whose frames tell their number: gray of 7 levels more each, with a red corner at the upper left."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, LEVELS = 64, 48, 7


def picture(number: int) -> np.ndarray:
    """Return the frame of this number, from 1."""
    image = np.full((HEIGHT, WIDTH, 3), LEVELS * number % 256, np.uint8)
    image[:8, :8] = (255, 0, 0)
    return image


def number_in(image: np.ndarray) -> int:
    """Return which frame a decoded picture is of."""
    return round(float(image[16:, 16:].mean()) / LEVELS)


def write_video(file: Path, milliseconds: Sequence[int], codec: str = "libx264") -> Path:
    """Write a video whose frames are shown at these times; its decoder needs frames that come later (B-frames)."""
    return write_frames(file, [picture(number) for number in range(1, len(milliseconds) + 1)], milliseconds, codec)


def write_frames(file: Path, frames: Sequence[np.ndarray], milliseconds: Sequence[int], codec: str = "libx264") -> Path:
    """Write a video of these frames, all of one size, shown at these times."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.gop_size = 12
        stream.codec_context.bit_rate = 4_000_000
        for image, time in zip(frames, milliseconds, strict=True):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


def turn_clockwise(file: Path) -> None:
    """Let the metadata of an MP4 say that it is to be shown turned by a quarter, as those of telephones do."""
    content = bytearray(file.read_bytes())
    # The matrix of the track header, ISO/IEC 14496-12, 8.3.2.
    start = content.index(b"tkhd") + 4 + 40
    content[start : start + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)
    file.write_bytes(content)


def damage_packet(file: Path, place: int) -> None:
    """Overwrite what one packet of a video holds."""
    with av.open(str(file)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    position, size = packets[place]
    content = bytearray(file.read_bytes())
    content[position : position + size] = bytes(size)
    file.write_bytes(content)


def write_sound(file: Path) -> Path:
    """Write a file that holds sound and no picture."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file
