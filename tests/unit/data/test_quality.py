"""Judgements on measured facts, and drift."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kinglet.data.drift import drift, reference_profile, stability_index
from kinglet.data.quality import describe_data_set, judge_images, quarantine, robust_bounds, usable_class_counts


def table(**columns: list[object]) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    plain = {
        "index": list(range(n)),
        "path": [f"{i}.png" for i in range(n)],
        "label": ["a"] * n,
        "given_split": [""] * n,
        "decode_ok": [True] * n,
        "problem": [""] * n,
        "mode": ["RGB"] * n,
        "format": ["PNG"] * n,
        "width": [8] * n,
        "height": [8] * n,
        "brightness": np.linspace(0.4, 0.6, n),
        "contrast": [0.2] * n,
        "sharpness": np.geomspace(0.01, 0.02, n),
        "exact_group": list(range(n)),
        "near_group": list(range(n)),
    }
    return pd.DataFrame(plain | columns)


def test_bounds_are_those_of_a_normal_distribution_and_ignore_outliers() -> None:
    values = np.random.default_rng(0).normal(10, 2, 20_000)
    low, high = robust_bounds(np.append(values, [1e9] * 100), 3)
    assert low == pytest.approx(4, abs=0.15)
    assert high == pytest.approx(16, abs=0.15)


def test_values_without_spread_have_no_bounds() -> None:
    assert robust_bounds(np.ones(9), 5) == (-np.inf, np.inf)


@pytest.mark.parametrize(
    ("column", "value", "flag"),
    [
        ("brightness", 0.01, "too_dark"),
        ("brightness", 0.99, "too_bright"),
        ("sharpness", 1e-8, "blurred"),
        ("contrast", 0.0, "blank"),
    ],
)
def test_the_one_unusual_image_is_flagged(column: str, value: float, flag: str) -> None:
    images = table(path=[f"{i}.png" for i in range(21)])
    images.loc[7, column] = value
    judged = judge_images(images, 5.0, 0.01)
    flags = ["too_dark", "too_bright", "blurred", "blank"]
    assert judged[flag].to_numpy().nonzero()[0].tolist() == [7]
    assert judged[flags].to_numpy().sum() == 1


def test_conflicts_leaks_and_duplicates_are_told_apart() -> None:
    judged = judge_images(
        table(
            label=["a", "b", "a", "a", "a", "a"],
            exact_group=[0, 0, 2, 2, 4, 5],
            near_group=[0, 0, 2, 2, 4, 4],
            given_split=["train", "train", "train", "test", "train", "train"],
        ),
        5.0,
        0.01,
    )
    assert judged["conflicting"].tolist() == [True, True, False, False, False, False]
    assert judged["leaking"].tolist() == [False, False, True, True, False, False]
    assert judged["exact_duplicate"].tolist() == [True] * 4 + [False] * 2
    assert judged["near_duplicate"].tolist() == [False] * 4 + [True] * 2


def test_quarantine_gives_one_reason_each_sorted_by_path() -> None:
    images = table(
        path=["d", "c", "b", "a"],
        label=["a", "b", "", "a"],
        exact_group=[0, 0, 2, 3],
        decode_ok=[True, True, True, False],
        problem=["", "", "no label", "not an image"],
    )
    judged = judge_images(images, 5.0, 0.01)
    assert quarantine(judged, True).to_numpy().tolist() == [
        ["a", "unreadable: not an image"],
        ["b", "no label"],
        ["c", "conflicting labels: c (b), d (a)"],
        ["d", "conflicting labels: c (b), d (a)"],
    ]
    assert usable_class_counts(judged, quarantine(judged, True)) == {"a": 0, "b": 0}
    assert quarantine(judged, False)["path"].tolist() == ["a", "b"]


def test_data_set_facts_count_and_list() -> None:
    facts = describe_data_set(table(label=["a", "a", "b"], exact_group=[0, 1, 0], near_group=[0, 1, 0]), None)
    assert facts["class_counts"] == {"a": 2, "b": 1}
    assert facts["class_imbalance"] == 2
    assert facts["conflicting_labels"]["listed"] == [["0.png", "2.png"]]
    assert facts["drift"] == {"reference": False, "stability_index": {}}


def test_drift_is_zero_against_oneself_and_large_after_a_change() -> None:
    values = np.random.default_rng(0).normal(size=2000)
    columns, counts = {"brightness": values, "width": np.full(2000, 28.0)}, {"a": 1000, "b": 1000}
    reference = reference_profile(columns, counts)
    assert drift(reference, columns, counts) == {"brightness": 0, "width": 0, "classes": 0}
    moved = drift(reference, {"brightness": values + 1, "width": np.full(2000, 32.0)}, {"a": 1900, "c": 100})
    assert min(moved.values()) > 0.2


def test_stability_index_is_that_of_the_definition() -> None:
    assert stability_index(np.array([0.5, 0.5]), np.array([0.25, 0.75])) == pytest.approx(
        (0.25 - 0.5) * np.log(0.5) + (0.75 - 0.5) * np.log(1.5)
    )
