"""Clips are near-duplicates if the same happens in them, not if they show the same place."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from kinglet.data.clips.likeness import clip_statistics, near_clip_groups
from kinglet.data.clips.moving_pictures import clip_frames, motion_of
from kinglet.runtime.image_statistics import luma

EDGE, FRAMES = 64, 12


def made(label: str, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    picture = np.random.default_rng(1000 + seed).integers(0, 256, (6, 6, 1), dtype=np.uint8)
    frames = list(clip_frames(picture, motion_of(label, EDGE, random), EDGE, random))
    return np.stack(frames[:FRAMES])


def encoded_anew(clip: np.ndarray, file: Path) -> np.ndarray:
    """Return the frames of a clip as a copy of it has them."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "23", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = EDGE, EDGE, "yuv420p"
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    with av.open(str(file)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def groups(clips: np.ndarray, max_distance: int = 2) -> list[int]:
    hashes, _ = clip_statistics(clips)
    n_clips = len(clips)
    exact, usable = np.arange(n_clips), np.ones(n_clips, bool)
    found = near_clip_groups(hashes, exact, usable, max_distance, lambda rows, frame: luma(clips[rows, frame]))
    return found.tolist()


@pytest.mark.parametrize("label", ["left-fast", "up-slow", "still"])
def test_a_copy_that_was_encoded_anew_is_found(tmp_path: Path, label: str) -> None:
    clip, other = made(label, 0), made(label, 1)
    assert groups(np.stack([clip, other, encoded_anew(clip, tmp_path / "copy.mp4")])) == [0, 1, 0]


def test_the_same_frames_in_another_order_are_another_clip() -> None:
    clip = made("left-fast", 0)
    assert groups(np.stack([clip, clip[::-1]])) == [0, 1]


def test_one_place_in_which_other_things_happen_is_no_duplicate() -> None:
    room = np.repeat(made("still", 3)[:1], FRAMES, axis=0)
    one, other = room.copy(), room.copy()
    for number in range(FRAMES):
        one[number, 20:26, 10 + 3 * number : 16 + 3 * number] = 255
        other[number, 20:26, 43 - 3 * number : 49 - 3 * number] = 255
    # Every frame of one resembles that of the other, were it not for what moves.
    assert groups(np.stack([one, other]), max_distance=8) == [0, 1]
    assert groups(np.stack([room, room]), max_distance=0) == [0, 0]


def test_motion_is_the_mean_change_of_a_pixel() -> None:
    clip = np.zeros((1, 3, 8, 8, 3), np.uint8)
    clip[0, 1:, :4] = 255
    _, motion = clip_statistics(clip)
    # Half of the pixels change by 1 from the first frame to the second, none to the third.
    assert motion[0] == pytest.approx(0.25)
