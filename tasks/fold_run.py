"""One fold of the cross-validation, whatever the problem: its images' parts, its checkpoint, and what it leaves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from kinglet.atomic import atomic_path, write_json
from kinglet.errors import KingletError
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.epochs import Recipe
from kinglet.training.loop import ImageSet
from tasks.artifacts import FOLDS, fold_folder
from tasks.models import open_checkpoint, read_manifest
from tasks.parameters import Parameters
from tasks.training_settings import Finetune

# What the images of a fold are for.
HELD_OUT, TRAINING, VALIDATION = "held out", "train", "validation"
# Training images that say which epoch's weights are kept. The images of the fold itself must not.
VALIDATION_SHARE, MOST_VALIDATION_IMAGES = 0.1, 1000


@dataclass(frozen=True)
class FoldRun:
    """A fold of a repetition, and what it is trained with. threads: how many it may take."""

    parameters: Parameters
    repeat: int
    fold: int
    seed: int
    threads: int

    @property
    def folder(self) -> Path:
        """Where the fold keeps its answers."""
        return fold_folder(self.repeat, self.fold)

    @property
    def title(self) -> str:
        """What its progress is called."""
        return f"fold {self.fold}" if len(self.parameters.crossvalidate.repeats) == 1 else f"fold {self.name}"

    @property
    def name(self) -> str:
        """Repetition and fold."""
        return f"{self.repeat}-{self.fold}"

    @property
    def settings(self) -> Finetune:
        """How the teacher is trained, with the epochs of a fold."""
        return self.parameters.finetune.model_copy(update={"epochs": self.parameters.crossvalidate.epochs})

    def images(self) -> pd.DataFrame:
        """Return the images with the part that each has in this fold as its split.

        Raises KingletError if the fold was not assigned, or leaves nothing to learn from.
        """
        return images_of_parts(self.repeat, self.fold)

    def checkpoint(self, recipe: Recipe, files: Iterable[Path]) -> Checkpoint:
        """Return where its training goes on if it was interrupted. files: packed, that it learns from."""
        facts = {
            "finetune": self.parameters.finetune.model_dump(),
            "recipe": recipe.facts,
            "threads": self.threads,
        }
        return open_checkpoint(f"crossvalidate-{self.name}", facts, [*files, FOLDS])

    def keep_facts(
        self,
        *,
        n: int,
        n_training: int,
        n_validation: int,
        phases: tuple[tuple[float, int], ...],
        history: list[dict[str, float]],
    ) -> None:
        """Write fold.json: how many images had which part, and how the training went. phases: of its recipe."""
        facts: dict[str, Any] = {
            "n": n,
            "n_training": n_training,
            "n_validation": n_validation,
            "epochs": round(sum(epochs for epochs, _ in phases), 2),
            "history": history,
        }
        write_json(self.folder / "fold.json", facts)


def images_of_parts(repeat: int, fold: int) -> pd.DataFrame:
    """Return the images with their part as their split: those of the fold, and of the others those to learn from and
    those that say when it is best.
    """
    plan = pd.read_parquet(FOLDS)
    plan = plan[plan["repeat"] == repeat]
    if fold not in set(plan["fold"]):
        raise KingletError(f"{FOLDS} holds no fold {fold} of repetition {repeat}.", "Run `dvc repro`.")
    images = read_manifest().merge(plan, on="index")
    others = images[images["fold"] != fold]
    share = min(VALIDATION_SHARE, MOST_VALIDATION_IMAGES / len(others))
    # One set that belongs together at the least.
    limit = max(share, others["draw"].min() + np.finfo(float).eps)
    for part, chosen in (
        (HELD_OUT, images["fold"] == fold),
        (VALIDATION, (images["fold"] != fold) & (images["draw"] < limit)),
        (TRAINING, (images["fold"] != fold) & (images["draw"] >= limit)),
    ):
        images.loc[chosen, "split"] = part
    if not (images["split"] == TRAINING).any():
        raise KingletError(
            f"Fold {fold} of the cross-validation leaves no image to learn from: all others belong together.",
            "Name no folds in crossvalidate.folds ([]), or add images that belong to no group.",
        )
    return images


def write_predictions(path: Path, images: ImageSet, probabilities: NDArray[np.float32]) -> None:
    """Write one row for every image: index, label and probabilities."""
    columns = {
        "index": images.rows,
        "label": images.labels,
        "probabilities": pa.FixedSizeListArray.from_arrays(probabilities.ravel(), probabilities.shape[1]),
    }
    with atomic_path(path) as temporary:
        pa.parquet.write_table(pa.table(columns), temporary, compression="zstd")
