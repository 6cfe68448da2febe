"""What a problem does not offer yet: settings that would be on, told before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinglet.errors import KingletError

if TYPE_CHECKING:
    from tasks.parameters import Parameters

# Of the networks' levels, the coarsest sees the image in steps of so many pixels.
STRIDE = 32

# Settings of steps that know classes of images only, and how each is off.
OFF_BESIDE_CLASSES: dict[str, Any] = {
    "search.survivors": 0,
    "distill.students": {},
    "prune.models": [],
    "quantize.qat_epochs": 0,
    "export.runtimes": [],
}
# Of these, what detectors and segmenters have as well; what their students and cuts do without.
OF_IMAGES = ("distill.students", "prune.models")
OFF_OF_IMAGES: dict[str, Any] = {
    **{key: off for key, off in OFF_BESIDE_CLASSES.items() if key not in OF_IMAGES},
    "distill.hints": "none",
    "prune.blocks": 0,
}
OFF: dict[str, dict[str, Any]] = {
    "detection": OFF_OF_IMAGES,
    "segmentation": OFF_OF_IMAGES,
    "video": {
        **{key: off for key, off in OFF_BESIDE_CLASSES.items() if key != "distill.students"},
        "distill.hints": "none",
        "quantize.stored_weights": [],
    },
}
# What the parameter file of a data set is written from.
EXAMPLES = {problem: f"params/{problem}.yaml" for problem in (*OFF, "tracking")}
# How models that draw into images are adapted: self-training knows classes of images and of pixels, not objects, and
# the made camera would change the borders around an image as well.
ADAPTED_BY = {"detection": ("batch_norm", "finetune"), "segmentation": ("batch_norm", "self_training", "finetune")}
# What an image loses at its edges, and who draws into images and takes only some sizes.
CUT_INTO_TILES = ("segmentation",)
CUT_AWAY = {"detection": "boxes", "segmentation": "parts of masks"}
NETWORKS = {"detection": "a detector", "segmentation": "a segmenter"}


def refuse_what_is_not_offered(parameters: Parameters, path: Path) -> None:
    """Raise KingletError if a setting is on that only classification has, or an image would lose what it shows.

    path: of the parameter file, for the sentence.
    """
    problem, network = parameters.problem, parameters.network
    if parameters.data.fit == "tile" and network not in CUT_INTO_TILES:
        raise KingletError(
            f"{path}: data.fit is tile, and problem is {problem}: only masks are put together from tiles.",
            "Set data.fit to pad or stretch.",
        )
    if network not in OFF:
        return
    off = OFF[network]
    on = [key for key in off if setting(parameters, key) != off[key]]
    if on:
        raise KingletError(
            f"{path}: problem is {problem}, which does not offer {', '.join(on)} yet.",
            f"Set {'; '.join(f'{key}: {off[key]}' for key in on)}. {EXAMPLES[problem]} has all of them off.",
        )
    if parameters.data.fit == "crop" and network in CUT_AWAY:
        raise KingletError(
            f"{path}: problem is {problem}, and data.fit: crop would cut {CUT_AWAY[network]} away.",
            "Set data.fit to pad or stretch.",
        )
    if network in NETWORKS:
        refuse_other_adaptation(parameters, path)
        refuse_sizes_between_strides(parameters, path)


def refuse_other_adaptation(parameters: Parameters, path: Path) -> None:
    """Raise KingletError if a detector or a segmenter is to be adapted to other than a domain, or by another method."""
    adapt = parameters.adapt
    if not adapt.models:
        return
    if adapt.domain is None:
        raise KingletError(
            f"{path}: problem is {parameters.problem}, and adapt.target is {adapt.target}: the made camera takes "
            "images for classification only.",
            "Name a domain of the data set in adapt.target, or set adapt.models: [].",
        )
    known = ADAPTED_BY[parameters.network]
    unknown = [method for method in adapt.methods if method not in known]
    if unknown:
        raise KingletError(
            f"{path}: problem is {parameters.problem}, and adapt.methods names {', '.join(unknown)}, which knows no "
            "boxes.",
            f"Take some of {', '.join(known)}.",
        )


def refuse_sizes_between_strides(parameters: Parameters, path: Path) -> None:
    """Raise KingletError if an input size is none that the network's levels divide."""
    students = parameters.distill.students.items()
    sizes = {"finetune": parameters.finetune.input_size} | {
        f"distill.students.{name}": student.input_size for name, student in students
    }
    for key, size in sizes.items():
        if isinstance(size, int) and size % STRIDE:
            raise KingletError(
                f"{path}: {key}.input_size is {size}; {NETWORKS[parameters.network]}'s is a multiple of {STRIDE}.",
                f"Set it to {max(1, round(size / STRIDE)) * STRIDE}, or to auto.",
            )


def setting(parameters: Parameters, key: str) -> Any:
    """Return the value of a setting, its key as sections and name with dots between them."""
    value: Any = parameters
    for name in key.split("."):
        value = getattr(value, name)
    return value
