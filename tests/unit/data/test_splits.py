"""Splits follow content: stable, stratified, groups and near-duplicates together."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given as forall
from hypothesis import settings
from hypothesis import strategies as some
from scipy.stats import kstest

from kinglet.data.splits import (
    ADAPTATION,
    SEALED,
    SPLITS,
    TARGET_TEST,
    any_number_each,
    assign_splits,
    components,
    missing_classes,
    one_class_each,
    split_counts,
    target_parts,
    unit_hash,
)


def pixels_of(names: list[str]) -> np.ndarray:
    return np.array([hashlib.sha256(name.encode()).hexdigest() for name in names], object)


def assign(
    names: list[str],
    labels: list[str] | None = None,
    groups: list[str] | None = None,
    near: list[int] | None = None,
    given: list[str] | None = None,
    seed: int = 0,
    **shares: float,
) -> list[str]:
    n = len(names)
    return assign_splits(
        pixels_of(names),
        one_class_each(np.array(labels or ["a"] * n, object)).shown,
        np.array(groups or [""] * n, object),
        np.array(near if near is not None else list(range(n)), np.int64),
        np.array(given or [""] * n, object),
        **{"validation": 0.2, "test": 0.3, **shares},
        seed=seed,
    ).tolist()


def names(n: int, prefix: str = "image") -> list[str]:
    return [f"{prefix}{number}" for number in range(n)]


BIG = names(200)


@settings(max_examples=50, deadline=None)
@forall(some.lists(some.text(min_size=1), unique=True, max_size=30), some.integers(0, 2**31), some.randoms())
def test_image_never_changes_sides_when_others_are_added(added: list[str], seed: int, random: object) -> None:
    before = dict(zip(BIG, assign(BIG, seed=seed), strict=True))
    more = [*BIG, *(f"new {name}" for name in added)]
    random.shuffle(more)  # type: ignore[attr-defined]
    after = dict(zip(more, assign(more, seed=seed), strict=True))
    assert {name: after[name] for name in BIG} == before


@settings(max_examples=50, deadline=None)
@forall(
    some.lists(some.integers(0, 20), min_size=60, max_size=60),
    some.lists(some.integers(0, 20), min_size=60, max_size=60),
)
def test_groups_and_near_duplicates_share_a_split(near: list[int], group: list[int]) -> None:
    groups = [f"g{number}" if number else "" for number in group]
    sides = assign(names(60), groups=groups, near=near)
    for i in range(60):
        for j in range(i):
            if near[i] == near[j] or (groups[i] and groups[i] == groups[j]):
                assert sides[i] == sides[j]


def test_named_group_stays_when_members_join() -> None:
    before = assign(BIG, groups=[f"g{i % 20}" for i in range(200)])
    more = [*BIG, *names(20, "new")]
    after = assign(more, groups=[f"g{i % 20}" for i in range(220)])
    assert after[:200] == before


def test_shares_are_as_asked_in_every_class() -> None:
    labels = ["a"] * 4000 + ["b"] * 2000
    counts = split_counts(one_class_each(np.array(labels, object)), np.array(assign(names(6000), labels), object))
    for label, total in (("a", 4000), ("b", 2000)):
        assert abs(counts["test"][label] / total - 0.3) < 0.04
        assert abs(counts["validation"][label] / total - 0.2) < 0.04


def test_numbers_are_evenly_distributed() -> None:
    assert kstest([unit_hash(name, 3) for name in names(5000)], "uniform").pvalue > 0.001


def test_seed_changes_the_assignment() -> None:
    assert assign(BIG, seed=0) != assign(BIG, seed=1)


def test_order_of_the_images_does_not_matter() -> None:
    assert assign(BIG[::-1]) == assign(BIG)[::-1]


def test_given_test_part_is_kept_and_validation_taken_from_train() -> None:
    given = ["test" if i % 4 == 0 else "train" for i in range(200)]
    sides = assign(BIG, given=given)
    assert [side == "test" for side in sides] == [part == "test" for part in given]
    assert 10 < sides.count("validation") < 60


def test_complete_given_split_is_kept_as_it_is() -> None:
    given = [("train", "validation", "test")[i % 3] for i in range(200)]
    assert assign(BIG, given=given) == given


def test_validation_of_a_set_with_a_test_part_is_that_of_the_set_without() -> None:
    plain, sides = assign(BIG), assign([*BIG, "t"], given=["train"] * 200 + ["test"])
    assert [side == "validation" for side in plain] == [side == "validation" for side in sides[:200]]


def test_image_without_part_follows_its_held_out_near_duplicate() -> None:
    given = ["test", "", *["train"] * 100]
    assert assign(names(102), near=[0, 0, *range(2, 102)], given=given)[1] == "test"


def test_class_of_three_images_has_one_in_every_part() -> None:
    for seed in range(50):
        assert sorted(assign(["x", "y", "z"], seed=seed)) == ["test", "train", "validation"]


def test_class_of_two_images_is_named_with_the_part_it_lacks() -> None:
    labels = one_class_each(np.array(["a", "a"], object))
    missing = missing_classes(labels, np.array(assign(["x", "y"]), object))
    assert missing
    assert missing[0][0] == "a"
    assert missing[0][2] == 2


def test_components_join_over_groups_and_near_duplicates() -> None:
    found = components(np.array([0, 0, 2, 3, 4]), np.array(["", "g", "g", "", "h"], object))
    assert found[0] == found[1] == found[2]
    assert len({found[0], found[3], found[4]}) == 3


def test_no_images_give_no_parts() -> None:
    assert assign([]) == []


def test_sealed_part_is_taken_from_training_alone_and_other_shares_do_not_move_it() -> None:
    many = names(2000)
    plain, sealed = assign(many), assign(many, sealed=0.1)
    assert 140 < sealed.count(SEALED) < 260
    assert all(
        before == after or (before, after) == ("train", SEALED) for before, after in zip(plain, sealed, strict=True)
    )
    others = assign(many, sealed=0.1, validation=0.05, test=0.4)
    assert [side == SEALED for side in others] == [side == SEALED for side in sealed]


def test_a_set_that_brings_its_test_part_has_its_sealed_part_taken_from_training() -> None:
    given = ["test" if i % 4 == 0 else "train" for i in range(200)]
    sides = assign(BIG, given=given, sealed=0.2)
    assert [side == "test" for side in sides] == [part == "test" for part in given]
    assert 10 < sides.count(SEALED) < 60


def test_near_duplicates_of_a_sealed_image_are_sealed_with_it() -> None:
    near = [i // 4 for i in range(200)]
    sides = assign(BIG, near=near, sealed=0.2)
    assert all(len(set(sides[start : start + 4])) == 1 for start in range(0, 200, 4))


def test_a_small_class_has_an_image_in_the_sealed_part_too() -> None:
    for seed in range(20):
        sides = np.array(assign(["w", "x", "y", "z"], seed=seed, sealed=0.05), object)
        assert sorted(sides) == ["sealed", "test", "train", "validation"]
        assert missing_classes(one_class_each(np.array(["a"] * 4, object)), sides, (*SPLITS, SEALED)) == []


def target(
    names: list[str],
    is_target: list[bool],
    groups: list[str] | None = None,
    near: list[int] | None = None,
    given: list[str] | None = None,
) -> list[str]:
    n = len(names)
    return target_parts(
        pixels_of(names),
        np.array(groups or [""] * n, object),
        np.array(near if near is not None else list(range(n)), np.int64),
        np.array(given or [""] * n, object),
        np.array(is_target),
        held_out=0.5,
        seed=0,
    ).tolist()


def test_images_of_a_target_domain_keep_their_part_when_others_are_added() -> None:
    few, many = [f"t{number}" for number in range(40)], [f"t{number}" for number in range(400)]
    before, after = target([*few, "s"], [True] * 40 + [False]), target(many, [True] * 400)
    assert before == after[:40]
    assert 0.4 < after.count(TARGET_TEST) / 400 < 0.6
    assert set(after) == {ADAPTATION, TARGET_TEST}


def test_what_belongs_together_stays_together_and_judges_nothing_if_a_source_image_belongs_to_it() -> None:
    names = [f"t{number}" for number in range(40)]
    together = target(names, [True] * 40, groups=[f"g{number // 4}" for number in range(40)])
    assert all(len(set(together[start : start + 4])) == 1 for start in range(0, 40, 4))
    # Each has a near-duplicate in another domain, from which a model may have learnt.
    near = [*range(40), *range(40)]
    assert set(target([*names, *(f"s{n}" for n in range(40))], [True] * 40 + [False] * 40, near=near)) == {ADAPTATION}


def test_a_test_part_that_the_target_domain_brings_judges_with_its_near_duplicates() -> None:
    given = ["test", "train", "", "", ""]
    assert target(list("abcde"), [True] * 5, near=[0, 1, 0, 2, 3], given=given) == [
        TARGET_TEST,
        ADAPTATION,
        TARGET_TEST,
        ADAPTATION,
        ADAPTATION,
    ]


def test_images_with_boxes_count_every_box_and_show_any_number_of_classes() -> None:
    found = any_number_each([["b", "a", "b"], [], ["b"]])
    assert found.names == ["a", "b"]
    assert found.occurrences.tolist() == [[1, 2], [0, 0], [0, 1]]
    assert found.label_index.tolist() == [-1] * 3
    sides = np.array(["train", "train", "test"], object)
    assert split_counts(found, sides)["train"] == {"a": 1, "b": 2}
    assert missing_classes(found, sides) == [
        ("a", "validation", 1),
        ("a", "test", 1),
        ("b", "validation", 2),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_three_images_among_many_is_in_every_part(seed: int) -> None:
    shown = [["common"] + ["rare"] * (number < 3) for number in range(40)]
    classes = any_number_each(shown)
    sides = assign_splits(
        pixels_of(names(40)),
        classes.shown,
        np.array([""] * 40, object),
        np.arange(40),
        np.array([""] * 40, object),
        validation=0.1,
        test=0.1,
        seed=seed,
    )
    assert missing_classes(classes, sides) == []
