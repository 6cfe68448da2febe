"""The data checks of images with boxes: those of all images, and what is expected of boxes and of annotations."""

from __future__ import annotations

from kinglet.data.expectations import (
    BOXES,
    CLASSES,
    DATA_SET,
    IMAGES,
    NOTHING_LEFT,
    Check,
    class_balance,
    conflicting_share,
    drift_checks,
    flag,
    picture_checks,
    unreadable_share,
)


def box_checks(
    *,
    min_images_per_class: int,
    max_class_imbalance: float,
    max_unreadable: float,
    max_conflicting: float,
    max_dropped_annotations: float,
    max_without_boxes: float,
    drift_threshold: float,
    drift_columns: list[str],
) -> list[Check]:
    """Return all checks, critical ones first. drift_columns: columns `drift_NAME` of the data-set table.

    The table of images is that of `kinglet.data.quality.judge_images` with without_boxes, bool; that of the boxes has
    a row for every annotation, with those that are left out: name, usable, tiny, huge, drawn_twice, other_class, bool.
    """
    few = f"{{count}} classes are on fewer than {min_images_per_class} usable images (check.min_images_per_class)"
    return [
        Check("not empty", "critical", DATA_SET, "n_usable", NOTHING_LEFT, low=1),
        Check("any class", "critical", DATA_SET, "n_classes", "no usable image shows a box", low=1),
        Check("class size", "critical", CLASSES, "n_usable", few, low=min_images_per_class),
        unreadable_share(max_unreadable),
        conflicting_share(max_conflicting, "other boxes"),
        Check(
            "dropped share",
            "critical",
            BOXES,
            "usable",
            f"{{count}} of {{total}} annotations cannot be used, more than the share of {max_dropped_annotations:g} "
            "that check.max_dropped_annotations allows",
            expected=True,
            mostly=1 - max_dropped_annotations,
        ),
        flag("readable", "readable", True, "{count} of {total} files cannot be read as images and are left out"),
        flag("conflicting boxes", "conflicting", False, "{count} images have the same pixels as one with other boxes"),
        flag("usable boxes", "usable", True, "{count} of {total} annotations cannot be used and are left out", BOXES),
        flag("drawn twice", "drawn_twice", False, "{count} boxes cover the same as another one of their class", BOXES),
        flag(
            "other class",
            "other_class",
            False,
            "{count} boxes cover the same as one of another class",
            BOXES,
        ),
        flag(
            "tiny boxes",
            "tiny",
            False,
            "{count} boxes are tiny at the network's input (check.tiny_box_pixels)",
            BOXES,
        ),
        flag("huge boxes", "huge", False, "{count} boxes cover nearly their whole image", BOXES),
        Check(
            "images with boxes",
            "warning",
            IMAGES,
            "without_boxes",
            f"{{count}} of {{total}} images show no box, more than the share of {max_without_boxes:g} of "
            "check.max_without_boxes",
            expected=False,
            mostly=1 - max_without_boxes,
        ),
        *picture_checks(),
        class_balance(max_class_imbalance, "boxes"),
        *drift_checks(drift_threshold, drift_columns),
    ]
