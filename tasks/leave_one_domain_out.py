"""What the step `domains` does: the teacher's recipe without one domain after the other, beside one with all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from kinglet.training.checkpoints import Checkpoint
from tasks import class_domains, clip_domains, detection_domains, segmentation_domains
from tasks.domain_run import AnyRecipe, DomainRun
from tasks.models import open_checkpoint, prepare_training, read_manifest
from tasks.parameters import Parameters
from tasks.progress import progress


class Problem(Protocol):
    """What a module says of a problem: how models are trained without a domain, and how they are judged."""

    HEADLINE: str

    def recipe_for(self, parameters: Parameters, n_training: int) -> AnyRecipe:
        """Return how every one of the models is trained. n_training: images of all domains."""

    def files_learnt_from(self) -> list[Path]:
        """Return what decides a training beside the manifest."""

    def answers_of(self, run: DomainRun[Any], tests: list[pd.DataFrame]) -> list[Any]:
        """Train a model; return its answers to the images of each of `tests`, rows of the manifest."""

    def together(self, parts: list[Any]) -> Any:
        """Return the answers to the images of several domains, one behind the other."""

    def scores_of(self, seen: Any, unseen: Any, parameters: Parameters) -> dict[str, Any]:
        """Return the scores by models that saw an image's domain and that did not, and the paired change."""


PROBLEMS: dict[str, Problem] = {
    "classification": class_domains,
    "detection": detection_domains,
    "segmentation": segmentation_domains,
    "video": clip_domains,
}


def scores_without(names: list[str], unknown: dict[str, list[str]], parameters: Parameters) -> dict[str, Any]:
    """Return the scores of every domain by a model that saw it and by one that did not, JSON-ready.

    names: the domains that are left out, in this order. unknown: {domain: classes that only it has}.
    """
    problem, manifest = PROBLEMS[parameters.network], read_manifest()
    is_training, is_test = (manifest["split"] == split for split in ("train", "test"))
    recipe = problem.recipe_for(parameters, int(is_training.sum()))
    tests = {name: manifest[is_test & (manifest["domain"] == name)] for name in names}
    checkpoints: list[Checkpoint] = []

    def answers(images: pd.DataFrame, title: str, parts: list[pd.DataFrame]) -> list[Any]:
        def checkpoint(part: str, further: dict[str, Any]) -> Checkpoint:
            files = problem.files_learnt_from()
            checkpoints.append(checkpoint_of(images, recipe, files, parameters, part, further))
            return checkpoints[-1]

        prepare_training(recipe.seed)
        with progress(f"domains, {title}") as report:
            return problem.answers_of(DomainRun(parameters, images, recipe, checkpoint, report), parts)

    seen = answers(manifest, "all domains", list(tests.values()))
    unseen = [answers(manifest[manifest["domain"] != name], f"without {name}", [tests[name]])[0] for name in names]
    rows = [
        {
            "domain": name,
            "n_training": int((is_training & (manifest["domain"] != name)).sum()),
            "unknown_classes": unknown[name],
            **problem.scores_of(by_one_that_saw, by_one_that_did_not, parameters),
        }
        for name, by_one_that_saw, by_one_that_did_not in zip(names, seen, unseen, strict=True)
    ]
    pooled = problem.scores_of(problem.together(seen), problem.together(unseen), parameters)
    # Not before: an interrupted step does not train again what it has trained.
    for checkpoint in checkpoints:
        checkpoint.clear()
    return {
        "headline": problem.HEADLINE,
        "epochs": round(sum(epochs for epochs, _ in recipe.phases), 2),
        "left_out": rows,
        "all": pooled,
    }


def checkpoint_of(
    images: pd.DataFrame,
    recipe: AnyRecipe,
    files: list[Path],
    parameters: Parameters,
    part: str = "",
    further: dict[str, Any] | None = None,
) -> Checkpoint:
    """Return where the training that learns from these images, and chooses an epoch by them, goes on.

    part: its name, of a training in several. further: what decides the part besides.
    """
    used = images.loc[images["split"].isin(["train", "validation"]), "index"]
    facts = {
        "finetune": parameters.finetune.model_dump(),
        "recipe": recipe.facts,
        "fit": parameters.data.fit,
        "rows": used.to_numpy(np.int64).tolist(),
        **(further or {}),
    }
    return open_checkpoint(f"domains-{part}" if part else "domains", facts, files)
