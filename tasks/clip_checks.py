"""What `check_data` judges of clips: what it judges of images, and recordings on both sides of a split."""

from __future__ import annotations

import re
from dataclasses import replace

from kinglet.data.clips.expectations import clip_checks
from kinglet.data.quality import leaking
from tasks.data_settings import Check as Limits
from tasks.judged_images import Judged, judge_classes


def judge_clips(limits: Limits) -> Judged:
    """Return the judgements on clips that have a class each, their middle frames for their looks."""
    judged = judge_classes(limits)
    images = judged.images.assign(recording_leaking=leaking(judged.images, "group"))
    # Settings with "images" in their names keep it: an underscore is part of a word.
    checks = [replace(check, sentence=re.sub(r"\bimages\b", "clips", check.sentence)) for check in judged.checks]
    return replace(judged, images=images, checks=[*checks, *clip_checks()])
