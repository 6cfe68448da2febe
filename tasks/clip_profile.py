"""What `profile` notes of clips: their classes, how much moves in them, and which are nearly the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kinglet.atomic import read_json
from kinglet.data.clips.likeness import clip_statistics, near_clip_groups
from kinglet.runtime.image_statistics import luma
from tasks.artifacts import CLIPS, SOURCE_FACTS, packed_clips, read_input_sizes
from tasks.label_facts import LabelFacts, class_facts
from tasks.progress import progress

CLIPS_AT_ONCE = 64
HASHES = "frame_hashes"


def clip_facts(images: pd.DataFrame) -> LabelFacts:
    """Return what the classes of clips say, with columns for each clip's video, motion and the hashes of its frames.

    images: the manifest. Motion is the mean change of a pixel's luma, in [0, 1], between neighbouring frames; NaN for a
    clip that cannot be decoded.
    """
    packed = largest_clips()
    parts = []
    with progress("profile clips") as report:
        for first in range(0, len(packed), CLIPS_AT_ONCE):
            parts.append(clip_statistics(packed[first : first + CLIPS_AT_ONCE]))
            report(min(first + CLIPS_AT_ONCE, len(packed)), len(packed), "clips")
    hashes, motion = (np.concatenate(values) for values in zip(*parts, strict=True))
    videos = pd.read_parquet(CLIPS, columns=["index", "video"]).set_index("index")["video"]
    described = images.assign(
        video=images["index"].map(videos),
        motion=np.where(images["decode_ok"], motion, np.nan),
        **{HASHES: list(hashes)},
    )
    facts = class_facts(described)
    return LabelFacts(facts.images, facts.labels, facts.class_counts, {"clips": read_json(SOURCE_FACTS)["clips"]})


def near_groups_of_clips(images: pd.DataFrame, usable: NDArray[np.bool_], distance: int) -> NDArray[np.int64]:
    """Return the group of near-duplicates of each clip. images: with exact groups and the columns of `clip_facts`."""
    packed = largest_clips()
    return near_clip_groups(
        np.array(images[HASHES].tolist(), np.uint64).reshape(len(images), packed.shape[1]),
        images["exact_group"].to_numpy(np.int64),
        usable,
        distance,
        lambda clips, frame: luma(packed[clips, frame]),
    )


def largest_clips() -> NDArray[np.uint8]:
    """Return the packed clips of the largest size, memory-mapped."""
    packed: NDArray[np.uint8] = np.load(packed_clips(read_input_sizes().all[-1]), mmap_mode="r")
    return packed
