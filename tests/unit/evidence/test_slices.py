import numpy as np
import pytest
import scipy.stats

from kinglet.evidence.slices import CORRECTIONS, quartile_names, slice_changes, slices_of


def test_slices_are_the_values_of_columns_with_enough_images():
    columns = {
        "class": np.repeat(["cat", "dog", "eel"], [30, 25, 3]),
        "domain": np.full(58, "studio"),
        "group": np.array([""] * 20 + ["a"] * 19 + ["b"] * 19),
    }
    found, too_small = slices_of(columns, 10)
    assert [(item.column, item.value, len(item.rows)) for item in found] == [
        ("class", "cat", 30),
        ("class", "dog", 25),
        ("group", "a", 19),
        ("group", "b", 19),
    ]
    assert too_small == {"class": 1}
    assert (columns["class"][found[1].rows] == "dog").all()
    assert slices_of({"class": np.full(5, "cat")}, 1) == ([], {})


def test_quartiles_are_named_and_skip_what_is_unknown():
    names = quartile_names(np.array([4.0, 1.0, np.nan, 3.0, 2.0]), ("darkest", "brightest"))
    assert names.tolist() == ["brightest quarter", "darkest quarter", "", "3rd quarter", "2nd quarter"]
    assert set(quartile_names(np.full(9, 784.0), ("a", "b")).tolist()) == {""}
    assert set(quartile_names(np.full(3, np.nan), ("a", "b")).tolist()) == {""}
    sizes = np.unique(quartile_names(np.arange(400.0), ("a", "b")), return_counts=True)[1]
    assert sizes.tolist() == [100] * 4


def test_the_slice_that_lost_most_comes_first_and_is_established():
    generator = np.random.default_rng(0)
    classes = np.repeat(["a", "b", "c", "d"], 400)
    reference = generator.random(1600) < 0.9
    flipped = generator.random(1600) < np.where(classes == "c", 0.12, 0.02)
    model = reference ^ flipped
    slices, _ = slices_of({"class": classes, "half": np.where(np.arange(1600) % 2, "odd", "even")}, 20)
    found = slice_changes(model, reference, slices)
    worst = found[0]
    assert (worst.value, worst.is_established) == ("c", True)
    inside = classes == "c"
    assert worst.change.value == pytest.approx(model[inside].mean() - reference[inside].mean())
    assert worst.negative_flips == (reference & ~model)[inside].sum()
    assert worst.change.high < 0
    assert worst.p == pytest.approx(scipy.stats.binomtest(worst.negative_flips, int(flipped[inside].sum())).pvalue)
    assert [item.change.value for item in found] == sorted(item.change.value for item in found)


def test_chance_alone_rarely_names_a_slice():
    generator = np.random.default_rng(1)
    slices, _ = slices_of({"shelf": np.repeat(np.arange(20), 50).astype(str)}, 20)
    alarms = []
    for _ in range(60):
        reference = generator.random(1000) < 0.9
        model = np.where(generator.random(1000) < 0.9, reference, generator.random(1000) < 0.9)
        alarms.append(any(item.is_established for item in slice_changes(model, reference, slices)))
    assert np.mean(alarms) <= 0.1


@pytest.mark.parametrize("correction", sorted(CORRECTIONS))
def test_corrections_never_make_a_finding_surer(correction):
    values = np.random.default_rng(2).random(12)
    assert (CORRECTIONS[correction](values) >= values).all()
    assert len(CORRECTIONS[correction](values[:0])) == 0
    assert slice_changes(np.ones(3, bool), np.ones(3, bool), [], correction=correction) == []


def test_a_slice_of_one_image_is_no_crash():
    slices, _ = slices_of({"class": np.array(["a", "b"])}, 1)
    found = slice_changes(np.array([True, False]), np.array([True, True]), slices)
    assert [item.change.value for item in found] == [-1, 0]
    assert not any(item.is_established for item in found)
