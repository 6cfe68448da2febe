"""Step `adapt`: adapt models to a target domain, and score them before and after, there and where they came from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinglet.atomic import atomic_path, write_json
from tasks.artifacts import ADAPT, ADAPTED_MODELS, say_why_empty
from tasks.parameters import Parameters
from tasks.stage import run_stage

NO_PICTURES = np.zeros((2, 0, 1, 1, 1), np.uint8)


def run(parameters: Parameters) -> None:
    """Write scores.json, pictures.npy, and models/NAME-METHOD with the weights of every adapted model."""
    ADAPTED_MODELS.mkdir(parents=True, exist_ok=True)
    scores: dict[str, Any] = {"models": {}}
    pictures: NDArray[np.uint8] = NO_PICTURES
    if parameters.adapt.models:
        # Here, as a run that adapts nothing need not wait for torch.
        from tasks import adaptation, image_adaptation

        work = {
            "classification": adaptation.adapt_models,
            "detection": image_adaptation.adapt_models,
            "segmentation": image_adaptation.adapt_models,
            "video": adaptation.adapt_models,
        }
        scores, found = work[parameters.network](parameters)
        pictures = NO_PICTURES if found is None else found
    if not scores["models"]:
        say_why_empty(ADAPTED_MODELS, scores.get("reason", "adapt.models names no model."))
    with atomic_path(ADAPT / "pictures.npy") as temporary, temporary.open("wb") as file:
        np.save(file, pictures)
    write_json(ADAPT / "scores.json", scores)


if __name__ == "__main__":
    run_stage(run)
