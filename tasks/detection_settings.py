"""What `problem: detection` does not offer yet: settings that would be on, told before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinglet.errors import KingletError

if TYPE_CHECKING:
    from tasks.parameters import Parameters

# Of the network's levels, the coarsest sees the image in steps of so many pixels.
STRIDE = 32

# Settings of steps that know classes of images only, and how each is off.
OFF: dict[str, Any] = {
    "search.survivors": 0,
    "distill.students": {},
    "prune.models": [],
    "adapt.models": [],
    "crossvalidate.folds": [],
    "domains.most": 0,
    "quantize.qat_epochs": 0,
    "export.runtimes": [],
}
EXAMPLE = "params/detection.yaml"


def refuse_what_detection_does_not_offer(parameters: Parameters, path: Path) -> None:
    """Raise KingletError if a setting is on that only classification has, or an image would lose what its boxes show.

    path: of the parameter file, for the sentence.
    """
    if parameters.network != "detection":
        return
    on = [key for key, off in OFF.items() if setting(parameters, key) != off]
    if on:
        raise KingletError(
            f"{path}: problem is {parameters.problem}, which does not offer {', '.join(on)} yet.",
            f"Set {'; '.join(f'{key}: {OFF[key]}' for key in on)}. {EXAMPLE} has all of them off.",
        )
    if parameters.data.fit == "crop":
        raise KingletError(
            f"{path}: problem is {parameters.problem}, and data.fit: crop would cut boxes away.",
            "Set data.fit to pad or stretch.",
        )
    size = parameters.finetune.input_size
    if isinstance(size, int) and size % STRIDE:
        raise KingletError(
            f"{path}: finetune.input_size is {size}; a detector's is a multiple of {STRIDE}.",
            f"Set it to {max(1, round(size / STRIDE)) * STRIDE}, or to auto.",
        )


def setting(parameters: Parameters, key: str) -> Any:
    """Return the value of a setting, its key as sections and name with dots between them."""
    value: Any = parameters
    for name in key.split("."):
        value = getattr(value, name)
    return value
