"""Made clips move as their class says, and tell it by nothing but their motion."""

from __future__ import annotations

import numpy as np
import pytest

from kinglet.data.clips.moving_pictures import CLASSES, FEWEST_FRAMES, MOST_FRAMES, clip_frames, motion_of

EDGE = 64


@pytest.mark.parametrize("label", CLASSES)
def test_a_picture_moves_in_the_direction_and_at_the_speed_of_its_class(label: str) -> None:
    signs = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
    for seed in range(5):
        motion = motion_of(label, EDGE, np.random.default_rng(seed))
        assert FEWEST_FRAMES <= motion.n_frames <= MOST_FRAMES
        direction, _, speed = label.partition("-")
        assert np.sign(motion.step).tolist() == list(signs[direction])
        least, most = {"slow": (0.5, 1.1), "fast": (2, 3.1), "": (0, 0)}[speed]
        assert least <= np.abs(motion.step).max() <= most


def test_the_frames_show_the_motion() -> None:
    random = np.random.default_rng(0)
    motion = motion_of("down-slow", EDGE, random)
    white = np.full((10, 10, 1), 255, np.uint8)
    frames = list(clip_frames(white, motion, EDGE, np.random.default_rng(8)))
    assert len(frames) == motion.n_frames
    assert {(frame.shape, frame.dtype.name) for frame in frames} == {((EDGE, EDGE, 3), "uint8")}
    means = []
    for number, frame in enumerate(frames):
        left, top = (int(np.ceil(corner)) + 1 for corner in motion.place(number))
        inside = frame[top : top + motion.size - 3, left : left + motion.size - 3].astype(float)
        # White is of one brightness wherever it is; the background is not.
        assert inside.std() < 4
        means.append(inside.mean())
    assert np.ptp(means) < 1


def test_half_way_the_picture_is_where_chance_put_it_whatever_the_class() -> None:
    middles = {motion_of(label, EDGE, np.random.default_rng(5)).middle for label in CLASSES}
    assert len(middles) == 1
    assert motion_of("left-fast", EDGE, np.random.default_rng(6)).middle not in middles
