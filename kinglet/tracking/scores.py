"""How good tracks are: MOTA, IDF1 and HOTA, counted by the package `trackers`, which counts as TrackEval does.

Source: Bernardin and Stiefelhagen 2008, "Evaluating Multiple Object Tracking Performance: The CLEAR MOT Metrics";
Ristani et al. 2016, "Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking"; Luiten et al. 2021,
"HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.runtime.boxes import box_iou
from kinglet.tracking.tracks import Tracks

# Overlap from which a box is where the object is, for MOTA and IDF1; HOTA is a mean over 0.05 to 0.95.
MATCHED_FROM = 0.5


@dataclass(frozen=True)
class Counts:
    """What the package counted in one sequence, for each of its three families of scores."""

    clear: dict[str, Any]
    identity: dict[str, Any]
    hota: dict[str, Any]


@dataclass(frozen=True)
class Scores:
    """Scores of one or more sequences together.

    mota: in (-inf, 1]. idf1, hota, detection_accuracy, association_accuracy, recall, precision: in [0, 1].
    objects: true boxes. false_positives, misses, id_switches, fragmentations: how many. identities: true ones;
    mostly_tracked, mostly_lost: those found in more than 80 %, in less than 20 % of their frames.
    """

    mota: float
    idf1: float
    hota: float
    detection_accuracy: float
    association_accuracy: float
    recall: float
    precision: float
    objects: int
    false_positives: int
    misses: int
    id_switches: int
    fragmentations: int
    identities: int
    mostly_tracked: int
    mostly_lost: int


# The scores that models are compared by.
COMPARED = ("mota", "idf1", "hota")


def count(truth: Tracks, tracks: Tracks) -> Counts:
    """Return what is counted of the tracks of one sequence, held against the truth.

    A box of another class than the true one is none that was found.
    """
    # Here, as the package takes a second to load.
    from trackers.eval import compute_clear_metrics, compute_hota_metrics, compute_identity_metrics

    true_ids, ids, overlaps = [], [], []
    for frame in np.union1d(truth.frames, tracks.frames):
        of_truth = slice(*np.searchsorted(truth.frames, [frame, frame + 1]))
        own = slice(*np.searchsorted(tracks.frames, [frame, frame + 1]))
        true_ids.append(truth.ids[of_truth])
        ids.append(tracks.ids[own])
        same_class = truth.labels[of_truth][:, None] == tracks.labels[own]
        overlaps.append(box_iou(truth.xyxy[of_truth], tracks.xyxy[own]) * same_class)
    return Counts(
        compute_clear_metrics(true_ids, ids, overlaps, threshold=MATCHED_FROM),
        compute_identity_metrics(true_ids, ids, overlaps, threshold=MATCHED_FROM),
        compute_hota_metrics(true_ids, ids, overlaps),
    )


def scores_of(sequences: Sequence[Counts]) -> Scores:
    """Return the scores of sequences together: what was counted is added up, so that a long one weighs more.

    Raises ValueError without sequences.
    """
    from trackers.eval import aggregate_clear_metrics, aggregate_hota_metrics, aggregate_identity_metrics

    if not sequences:
        raise ValueError("scores need at least one sequence")
    clear = aggregate_clear_metrics([counts.clear for counts in sequences])
    identity = aggregate_identity_metrics([counts.identity for counts in sequences])
    hota = aggregate_hota_metrics([counts.hota for counts in sequences])
    return Scores(
        mota=float(clear["MOTA"]),
        idf1=float(identity["IDF1"]),
        hota=float(hota["HOTA"]),
        detection_accuracy=float(hota["DetA"]),
        association_accuracy=float(hota["AssA"]),
        recall=float(clear["CLR_Re"]),
        precision=float(clear["CLR_Pr"]),
        objects=int(clear["CLR_TP"] + clear["CLR_FN"]),
        false_positives=int(clear["CLR_FP"]),
        misses=int(clear["CLR_FN"]),
        id_switches=int(clear["IDSW"]),
        fragmentations=int(clear["Frag"]),
        identities=int(clear["MT"] + clear["PT"] + clear["ML"]),
        mostly_tracked=int(clear["MT"]),
        mostly_lost=int(clear["ML"]),
    )


def compared(scores: Scores) -> NDArray[np.float64]:
    """Return the scores that models are compared by, (3,), in the order of `COMPARED`."""
    return np.array([getattr(scores, name) for name in COMPARED])
