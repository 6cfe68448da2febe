"""One block of training with Kinglet's own loop, for the benchmark `training_speed`.

What the step `finetune` does: `tasks.models.prepare_training` (allocator, determinism, threads), packed
images memory-mapped, and `kinglet.training.loop.fit` with its average of weights and its schedule.
Prints one JSON object. Started by `benchmarks.training_speed`, a new process for every block:

    .venv/bin/python -m benchmarks.kinglet_loop SET.json --steps 62
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.training_set import TrainingSet, read_training_set
from kinglet.data.batches import count_batches, open_packed
from kinglet.models.registry import normalization, pretrained
from kinglet.training.loop import ImageSet, fit
from kinglet.training.losses import label_loss
from tasks.finetune import recipe_of
from tasks.models import prepare_training
from tasks.parameters import load_parameters
from tasks.training_settings import Finetune

BACKBONE = "efficientnet-lite0"
AUGMENT = ("flip", "shift")


def step_ends(images: TrainingSet, settings: Finetune, steps: int) -> list[float]:
    """Return when each of `steps` training steps ended, in seconds."""
    prepare_training(seed=0)
    rows = np.arange(len(images.paths))
    packed = {images.size: open_packed(Path(images.packed))}
    labels = np.array(images.labels, np.int64)
    phases = ((steps / count_batches(len(rows), settings.batch_size), images.size),)
    recipe = replace(recipe_of(settings, phases, seed=0), augment=AUGMENT, precision="fp32")
    network, _ = pretrained(BACKBONE, images.channels, images.n_classes, settings.dropout)
    mean, std = normalization(images.channels)
    ends: dict[float, float] = {}

    def note(done: float, total: float, text: str = "") -> None:
        del total, text
        # The last step is reported once more after the validation, which is not counted.
        ends.setdefault(done, time.perf_counter())

    fit(
        network,
        ImageSet(packed, rows, labels),
        ImageSet(packed, rows[:1], labels[:1]),
        label_loss(torch.from_numpy(labels), settings.label_smoothing),
        recipe,
        mean=mean,
        std=std,
        device=torch.device("cpu"),
        report=note,
    )
    return list(ends.values())


def main() -> None:
    """Train and print when each step ended."""
    parser = argparse.ArgumentParser(description="One block of training with Kinglet's loop.")
    parser.add_argument("images", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    options = parser.parse_args()
    ends = step_ends(read_training_set(options.images), load_parameters().finetune, options.steps)
    print(json.dumps({"step_ends": ends, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
