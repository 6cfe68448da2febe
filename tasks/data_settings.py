"""The settings of the data: where they come from, what is wrong with them, which part is for what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.setting_values import Share
from tasks.settings_section import Count, Positive, Section


class Data(Section):
    source: Annotated[str, Field(min_length=1)]
    images: Annotated[str, Field(min_length=1)]
    label_corrections: str = ""
    ignore_classes: list[str] = []
    fit: Literal["stretch", "crop", "pad", "tile"] = "stretch"
    color: Literal["auto", "gray", "rgb"] = "auto"
    max_pixels: Count = 100_000_000
    # None where nothing is said; the file must name a folder, which DVC watches.
    unlabelled: Annotated[str, Field(min_length=1)] = ""


class Check(Section):
    """Thresholds of the data checks; shares are of all images.

    Of detection alone: max_dropped_annotations, a share of the annotations. max_without_boxes: a share of the images.
    tiny_box_pixels: the square root of a box's area at the network's input. huge_box_share: of its image's area.
    same_object_iou: from which intersection over union on two boxes cover the same.
    Of segmentation alone: max_void, a share of an image's pixels that have no class. max_one_class: a share of the
    images, those that show one class only. max_dropped_annotations counts masks there.
    """

    min_images_per_class: Annotated[int, Field(ge=3)] = 10
    max_class_imbalance: Annotated[float, Field(ge=1)] = 10.0
    max_unreadable: Share = 0.05
    max_conflicting: Share = 0.05
    near_duplicate_distance: Annotated[int, Field(ge=0, le=8)] = 2
    outlier_deviations: Positive = 5.0
    drift_threshold: Positive = 0.2
    quarantine_conflicting_labels: bool = True
    max_dropped_annotations: Share = 0.05
    max_without_boxes: Share = 0.5
    tiny_box_pixels: Annotated[float, Field(ge=0)] = 8
    huge_box_share: Annotated[float, Field(gt=0, le=1)] = 0.95
    same_object_iou: Annotated[float, Field(gt=0, le=1)] = 0.9
    max_void: Share = 0.5
    max_one_class: Share = 0.5


class Split(Section):
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test: Annotated[float, Field(gt=0, lt=1)] = 0.15
    sealed: Share = 0.0
    use_given: bool = True

    @model_validator(mode="after")
    def leaves_training_images(self) -> Split:
        if self.validation + self.test + self.sealed >= 1:
            raise ValueError("validation, test and sealed together must stay below 1")
        return self


class Plan(Section):
    """What the planner expects before there are models: of how many images only one of two is right."""

    disagreement: Annotated[float, Field(gt=0, le=1)] = 0.05
    power: Annotated[float, Field(gt=0.5, lt=1)] = 0.8
