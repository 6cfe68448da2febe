"""The settings of what is trained: the teacher, its folds, the search, the students, and other domains."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from tasks.setting_values import (
    ADAPTATION_METHODS,
    DEMONSTRATION,
    NO_HINTS,
    AdaptationAugmentations,
    AdaptationMethod,
    Augmentation,
    Augmentations,
    Backbone,
    DistillationLoss,
    Epochs,
    Families,
    Hints,
    InputSize,
    Name,
    Numbers,
    Share,
    Views,
    auto_or_not_negative,
    known_backbone,
)
from tasks.settings_section import AUTO, Count, Positive, Section


class Finetune(Section):
    """epochs: 0 leaves the backbone as it is, and trains what stands behind it alone; of video only."""

    backbone: Annotated[str, AfterValidator(known_backbone)]
    input_size: InputSize = AUTO
    epochs: Annotated[float | Literal["auto"], BeforeValidator(auto_or_not_negative)] = AUTO
    low_resolution_share: Share = 0.45
    head_epochs: Annotated[float, Field(ge=0)] = 0.1
    batch_size: Count = 128
    learning_rate: Positive = 1e-3
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.85
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    warmup: Share = 0.06
    label_smoothing: Share = 0.05
    dropout: Share = 0.2
    augment: Augmentations = AUTO
    ema_decay: Share = 0.99
    patience: Count = 10
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    devices: list[str] = []

    @field_validator("devices")
    @classmethod
    def devices_of_one_kind(cls, value: list[str]) -> list[str]:
        if len({name.partition(":")[0] for name in value}) > 1:
            raise ValueError("devices of one kind, such as [cuda:0, cuda:1], or [] for the best one")
        if any(name.startswith("cuda") for name in value) and len(set(value)) < len(value):
            raise ValueError("every GPU once")
        return value

    def head_images(self, n_images: int) -> int:
        """Return how many of so many training images the classifier alone is fitted to."""
        return min(n_images, round(self.head_epochs * n_images))

    @model_validator(mode="after")
    def every_device_has_images(self) -> Finetune:
        if self.batch_size < 2 * len(self.devices):
            raise ValueError(f"batch_size is {self.batch_size}: too few images for {len(self.devices)} devices")
        return self


class Crossvalidate(Section):
    """Folds and repetitions are lists of their numbers, as `dvc.yaml` makes a stage of each.

    folds: [] leaves the cross-validation out. repeats: each puts the images into other folds.
    """

    folds: Numbers = [1, 2, 3]
    repeats: Annotated[Numbers, Field(min_length=1)] = [1]
    epochs: Epochs = AUTO

    @field_validator("folds")
    @classmethod
    def one_fold_holds_nothing_out(cls, value: list[int]) -> list[int]:
        if len(value) == 1:
            raise ValueError("[1, 2] or more folds, or [] for no cross-validation")
        return value


class Stage(Section):
    width: Count
    stride: Annotated[int, Field(ge=1, le=4)]
    blocks: Annotated[int, Field(ge=0)] = 1


class Student(Section):
    """A table of stages or a backbone; where the problem is not classification, a backbone.

    backbone: that the student's training starts from, with ImageNet weights.
    """

    input_size: InputSize = AUTO
    stages: Annotated[list[Stage], Field(min_length=1)] = []
    backbone: Backbone | None = None


class Search(Section):
    """Candidates are tried in rungs; every rung trains twice as long and keeps about half of them.

    survivors: how many are then trained in full by `distill`, as student-1, student-2, ...; 0 leaves the search
    out. effort: how long the candidates are trained. points_per_halving: what a halving of the latency is worth,
    in accuracy, where there is no limit to it.
    """

    survivors: Annotated[int, Field(ge=0, le=9)] = 0
    families: Families = AUTO
    trials: Count = 6
    rungs: Annotated[int, Field(ge=1, le=6)] = 3
    effort: Positive = 1
    points_per_halving: Share = 0.003


class FromTeacher(Section):
    """How students that start with trained weights, the teacher's or a backbone's, are trained."""

    epochs: Epochs = AUTO
    batch_size: Count = 64
    learning_rate: Positive = 2e-3


class Distill(Section):
    students: dict[Name, Student] = {}
    controls: list[str] = []
    from_teacher: FromTeacher = FromTeacher()
    epochs: Epochs = AUTO
    batch_size: Count = 256
    learning_rate: Positive = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    warmup: Share = 0.05
    loss: DistillationLoss = "dist"
    temperature: Positive = 1.0
    soft_weight: Annotated[float, Field(ge=0, le=1)] = 0.7
    hints: Hints = NO_HINTS
    hint_weight: Positive = 1.0
    augment: list[Augmentation] = ["flip", "shift"]
    views: Views = AUTO
    ema_decay: Share = 0.99
    patience: Count = 1000


class Adapt(Section):
    """Adapts these models to a target domain by each of the methods; [] adapts none.

    target: a value of the images' domain, which is then in no training and no test but those of `adapt`, or
    "demonstration": the held-out images as a made camera would take them. held_out: of a domain's images, those that
    judge. source_share: of the source's batch statistics, in the mixture with the target's. confidence: from which
    answers count as sure. labelled_images: that fine-tuning learns from. augment: "auto" mirrors images, and moves and
    colours clips.
    """

    models: list[str] = []
    target: Annotated[str, Field(min_length=1)] = DEMONSTRATION
    methods: Annotated[list[AdaptationMethod], Field(min_length=1)] = list(ADAPTATION_METHODS)
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.5
    source_share: Share = 0.1
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.9
    labelled_images: Count = 200
    epochs: Epochs = AUTO
    batch_size: Count = 64
    learning_rate: Positive = 3e-3
    augment: AdaptationAugmentations = AUTO

    @property
    def domain(self) -> str | None:
        """The domain that is set apart from all others; None where there is none."""
        return self.target if self.models and self.target != DEMONSTRATION else None


class Domains(Section):
    """Leaves one domain out after the other: trains the teacher's recipe without it and answers its test images.

    most: how many domains at most, those with most test images; 0 leaves none out. epochs: "auto" takes few, as for
    the folds of `crossvalidate`. min_test_images: that a domain must have.
    """

    most: Annotated[int, Field(ge=0)] = 8
    epochs: Epochs = AUTO
    min_test_images: Count = 20
