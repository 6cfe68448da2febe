"""The data checks of images with masks: those of all images, and what is expected of masks."""

from __future__ import annotations

from kinglet.data.expectations import (
    CLASSES,
    DATA_SET,
    IMAGES,
    MASKS,
    NOTHING_LEFT,
    Check,
    class_balance,
    conflicting_share,
    drift_checks,
    flag,
    picture_checks,
    unreadable_share,
)


def mask_checks(
    *,
    min_images_per_class: int,
    max_class_imbalance: float,
    max_unreadable: float,
    max_conflicting: float,
    max_dropped_annotations: float,
    max_void: float,
    max_one_class: float,
    drift_threshold: float,
    drift_columns: list[str],
) -> list[Check]:
    """Return all checks, critical ones first. drift_columns: columns `drift_NAME` of the data-set table.

    The table of images is that of `kinglet.data.quality.judge_images` with one_class and mostly_void, bool; that of
    the masks has a row for every mask or outline: name, usable, unread, other_size, unknown_code, all_void, bool.
    """
    few = f"{{count}} classes are on fewer than {min_images_per_class} usable images (check.min_images_per_class)"
    return [
        Check("not empty", "critical", DATA_SET, "n_usable", NOTHING_LEFT, low=1),
        Check(
            "two classes",
            "critical",
            DATA_SET,
            "n_classes",
            "there must be two classes or more in the masks of usable images, found {value:g}",
            low=2,
        ),
        Check("class size", "critical", CLASSES, "n_usable", few, low=min_images_per_class),
        unreadable_share(max_unreadable),
        conflicting_share(max_conflicting, "another mask"),
        Check(
            "dropped share",
            "critical",
            MASKS,
            "usable",
            f"{{count}} of {{total}} masks cannot be used, more than the share of {max_dropped_annotations:g} that "
            "check.max_dropped_annotations allows",
            expected=True,
            mostly=1 - max_dropped_annotations,
        ),
        flag("readable", "readable", True, "{count} of {total} files cannot be read as images and are left out"),
        flag("conflicting masks", "conflicting", False, "{count} images have the same pixels as one with another mask"),
        flag("readable masks", "unread", False, "{count} of {total} masks cannot be read and are left out", MASKS),
        flag("mask size", "other_size", False, "{count} masks have another size than their image", MASKS),
        flag("known values", "unknown_code", False, "{count} masks hold a value or colour that no class has", MASKS),
        flag("empty masks", "all_void", False, "{count} masks give no pixel a class", MASKS),
        flag("usable masks", "usable", True, "{count} of {total} masks cannot be used and are left out", MASKS),
        flag(
            "void",
            "mostly_void",
            False,
            f"{{count}} images have no class in more than the share of {max_void:g} of their pixels (check.max_void)",
        ),
        Check(
            "images of one class",
            "warning",
            IMAGES,
            "one_class",
            f"{{count}} of {{total}} images show one class only, more than the share of {max_one_class:g} of "
            "check.max_one_class",
            expected=False,
            mostly=1 - max_one_class,
        ),
        *picture_checks(),
        class_balance(max_class_imbalance, "pixels"),
        *drift_checks(drift_threshold, drift_columns),
    ]
