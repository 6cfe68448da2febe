"""What single settings may be: names that are known, and numbers or "auto", as types that refuse the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from kinglet.runtime.engines import ONNXRUNTIME, RUNTIMES
from tasks.settings_section import AUTO, AutoOrCount, AutoOrPositive, auto_or_positive

# The keys of the tables in kinglet/, written down again: importing those would cost every step the seconds
# that torch takes. A test holds them equal.
AUGMENTATIONS = ("flip", "flip_vertically", "crop", "rotate", "shift", "color", "erase", "mixup")
BOX_AUGMENTATIONS = ("flip", "flip_vertically", "crop", "mosaic", "color")
MASK_AUGMENTATIONS = ("flip", "flip_vertically", "turn", "crop", "scale", "elastic", "color")
# All frames of a clip in the same way.
CLIP_AUGMENTATIONS = ("flip", "flip_vertically", "crop", "shift", "color")
AUGMENTATIONS_OF = {
    "classification": AUGMENTATIONS,
    "detection": BOX_AUGMENTATIONS,
    "segmentation": MASK_AUGMENTATIONS,
    "video": CLIP_AUGMENTATIONS,
}
BACKBONES = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "mobilenet-v2")
ZOOS = ("timm", "torchvision")
# How quantization-aware training comes to the sizes of its steps.
LEARNED = "learned"
CALIBRATION_METHODS = ("minmax", "percentile", "mse", "entropy")
DISTANCES = ("kl", "dkd", "dist")
HINTS = ("features", "attention")
NO_HINTS = "none"
FAMILIES = ("residual", "backbone")
ADAPTATION_METHODS = ("batch_norm", "self_training", "finetune")
ASSOCIATIONS = ("bytetrack", "sort")
# What stands for a target domain where the images name none.
DEMONSTRATION = "demonstration"
# Light to import, unlike those.
EXPORT_RUNTIMES = tuple(name for name in RUNTIMES if name != ONNXRUNTIME)


def one_of(*names: str) -> Callable[[str], str]:
    """Return a validator that lets these names pass."""

    def check(value: str) -> str:
        if value not in names:
            raise ValueError(", ".join(names))
        return value

    return check


def known_backbone(value: str) -> str:
    """Return the name of a backbone of our own or of a model zoo; raises ValueError for any other."""
    zoo, _, name = value.partition(":")
    if value not in BACKBONES and not (zoo in ZOOS and name):
        raise ValueError(", ".join([*BACKBONES, *(f"{zoo}:NAME" for zoo in ZOOS)]))
    return value


Augmentation = Annotated[str, AfterValidator(one_of(*AUGMENTATIONS))]
CalibrationMethod = Annotated[str, AfterValidator(one_of(*CALIBRATION_METHODS))]
DistillationLoss = Annotated[str, AfterValidator(one_of(*DISTANCES))]
Backbone = Annotated[str, AfterValidator(one_of(*BACKBONES))]
Hints = Annotated[str, AfterValidator(one_of(NO_HINTS, *HINTS))]
ExportRuntime = Annotated[str, AfterValidator(one_of(*EXPORT_RUNTIMES))]
AssociationName = Annotated[str, AfterValidator(one_of(*ASSOCIATIONS))]
AdaptationMethod = Annotated[str, AfterValidator(one_of(*ADAPTATION_METHODS))]
Score = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
ALL: Literal["all"] = "all"


def auto_or_pixels(value: Any) -> Any:
    """Return a value that is "auto" or an edge length in pixels; raises ValueError for any other."""
    if value == AUTO or (type(value) is int and 16 <= value <= 1024):
        return value
    raise ValueError("auto, or a whole number of pixels from 16 to 1024")


def auto_all_or_count(value: Any) -> Any:
    """Return a value that is "auto", "all" or a whole number above 0; raises ValueError for any other."""
    if value in (AUTO, ALL) or (type(value) is int and value > 0):
        return value
    raise ValueError("auto, all, or a whole number above 0")


def auto_or_some_of(*known: str) -> Callable[[Any], Any]:
    """Return a validator that lets "auto" and lists of these names pass, and raises ValueError for any other."""

    def check(value: Any) -> Any:
        if value == AUTO or (isinstance(value, list) and all(name in known for name in value)):
            return value
        raise ValueError(f"auto, or a list of {', '.join(known)}")

    return check


def auto_or_families(value: Any) -> Any:
    """Return a value that is "auto" or a list of families of candidates; raises ValueError for any other."""
    if value == AUTO or (isinstance(value, list) and value and all(name in FAMILIES for name in value)):
        return value
    raise ValueError(f"auto, or a list of {', '.join(FAMILIES)}")


def auto_or_not_negative(value: Any) -> Any:
    """Return a value that is "auto", 0 or a positive number; raises ValueError for any other."""
    return value if type(value) in (int, float) and value == 0 else auto_or_positive(value)


# "auto" is resolved by the steps: sizes from the images' own, epochs from their number.
InputSize = Annotated[int | Literal["auto"], BeforeValidator(auto_or_pixels)]
Epochs = AutoOrPositive
Images = Annotated[int | Literal["auto", "all"], BeforeValidator(auto_all_or_count)]
Channels = AutoOrCount
Views = AutoOrCount
Augmentations = Annotated[
    list[str] | Literal["auto"],
    BeforeValidator(auto_or_some_of(*dict.fromkeys(name for names in AUGMENTATIONS_OF.values() for name in names))),
]
AdaptationAugmentations = Annotated[list[str] | Literal["auto"], BeforeValidator(auto_or_some_of(*AUGMENTATIONS))]
Families = Annotated[list[str] | Literal["auto"], BeforeValidator(auto_or_families)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]


def counted_from_one(value: list[int]) -> list[int]:
    """Return a list that is 1, 2, 3, ...; raises ValueError for any other."""
    if value != list(range(1, len(value) + 1)):
        raise ValueError("a list of the numbers 1, 2, 3, ... in this order")
    return value


Numbers = Annotated[list[int], AfterValidator(counted_from_one)]
