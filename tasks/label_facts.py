"""What `profile` notes of the labels of a data set. Here for images that have one class each.

Boxes are described by `tasks.detection_profile`, masks by `tasks.segmentation_profile`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelFacts:
    """What the labels of a data set say.

    images: the manifest, with further columns where a problem has some. labels: what images with the same pixels must
    agree in, str of shape (n,). class_counts: {class: how often it occurs}. facts: about the data set as a whole, in
    the place of those that `labels` gives.
    """

    images: pd.DataFrame
    labels: NDArray[np.object_]
    class_counts: dict[str, int]
    facts: dict[str, Any] = field(default_factory=dict)


def class_facts(images: pd.DataFrame) -> LabelFacts:
    """Return what the classes of images say; images: the manifest."""
    counts = {str(label): int(n) for label, n in images["label"].value_counts().items() if label}
    return LabelFacts(images, images["label"].to_numpy(object), counts)
