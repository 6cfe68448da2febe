"""What the step `domains` does: the teacher's recipe without one domain after the other, beside one with all."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kinglet.evidence.bootstrap import accuracy_interval, paired_interval
from kinglet.runtime.processors import available_processors
from kinglet.training.loop import ImageSet, Recipe
from kinglet.training.schedules import EpochBudget
from tasks.artifacts import InputSizes, packed_images, read_input_sizes
from tasks.crossvalidate import FEWEST_EPOCHS, MOST_EPOCHS, PIXELS, answers_of
from tasks.finetune import fine_tuned, phases_of, recipe_of
from tasks.models import image_set, open_checkpoint, prepare_training, read_classes, read_manifest
from tasks.parameters import Parameters
from tasks.progress import progress

# What a training may cost where nobody says its epochs: as much as a fold of the cross-validation.
BUDGET = EpochBudget(PIXELS, FEWEST_EPOCHS, MOST_EPOCHS)


def scores_without(names: list[str], unknown: dict[str, list[str]], parameters: Parameters) -> dict[str, Any]:
    """Return the scores of every domain by a model that saw it and by one that did not, JSON-ready.

    names: the domains that are left out, in this order. unknown: {domain: classes that only it has}.
    """
    manifest, sizes = read_manifest(), read_input_sizes()
    domains = manifest["domain"].to_numpy(object)
    test = manifest[(manifest["split"] == "test") & np.isin(domains, names)]
    images, of_test = image_set(test, "test", [sizes.teacher]), test["domain"].to_numpy(object)
    n_training = {name: int(((manifest["split"] == "train") & (domains != name)).sum()) for name in names}
    recipe = recipe_for(parameters, sizes, int((manifest["split"] == "train").sum()))
    seen = correct(manifest, images, "all domains", recipe, sizes, parameters)
    unseen = np.zeros_like(seen)
    rows = []
    for name in names:
        own = of_test == name
        of_domain = ImageSet(images.packed, images.rows[own], images.labels[own])
        unseen[own] = correct(manifest[domains != name], of_domain, f"without {name}", recipe, sizes, parameters)
        rows.append(
            {
                "domain": name,
                "n_training": n_training[name],
                "unknown_classes": unknown[name],
                **scores_of(seen[own], unseen[own], of_domain.labels, parameters),
            }
        )
    return {
        "epochs": round(sum(epochs for epochs, _ in recipe.phases), 2),
        "left_out": rows,
        "all": scores_of(seen, unseen, images.labels, parameters),
    }


def recipe_for(parameters: Parameters, sizes: InputSizes, n_training: int) -> Recipe:
    """Return how every one of the models is trained: the same, whichever domain is left out."""
    settings = parameters.finetune.model_copy(update={"epochs": parameters.domains.epochs})
    return recipe_of(settings, phases_of(settings, sizes, n_training, BUDGET), parameters.seed)


def correct(
    manifest: pd.DataFrame, images: ImageSet, title: str, recipe: Recipe, sizes: InputSizes, parameters: Parameters
) -> NDArray[np.bool_]:
    """Return whether a model that is trained on the manifest's images is right about `images`, bool (n,)."""
    settings, classes = parameters.finetune, read_classes()
    prepare_training(recipe.seed)
    training, validation = (
        image_set(manifest, split, {sizes.teacher, sizes.low_resolution}) for split in ("train", "validation")
    )
    facts = {"finetune": settings.model_dump(), "recipe": asdict(recipe), "rows": training.rows.tolist()}
    checkpoint = open_checkpoint("domains", facts, [packed_images(sizes.teacher)])
    with progress(f"domains, {title}") as report:
        network, _ = fine_tuned(
            settings, training, validation, len(classes), recipe, sizes.low_resolution, checkpoint, report
        )
        threads = available_processors()
        probabilities = answers_of(network, images, sizes.teacher, parameters.data.fit, len(classes), threads, report)
    checkpoint.clear()
    return np.asarray(probabilities.argmax(axis=1) == images.labels, bool)


def scores_of(
    seen: NDArray[np.bool_], unseen: NDArray[np.bool_], labels: NDArray[np.int64], parameters: Parameters
) -> dict[str, Any]:
    """Return the accuracy by models that saw an image's domain and that did not, and the paired change, JSON-ready."""
    settings = parameters.evaluate
    options: dict[str, Any] = {
        "strata": labels if settings.stratified else None,
        "method": settings.interval,
        "confidence": settings.confidence,
        "seed": parameters.seed,
    }
    return {
        "n": len(labels),
        "seen": accuracy_interval(seen, **options).to_dict(),
        "unseen": accuracy_interval(unseen, **options).to_dict(),
        "change": paired_interval(unseen, seen, **options).to_dict(),
    }
