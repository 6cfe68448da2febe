"""From measured facts to judgements: which images are unlike the rest, and what the data set is like as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SCALE_OF_MAD = 1.4826  # Makes the median absolute deviation of a normal distribution its standard deviation.

UNREADABLE = "unreadable"
NO_LABEL = "no label"
CONFLICTING = "conflicting labels"


def robust_bounds(values: NDArray[np.float64], deviations: float) -> tuple[float, float]:
    """Return (low, high): the median plus and minus `deviations` robust standard deviations.

    Fitted on the data set itself, since what is dark for photographs is bright for X-rays. Where more
    than half of the values are the same there is no scale, and the bounds are infinite.
    Source: Leys et al. 2013, "Detecting outliers: do not use standard deviation around the mean".
    """
    if len(values) == 0:
        return float("-inf"), float("inf")
    median = float(np.median(values))
    scale = SCALE_OF_MAD * float(np.median(np.abs(values - median)))
    if scale == 0:
        return float("-inf"), float("inf")
    return median - deviations * scale, median + deviations * scale


def conflicting(images: pd.DataFrame) -> NDArray[np.bool_]:
    """Return for each image whether one with the same pixels has another label; shape (n,)."""
    labelled = images[(images["label"] != "") & images["decode_ok"]]
    n_labels = labelled.groupby("exact_group")["label"].nunique()
    wrong = n_labels.index[n_labels > 1]
    return np.asarray(images["exact_group"].isin(wrong) & (images["label"] != "") & images["decode_ok"])


def leaking(images: pd.DataFrame, group: str = "near_group") -> NDArray[np.bool_]:
    """Return for each image whether its duplicates lie in another part of the split the set brings; shape (n,)."""
    given = images[(images["given_split"] != "") & images["decode_ok"]]
    n_splits = given.groupby(group)["given_split"].nunique()
    return np.asarray(images[group].isin(n_splits.index[n_splits > 1]) & (images["given_split"] != ""))


def repeated(images: pd.DataFrame, group: str) -> NDArray[np.bool_]:
    """Return for each image whether others share its `group`; shape (n,)."""
    return np.asarray(images.groupby(group)["index"].transform("size") > 1)


def members(images: pd.DataFrame, chosen: NDArray[np.bool_], group: str) -> list[list[str]]:
    """Return the paths of the chosen images, one sorted list for each group, in order."""
    return [sorted(part["path"]) for _, part in images[chosen].groupby(group)]


def judge_images(images: pd.DataFrame, outlier_deviations: float, blank_contrast: float) -> pd.DataFrame:
    """Return the images with a column for each judgement that the checks are made on.

    too_dark, too_bright, blurred, blank: bool, false for undecodable images. conflicting, leaking,
    exact_duplicate, near_duplicate: bool. readable: bool, whether it decoded. labelled: bool.
    usual_mode, usual_size: bool, whether mode and size are those of most images.
    """
    judged = images.copy()
    ok = images["decode_ok"].to_numpy()
    measured = images[ok]
    blank = ok & (images["contrast"].to_numpy() < blank_contrast)
    low, high = robust_bounds(measured["brightness"].to_numpy(), outlier_deviations)
    # Sharpness spans powers of ten; on its logarithm "five deviations" means the same on both sides.
    sharpness = np.log10(np.maximum(images["sharpness"].fillna(0).to_numpy(), 1e-9))
    blur_limit, _ = robust_bounds(sharpness[ok & ~blank], outlier_deviations)
    judged["readable"] = ok
    judged["labelled"] = (images["label"] != "").to_numpy()
    judged["blank"] = blank
    judged["too_dark"] = ok & ~blank & (images["brightness"].to_numpy() < low)
    judged["too_bright"] = ok & ~blank & (images["brightness"].to_numpy() > high)
    judged["blurred"] = ok & ~blank & (sharpness < blur_limit)
    judged["usual_mode"] = ~ok | (images["mode"] == most_common(measured["mode"])).to_numpy()
    size = images["width"].astype(str) + " x " + images["height"].astype(str)
    judged["usual_size"] = ~ok | (size == most_common(size[ok])).to_numpy()
    judged["conflicting"] = conflicting(images)
    judged["leaking"] = leaking(images)
    judged["exact_duplicate"] = repeated(images, "exact_group")
    judged["near_duplicate"] = repeated(images, "near_group") & ~judged["exact_duplicate"]
    return judged


def most_common(values: pd.Series) -> str:
    """Return the most frequent value, the first in order among equals, "" if there is none."""
    counts = values.value_counts()
    return str(min(counts.index[counts == counts.max()])) if len(counts) else ""


def quarantine(judged: pd.DataFrame, with_conflicts: bool) -> pd.DataFrame:
    """Return the images to leave out as a table of path and reason, sorted by path.

    An image has one reason, the first of: it cannot be read, it has no label, it has the same pixels
    as one with another label (only if `with_conflicts`).
    """
    reasons = np.full(len(judged), "", dtype=object)
    if with_conflicts:
        found = judged["conflicting"].to_numpy()
        twins = {
            group: ", ".join(f"{row.path} ({row.label})" for row in part.sort_values("path").itertuples())
            for group, part in judged[found].groupby("exact_group")
        }
        reasons[found] = [f"{CONFLICTING}: {twins[group]}" for group in judged.loc[found, "exact_group"]]
    unlabelled = ~judged["labelled"].to_numpy()
    reasons[unlabelled] = NO_LABEL
    unreadable = ~judged["readable"].to_numpy()
    reasons[unreadable] = [f"{UNREADABLE}: {problem}" for problem in judged.loc[unreadable, "problem"]]
    left_out = pd.DataFrame({"path": judged["path"].to_numpy(), "reason": reasons})
    return left_out[left_out["reason"] != ""].sort_values("path", ignore_index=True)


def usable_class_counts(judged: pd.DataFrame, quarantined: pd.DataFrame) -> dict[str, int]:
    """Return how many images each class keeps, classes that keep none included."""
    counts = dict.fromkeys(sorted(set(judged["label"]) - {""}), 0)
    kept = judged[~judged["path"].isin(set(quarantined["path"])) & judged["labelled"]]
    counts |= {str(label): int(count) for label, count in kept["label"].value_counts().items()}
    return dict(sorted(counts.items()))


def describe_data_set(images: pd.DataFrame, drift: dict[str, float] | None, max_listed: int = 50) -> dict[str, Any]:
    """Return the facts about a data set as a whole, JSON-ready.

    images: manifest columns with `exact_group` and `near_group`. drift: what `kinglet.data.drift.drift`
    returned, None without a reference. Of every list of images the first `max_listed` are given.
    """
    ok = images["decode_ok"].to_numpy()
    labels = images.loc[images["label"] != "", "label"]
    class_counts = {str(label): int(count) for label, count in labels.value_counts().sort_index().items()}
    exact, near = repeated(images, "exact_group"), repeated(images, "near_group")
    across = images.groupby("near_group")["label"].transform("nunique").to_numpy() > 1
    conflicts, leaks = conflicting(images), leaking(images)
    return {
        "n_files": len(images),
        "n_undecodable": int((~ok).sum()),
        "n_unlabelled": int((images["label"] == "").sum()),
        "n_classes": len(class_counts),
        "class_counts": class_counts,
        "class_imbalance": max(class_counts.values()) / min(class_counts.values()) if class_counts else 0.0,
        "modes": counts_of(images.loc[ok, "mode"]),
        "formats": counts_of(images.loc[ok, "format"]),
        "n_sizes": len(images.loc[ok, ["width", "height"]].drop_duplicates()),
        "given_splits": counts_of(images.loc[images["given_split"] != "", "given_split"]),
        "duplicates": {
            "exact_groups": len(members(images, exact, "exact_group")),
            "exact_images": int(exact.sum()),
            "exact_within_class": int((exact & ~conflicts).sum()),
            "near_groups": len(members(images, near & ~exact, "near_group")),
            "near_images": int((near & ~exact).sum()),
            "largest_near_group": int(images["near_group"].value_counts().max()) if len(images) else 0,
            "near_groups_listed": members(images, near, "near_group")[:max_listed],
            "near_across_classes": members(images, near & across & ~conflicts, "near_group")[:max_listed],
        },
        "conflicting_labels": {
            "groups": len(members(images, conflicts, "exact_group")),
            "images": int(conflicts.sum()),
            "listed": members(images, conflicts, "exact_group")[:max_listed],
        },
        "leakage": {
            "images": int(leaks.sum()),
            "exact_images": int(leaking(images, "exact_group").sum()),
            "listed": members(images, leaks, "near_group")[:max_listed],
        },
        "drift": {"reference": drift is not None, "stability_index": drift or {}},
    }


def counts_of(values: pd.Series) -> dict[str, int]:
    """Return how often each value occurs."""
    return {str(value): int(count) for value, count in values.value_counts().sort_index().items()}
